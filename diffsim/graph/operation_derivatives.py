"""Derivatives of one operation at a time: its tangents from those of its operands, and adjoints back.

Of the values in a program, those are called live that have a derivative with respect to its inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .._jax.program import Operation, Program, Stuck

FLOAT0 = jax.dtypes.float0
NO_RULE = (TypeError, ValueError, NotImplementedError)
"""What JAX raises for a derivative rule that does not exist."""


def is_inexact(value: Any) -> bool:
    """Whether a value is of a floating-point type, so that it can carry a derivative."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _of_live(
    operation: Operation, operands: Sequence[Any], live: Sequence[bool]
) -> tuple[Callable[..., Any], list[int]]:
    """The operation as a function of its live operands alone, and the numbers of these."""
    chosen = [index for index, operand in enumerate(operands) if live[index] and is_inexact(operand)]

    def call(*values):
        arguments = list(operands)
        for index, value in zip(chosen, values, strict=True):
            arguments[index] = value
        return operation.call(*arguments)

    return call, chosen


def live_outputs(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> list[bool]:
    """Which outputs have a derivative with respect to the `live` operands, by an abstract evaluation.

    An operation is differentiated with respect to its live operands only: a loop whose operands are all constant needs
    no derivative rule.
    """
    call, chosen = _of_live(operation, operands, live)
    outputs: list[Any] = jax.eval_shape(lambda: operation.call(*operands))
    real = [number for number, out in enumerate(outputs) if jnp.issubdtype(out.dtype, jnp.inexact)]
    nonzero: list[int] = []

    @jax.custom_jvp
    def record(values):
        return values

    def rule(primals, tangents):
        nonzero.extend(k for k, t in zip(real, tangents[0], strict=True) if not isinstance(t, SymbolicZero))
        return primals[0], [jnp.zeros_like(x) for x in primals[0]]

    record.defjvp(rule, symbolic_zeros=True)
    tangents_of = lambda *x: jax.jvp(lambda *x: record([call(*x)[k] for k in real]), x, x)[1]
    try:
        jax.eval_shape(tangents_of, *(operands[k] for k in chosen)) if chosen and real else None
    except Exception:  # any kind: a user's rule may raise anything; without forward mode any output may be live
        nonzero = real
    return [number in nonzero for number in range(len(outputs))]


def live_slots(program: Program, values: Sequence[Any], live: Sequence[bool]) -> set[int]:
    """The slots that have a derivative with respect to the `live` inputs."""
    slots = {slot for slot, is_live in zip(program.inputs, live, strict=True) if is_live and is_inexact(values[slot])}
    for operation in program.operations:
        operands_live = [slot in slots for slot in operation.operands]
        if any(operands_live):
            outputs_live = live_outputs(operation, [values[slot] for slot in operation.operands], operands_live)
            slots |= {slot for slot, is_live in zip(operation.outputs, outputs_live, strict=True) if is_live}
    return slots


def operation_jvp(operation: Operation, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of an operation's outputs from those of its operands; None stands for a constant operand.

    The tangent of an output that is no real number is None. Raises Stuck if JAX has no forward mode for the operation.
    """
    call, chosen = _of_live(operation, operands, [tangent is not None for tangent in tangents])
    if not chosen:
        return [jnp.zeros_like(out) if is_inexact(out) else None for out in operation.call(*operands)]
    primals = tuple(operands[i] for i in chosen)
    try:
        _, outputs = jax.jvp(call, primals, tuple(tangents[i].astype(operands[i].dtype) for i in chosen))
    except Exception as error:  # any kind: a user's derivative rule may raise anything
        raise Stuck(operation, "has no forward mode", error) from error
    return [None if tangent.dtype == FLOAT0 else tangent for tangent in outputs]


def operation_vjp(
    operation: Operation, operands: Sequence[Any], adjoints: Sequence[Any], live: Sequence[bool]
) -> list[Any]:
    """What the adjoints of an operation's outputs contribute to those of its `live` operands; None for the others.

    If JAX has no reverse mode for the operation, the contributions are zero where all adjoints are: a loop that only
    searches, for an event say, has no rule and needs none. Otherwise raises Stuck.
    """
    call, chosen = _of_live(operation, operands, live)
    contributions: list[Any] = [None] * len(operands)
    if not chosen:
        return contributions
    try:
        outputs, vjp = jax.vjp(call, *(operands[i] for i in chosen))
        pairs = zip(outputs, adjoints, strict=True)
        cotangents = [a if is_inexact(out) else np.zeros(jnp.shape(out), FLOAT0) for out, a in pairs]
        operand_cotangents = vjp(tuple(cotangents))
    except Exception as error:  # any kind: a user's derivative rule may raise anything
        if any(np.any(a) for a in adjoints if is_inexact(a)):
            raise Stuck(operation, "has no reverse mode", error) from error
        operand_cotangents = [jnp.zeros_like(operands[i]) for i in chosen]
    for index, cotangent in zip(chosen, operand_cotangents, strict=True):
        contributions[index] = cotangent
    return contributions


def tangents(program: Program, values: Sequence[Any], input_tangents: Sequence[Any]) -> list[Any]:
    """The tangent of every slot from those of the inputs; None where it is not known."""
    live = live_slots(program, values, [True] * len(program.inputs))
    by_slot: list[Any] = [jnp.zeros_like(v) if v is not None and is_inexact(v) else None for v in values]
    for slot, tangent in zip(program.inputs, input_tangents, strict=True):
        by_slot[slot] = tangent if is_inexact(values[slot]) else None
    for operation in program.operations:
        if not live & set(operation.outputs):
            continue
        operands = [values[slot] for slot in operation.operands]
        operand_tangents = [by_slot[slot] if slot in live else None for slot in operation.operands]
        known = all(by_slot[slot] is not None for slot in operation.operands if slot in live)
        try:
            outputs = operation_jvp(operation, operands, operand_tangents) if known else None
        except Stuck:
            outputs = None
        for number, slot in enumerate(operation.outputs):
            by_slot[slot] = None if outputs is None else outputs[number]
    return by_slot


def adjoints(program: Program, values: Sequence[Any], result_adjoint: Any) -> tuple[list[Any], list[list[Any]]]:
    """The adjoint of every slot for that of the result, and the contributions of each operation.

    The contributions are one for each operand, in the order of the operations. An operation without a rule for reverse
    mode ends the propagation: the adjoints before it are None.
    """
    live = live_slots(program, values, [True] * len(program.inputs))
    by_slot: list[Any] = [jnp.zeros_like(v) if v is not None and is_inexact(v) else None for v in values]
    by_slot[program.results[0]] = result_adjoint
    by_operation: list[list[Any]] = []
    for operation in reversed(program.operations):
        operands = [values[slot] for slot in operation.operands]
        operands_live = [slot in live for slot in operation.operands]
        contributions = None
        if all(by_slot[s] is not None or not is_inexact(values[s]) for s in operation.outputs):
            output_adjoints = [by_slot[s] for s in operation.outputs]
            contributions = _contributions(operation, operands, output_adjoints, operands_live)
        known, contributions = contributions is not None, contributions or [None] * len(operands)
        for number, slot in enumerate(operation.operands):
            if contributions[number] is not None and by_slot[slot] is not None:
                by_slot[slot] = by_slot[slot] + contributions[number]
            elif operands_live[number] and not known:
                by_slot[slot] = None
        by_operation.append(contributions)
    return by_slot, by_operation[::-1]


def _contributions(operation: Operation, operands, adjoints, live: Sequence[bool]) -> list[Any] | None:
    """What the adjoints contribute to all operands; if that fails, to the live ones; if that fails too, None."""
    for chosen in ([True] * len(operands), live):
        try:
            return operation_vjp(operation, operands, adjoints, chosen)
        except Stuck:
            continue
    return None
