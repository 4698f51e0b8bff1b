"""Derivatives of one operation at a time: its tangents from those of its operands, and adjoints back."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .program import Operation, Program

FLOAT0 = jax.dtypes.float0
NO_RULE = (TypeError, ValueError, NotImplementedError)
"""What jax raises for a rule that does not exist."""


def moves(value: Any) -> bool:
    """Whether a value can carry a derivative."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _of_moving(operation: Operation, operands: Sequence[Any]) -> tuple[Callable[..., Any], list[int]]:
    """The operation as a function of those operands alone that can carry a derivative, and which they are."""
    chosen = [index for index, operand in enumerate(operands) if moves(operand)]

    def call(*values):
        full = list(operands)
        for index, value in zip(chosen, values, strict=True):
            full[index] = value
        return operation.call(*full)

    return call, chosen


def push(operation: Operation, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Returns the tangents of an operation's outputs; None where there is none, as for integers."""
    call, chosen = _of_moving(operation, operands)
    if not chosen:
        return [jnp.zeros_like(out) if moves(out) else None for out in operation.call(*operands)]
    primals = tuple(operands[i] for i in chosen)
    _, found = jax.jvp(call, primals, tuple(tangents[i].astype(operands[i].dtype) for i in chosen))
    return [None if dot.dtype == FLOAT0 else dot for dot in found]


def pull(operation: Operation, operands: Sequence[Any], adjoints: Sequence[Any]) -> list[Any]:
    """Returns what the adjoints of an operation's outputs contribute to its operands; None for integers.

    Nothing hangs on a loop that only searches, as for an event: it has no rule and, its adjoints zero, needs none.
    """
    call, chosen = _of_moving(operation, operands)
    found: list[Any] = [None] * len(operands)
    if chosen:
        outputs, back = jax.vjp(call, *(operands[i] for i in chosen))
        pairs = zip(outputs, adjoints, strict=True)
        seeds = [a if moves(out) else np.zeros(jnp.shape(out), FLOAT0) for out, a in pairs]
        try:
            shares = back(tuple(seeds))
        except NO_RULE:
            if any(np.any(seed) for seed in seeds if seed.dtype != FLOAT0):
                raise
            shares = [jnp.zeros_like(operands[i]) for i in chosen]
        for index, adjoint in zip(chosen, shares, strict=True):
            found[index] = adjoint
    return found


def tangents(program: Program, values: Sequence[Any], seeds: Sequence[Any]) -> list[Any]:
    """Returns the tangent of every slot from those of the inputs, None where it is not known."""
    dots: list[Any] = [jnp.zeros_like(v) if v is not None and moves(v) else None for v in values]
    for slot, seed in zip(program.inputs, seeds, strict=True):
        dots[slot] = seed if moves(values[slot]) else None
    for operation in program.operations:
        operands = [values[slot] for slot in operation.operands]
        known = all(dots[s] is not None or not moves(values[s]) for s in operation.operands)
        try:
            found = push(operation, operands, [dots[s] for s in operation.operands]) if known else None
        except NO_RULE:
            found = None
        for number, slot in enumerate(operation.outputs):
            dots[slot] = None if found is None else found[number]
    return dots


def adjoints(program: Program, values: Sequence[Any], seed: Any) -> tuple[list[Any], list[list[Any]]]:
    """Returns the adjoint of every slot for that of the result, and each operation's contributions.

    The contributions are one per operand, in the order of the operations; an operation without a rule for
    reverse mode stops the adjoints: those before it are None.
    """
    bars: list[Any] = [jnp.zeros_like(v) if v is not None and moves(v) else None for v in values]
    bars[program.results[0]] = seed
    shares: list[list[Any]] = []
    for operation in reversed(program.operations):
        operands = [values[slot] for slot in operation.operands]
        known = all(bars[s] is not None or not moves(values[s]) for s in operation.outputs)
        try:
            found = pull(operation, operands, [bars[s] for s in operation.outputs]) if known else None
        except NO_RULE:
            found = None
        for number, slot in enumerate(operation.operands):
            share = None if found is None else found[number]
            bars[slot] = None if share is None or bars[slot] is None else bars[slot] + share
        shares.append(found or [None] * len(operands))
    return bars, shares[::-1]
