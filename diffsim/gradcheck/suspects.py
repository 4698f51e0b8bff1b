"""Suspects: the operations on the way from one parameter to the result that can spoil its derivative."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._jax.equations import all_equations, casts_coarser, casts_coarser_inside
from .._jax.program import Operation, Program, Stuck, join, program_of, trace
from .._jax.step_into import inside_inputs, steps
from ..autodiff.inputs import Inputs
from ..autodiff.ridders import directional_difference, natural_size
from ..graph.operation_derivatives import live_slots, moves, pull

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
SOFT = ("comparison", *(name for name in CUTS if name not in HARD), "later")
"""What may spoil a derivative, in the order in which it is told: a jump, a kink, what a loop reaches later."""


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


def search(inputs: Inputs) -> Callable[[int], list[Suspect]]:
    """Returns the function from an input's number to the suspects between it and the result, the surest first.

    Functions with a derivative of their own are tried against differences, at the values that they meet. Raises
    Stuck where the function has an operation that cannot be run by itself.
    """
    program = program_of(trace(inputs.call, inputs.leaves))
    values = program.run(inputs.leaves)
    live = live_slots(program, values, [True] * len(program.inputs))

    def suspects(number: int) -> list[Suspect]:
        found = _search(program, values, {program.inputs[number]}, live, "")
        unique = list({(kind, s.operation, s.source): (kind, s) for kind, s in found}.values())
        order = lambda pair: HARD.index(pair[0]) if pair[0] in HARD else len(HARD) + SOFT.index(pair[0])
        return [suspect for _, suspect in sorted(unique, key=order)]

    return suspects


def narrows(inputs: Inputs) -> bool:
    """Whether anything in the function is cast to a coarser number format."""
    return any(map(casts_coarser, all_equations(trace(inputs.call, inputs.leaves).jaxpr)))


def _search(
    program: Program, values: Sequence[Any], active: set[int], live: set[int], stage: str
) -> Iterator[tuple[str, Suspect]]:
    """Yields kinds and suspects among the operations on `active` values, which it follows.

    Of a solver's own operations only what it calls is looked at: its step control compares and holds constant on
    purpose. `live` are the values that carry a derivative.
    """
    for operation in program.operations:
        if not active & set(operation.operands):
            continue
        operands = [values[slot] for slot in operation.operands]
        here = join(stage, operation.scope)
        active |= set(operation.outputs)
        moving = [slot in active for slot in operation.operands]
        detached = any(slot in active - live and moves(values[slot]) for slot in operation.operands)
        given = [slot in live for slot in operation.operands]
        kind, reason = "", ""
        if not operation.solver or operation.kind.startswith("custom_"):
            kind, reason = _judge(operation, operands, moving, None if detached else given)
        if kind:
            yield kind, Suspect(operation.name, operation.source, here, reason, kind in HARD)
        inside = _inside(operation, operands, moving, here)
        # What a function with a rule of its own has inside is not what is differentiated; it still loses digits.
        yield from (found for found in inside if kind != "rule" or found[0] == "narrowing")


def _inside(operation: Operation, operands, active: Sequence[bool], stage: str) -> Iterator[tuple[str, Suspect]]:
    """The suspects in the first step of an operation that has a function inside; none where that cannot be run.

    A loop's first step has the operations of all. Its carry depends in a later step on more than it does in the
    first: what is suspected for that alone comes last.
    """
    given = active[1:] if "branches" in operation.params else active
    try:
        step = next(steps(operation, operands), None)
        if step is None:
            if casts_coarser_inside(operation):
                reason = "narrows a number inside: derivatives lose digits"
                yield "narrowing", Suspect(operation.name, operation.source, stage, reason, True)
            return
        inside = step.program()
        values = inside.run(step.inputs)
    except Stuck:
        return
    first = inside_inputs(operation, given, len(inside.inputs))
    reached = [True] * len(inside.inputs) if step.number is not None else first
    seen = set()
    for flags in (first, reached):
        moving = {slot for slot, is_active in zip(inside.inputs, flags, strict=True) if is_active}
        live = live_slots(inside, values, flags)
        for kind, suspect in _search(inside, values, moving, live, stage):
            later = flags is not first and not suspect.hard
            if (suspect.operation, suspect.source) not in seen:
                yield ("later" if later else kind), suspect
            seen.add((suspect.operation, suspect.source))
        if reached == first:
            return


def _judge(operation: Operation, operands, active: Sequence[bool], live: Sequence[bool] | None) -> tuple[str, str]:
    """What kind of suspect an operation is, and why; two empty strings where it is none.

    A rule of its own is judged by the operands that are `live`; not where that is None, as for a function that is
    given a root that was searched for elsewhere: its value does not show what its rule is the derivative of.
    """
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
        wrong = live is not None and any(live) and not _rule_is_right(operation, operands, live)
        return ("rule", "its own rule is wrong here") if wrong else ("", "")
    return (name, CUTS[name]) if name in CUTS else ("", "")


def _rule_is_right(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> bool:
    """Whether the derivative that a function brings along agrees with differences, along random directions.

    True too where it cannot be tried by itself: nothing speaks against it.
    """
    try:
        return _agrees_with_differences(operation, operands, live)
    except Exception:  # any kind: rules of users, and what they call, raise what they like
        return True


def _agrees_with_differences(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> bool:
    chosen = [k for k, x in enumerate(operands) if live[k] and moves(x) and np.size(x)]
    if not chosen:
        return True
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
    shares = pull(operation, operands, seeds, live)
    slope = sum(float(jnp.sum(shares[k] * d)) for k, d in zip(chosen, directions, strict=True))
    known = directional_difference(weighted, [jnp.asarray(operands[k]) for k in chosen], directions)
    eps = max(float(jnp.finfo(operands[k].dtype).eps) for k in chosen)
    allowed = 2 * known.error + max(1e-6, 100 * eps) * np.fmax(abs(slope), abs(known.value))
    return bool(abs(slope - known.value) <= allowed)
