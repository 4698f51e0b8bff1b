"""Suspects: the operations on the way from one parameter to the result that can spoil its derivative."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .differences import directional_difference, natural_size
from .inside import steps
from .local import moves, pull
from .probes import Inputs
from .program import Operation, Program, join, program_of, trace

CUTS = {
    "stop_gradient": "stops the derivative",
    "round": "is flat between its steps",
    "floor": "is flat between its steps",
    "ceil": "is flat between its steps",
    "sign": "is flat between its steps",
    "argmax": "picks by number, which has no derivative",
    "argmin": "picks by number, which has no derivative",
    "sort": "sorts: its derivative jumps where two entries meet",
    "max": "has a kink where its operands meet",
    "min": "has a kink where its operands meet",
    "clamp": "has derivative 0 beyond its bounds",
    "abs": "has a kink at 0",
    "while": "has no derivative in reverse mode, and none by the number of its turns",
}
COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne")
HARD = ("rule", "stop_gradient", "narrowing", "cast", "round", "floor", "ceil", "sign", "argmax", "argmin")
"""What spoils a derivative for sure, in the order in which it is told; the others only may."""


@dataclass(frozen=True)
class Suspect:
    """An operation, its line and stage, and why it is suspected; `hard` where it spoils a derivative for sure."""

    operation: str
    source: str
    stage: str
    reason: str
    hard: bool

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        return f"{self.operation}{place}{f' in {self.stage}' if self.stage else ''}: {self.reason}"


def suspects(inputs: Inputs, number: int) -> list[Suspect]:
    """Returns the suspects between input `number` and the result, those that spoil the derivative for sure first.

    Functions with a derivative of their own are tried against differences, at the values that they meet.
    """
    program = program_of(trace(inputs.call, inputs.leaves))
    found = _search(program, program.run(inputs.leaves), {program.inputs[number]}, "")
    unique = list({(kind, s.operation, s.source): (kind, s) for kind, s in found}.values())
    order = lambda pair: HARD.index(pair[0]) if pair[0] in HARD else len(HARD)
    return [suspect for _, suspect in sorted(unique, key=order)]


def narrows(inputs: Inputs) -> bool:
    """Whether anything in the function is cast to a coarser number format."""
    return _narrows(trace(inputs.call, inputs.leaves).jaxpr)


def _narrows(jaxpr: core.Jaxpr) -> bool:
    for equation in jaxpr.eqns:
        atoms: list[Any] = [*equation.invars, *equation.outvars]
        if equation.primitive.name == "convert_element_type":
            formats = [atom.aval.dtype for atom in atoms]
            if all(jnp.issubdtype(form, jnp.floating) for form in formats):
                before, after = (jnp.finfo(form).nmant for form in formats)
                if after < before and not isinstance(equation.invars[0], core.Literal):
                    return True
        if any(map(_narrows, core.jaxprs_in_params(equation.params))):
            return True
    return False


def _search(program: Program, values: Sequence[Any], active: set[int], stage: str) -> Iterator[tuple[str, Suspect]]:
    """Yields kinds and suspects among the operations on `active` values, which it follows."""
    for operation in program.operations:
        if not active & set(operation.operands):
            continue
        operands = [values[slot] for slot in operation.operands]
        here = join(stage, operation.scope)
        active |= set(operation.outputs)
        kind, reason = _judge(operation, operands, [slot in active for slot in operation.operands])
        if kind:
            yield kind, Suspect(operation.name, operation.source, here, reason, kind in HARD)
        for step in [] if kind == "rule" else steps(operation, operands):
            inside = step.program()
            given = operation.operands[1:] if "branches" in operation.params else operation.operands
            known = step.number is None and len(given) == len(inside.inputs)
            moving = {a for a, b in zip(inside.inputs, given, strict=True) if b in active} if known else inside.inputs
            yield from _search(inside, inside.run(step.inputs), set(moving), here)
            break  # a loop's first step has the operations of all; in a later one anything may have been reached


def _judge(operation: Operation, operands: Sequence[Any], active: Sequence[bool]) -> tuple[str, str]:
    """What kind of suspect an operation is, and why; two empty strings where it is none."""
    name, params = operation.name, operation.params
    floats = [x for x, is_active in zip(operands, active, strict=True) if is_active and moves(x)]
    if not floats:
        return "", ""
    if name == "convert_element_type":
        wide, narrow = jnp.result_type(floats[0]), params["new_dtype"]
        if not jnp.issubdtype(narrow, jnp.inexact):
            return "cast", f"casts to {narrow}, which has no derivative"
        coarser = jnp.finfo(narrow).nmant < jnp.finfo(wide).nmant
        return ("narrowing", f"narrows {wide} to {narrow}: derivatives lose digits") if coarser else ("", "")
    if name in COMPARISONS:
        return "comparison", "compares: nothing is known of how the outcome would change"
    if operation.kind.startswith("custom_"):
        return ("", "") if _rule_is_right(operation, operands) else ("rule", "its own rule is wrong here")
    return (name, CUTS[name]) if name in CUTS else ("", "")


def _rule_is_right(operation: Operation, operands: Sequence[Any]) -> bool:
    """Whether the derivative that a function brings along agrees with differences, along random directions."""
    chosen = [k for k, x in enumerate(operands) if moves(x) and np.size(x)]
    random = np.random.default_rng(0)
    signs = [random.choice([-1.0, 1.0], np.shape(operands[k])) for k in chosen]
    directions = [jnp.asarray(sign * natural_size(operands[k])) for sign, k in zip(signs, chosen, strict=True)]
    outputs = operation.call(*operands)
    weights = [jnp.asarray(random.standard_normal(np.shape(x)), x.dtype) if moves(x) else None for x in outputs]

    def weighted(values):
        full = list(operands)
        for k, value in zip(chosen, values, strict=True):
            full[k] = value
        parts = zip(operation.call(*full), weights, strict=True)
        return sum(jnp.sum(x * w) for x, w in parts if w is not None)

    seeds = [jnp.zeros_like(x) if w is None else w for x, w in zip(outputs, weights, strict=True)]
    shares = pull(operation, operands, seeds)
    slope = sum(float(jnp.sum(shares[k] * d)) for k, d in zip(chosen, directions, strict=True))
    known = directional_difference(weighted, [jnp.asarray(operands[k]) for k in chosen], directions)
    eps = max(float(jnp.finfo(operands[k].dtype).eps) for k in chosen)
    allowed = 2 * known.error + max(1e-6, 100 * eps) * np.fmax(abs(slope), abs(known.value))
    return bool(abs(slope - known.value) <= allowed)
