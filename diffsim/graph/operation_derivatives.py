"""Derivatives of one operation at a time: its tangents from those of its operands, and adjoints back."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .._jax.program import Operation, Program, Stuck

FLOAT0 = jax.dtypes.float0
NO_RULE = (TypeError, ValueError, NotImplementedError)
"""What jax raises for a rule that does not exist."""


def moves(value: Any) -> bool:
    """Whether a value can carry a derivative."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _of_live(
    operation: Operation, operands: Sequence[Any], live: Sequence[bool]
) -> tuple[Callable[..., Any], list[int]]:
    """The operation as a function of those operands alone that carry a derivative, and which they are."""
    chosen = [index for index, operand in enumerate(operands) if live[index] and moves(operand)]

    def call(*values):
        full = list(operands)
        for index, value in zip(chosen, values, strict=True):
            full[index] = value
        return operation.call(*full)

    return call, chosen


def live_outputs(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> list[bool]:
    """Returns which outputs have a derivative by the `live` operands, as jax finds it out: without computing.

    An operation is differentiated by those operands only that carry a derivative in its place: a loop whose operands
    are all held constant needs no rule.
    """
    call, chosen = _of_live(operation, operands, live)
    outputs: list[Any] = jax.eval_shape(lambda: operation.call(*operands))
    real = [number for number, out in enumerate(outputs) if jnp.issubdtype(out.dtype, jnp.inexact)]
    seen: list[int] = []

    @jax.custom_jvp
    def look(values):
        return values

    def rule(primals, tangents):
        seen.extend(k for k, t in zip(real, tangents[0], strict=True) if not isinstance(t, SymbolicZero))
        return primals[0], [jnp.zeros_like(x) for x in primals[0]]

    look.defjvp(rule, symbolic_zeros=True)
    along = lambda *x: jax.jvp(lambda *x: look([call(*x)[k] for k in real]), x, x)[1]
    try:
        jax.eval_shape(along, *(operands[k] for k in chosen)) if chosen and real else None
    except Exception:  # any kind: rules of users raise what they like; without forward mode all of them may
        seen = real
    return [number in seen for number in range(len(outputs))]


def live_slots(program: Program, values: Sequence[Any], live: Sequence[bool]) -> set[int]:
    """Returns the slots that carry a derivative by the `live` inputs."""
    slots = {slot for slot, is_live in zip(program.inputs, live, strict=True) if is_live and moves(values[slot])}
    for operation in program.operations:
        given = [slot in slots for slot in operation.operands]
        if any(given):
            found = live_outputs(operation, [values[slot] for slot in operation.operands], given)
            slots |= {slot for slot, is_live in zip(operation.outputs, found, strict=True) if is_live}
    return slots


def push(operation: Operation, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Returns the tangents of an operation's outputs from those of its operands, None for an operand held constant.

    None for an output that is no real number. Raises Stuck where jax cannot differentiate the operation forward.
    """
    call, chosen = _of_live(operation, operands, [tangent is not None for tangent in tangents])
    if not chosen:
        return [jnp.zeros_like(out) if moves(out) else None for out in operation.call(*operands)]
    primals = tuple(operands[i] for i in chosen)
    try:
        _, found = jax.jvp(call, primals, tuple(tangents[i].astype(operands[i].dtype) for i in chosen))
    except Exception as error:  # any kind: rules of users raise what they like
        raise Stuck(operation, "has no forward mode", error) from error
    return [None if dot.dtype == FLOAT0 else dot for dot in found]


def pull(operation: Operation, operands: Sequence[Any], adjoints: Sequence[Any], live: Sequence[bool]) -> list[Any]:
    """Returns what the adjoints of an operation's outputs contribute to its `live` operands; None for the others.

    Nothing depends on a loop that only searches, as for an event: it has no rule and, its adjoints zero, needs none.
    Raises Stuck where jax cannot differentiate the operation backward.
    """
    call, chosen = _of_live(operation, operands, live)
    shares: list[Any] = [None] * len(operands)
    if not chosen:
        return shares
    try:
        outputs, back = jax.vjp(call, *(operands[i] for i in chosen))
        pairs = zip(outputs, adjoints, strict=True)
        seeds = [a if moves(out) else np.zeros(jnp.shape(out), FLOAT0) for out, a in pairs]
        found = back(tuple(seeds))
    except Exception as error:  # any kind: rules of users raise what they like
        if any(np.any(a) for a in adjoints if moves(a)):
            raise Stuck(operation, "has no reverse mode", error) from error
        found = [jnp.zeros_like(operands[i]) for i in chosen]
    for index, adjoint in zip(chosen, found, strict=True):
        shares[index] = adjoint
    return shares


def tangents(program: Program, values: Sequence[Any], seeds: Sequence[Any]) -> list[Any]:
    """Returns the tangent of every slot from those of the inputs, None where it is not known."""
    live = live_slots(program, values, [True] * len(program.inputs))
    dots: list[Any] = [jnp.zeros_like(v) if v is not None and moves(v) else None for v in values]
    for slot, seed in zip(program.inputs, seeds, strict=True):
        dots[slot] = seed if moves(values[slot]) else None
    for operation in program.operations:
        if not live & set(operation.outputs):
            continue
        operands = [values[slot] for slot in operation.operands]
        given = [dots[slot] if slot in live else None for slot in operation.operands]
        known = all(dots[slot] is not None for slot in operation.operands if slot in live)
        try:
            found = push(operation, operands, given) if known else None
        except Stuck:
            found = None
        for number, slot in enumerate(operation.outputs):
            dots[slot] = None if found is None else found[number]
    return dots


def adjoints(program: Program, values: Sequence[Any], seed: Any) -> tuple[list[Any], list[list[Any]]]:
    """Returns the adjoint of every slot for that of the result, and each operation's contributions.

    The contributions are one per operand, in the order of the operations; an operation without a rule for
    reverse mode stops the adjoints: those before it are None.
    """
    live = live_slots(program, values, [True] * len(program.inputs))
    cotangents: list[Any] = [jnp.zeros_like(v) if v is not None and moves(v) else None for v in values]
    cotangents[program.results[0]] = seed
    shares: list[list[Any]] = []
    for operation in reversed(program.operations):
        operands = [values[slot] for slot in operation.operands]
        given = [slot in live for slot in operation.operands]
        known = all(cotangents[s] is not None or not moves(values[s]) for s in operation.outputs)
        found = _shares(operation, operands, [cotangents[s] for s in operation.outputs], given) if known else None
        known, found = found is not None, found or [None] * len(operands)
        for number, slot in enumerate(operation.operands):
            if found[number] is not None and cotangents[slot] is not None:
                cotangents[slot] = cotangents[slot] + found[number]
            elif given[number] and not known:
                cotangents[slot] = None
        shares.append(found)
    return cotangents, shares[::-1]


def _shares(operation: Operation, operands, adjoints, live: Sequence[bool]) -> list[Any] | None:
    """What the adjoints contribute to all operands; failing that to those that carry a derivative, else None."""
    for chosen in ([True] * len(operands), live):
        try:
            return pull(operation, operands, adjoints, chosen)
        except Stuck:
            continue
    return None
