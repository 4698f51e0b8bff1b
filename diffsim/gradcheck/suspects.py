"""Suspects: the operations between one parameter and the result that can spoil its derivative."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .._jax.equations import all_equations, casts_coarser, casts_coarser_inside
from .._jax.program import Operation, Program, Stuck, join, program_of, trace
from .._jax.step_into import inside_inputs, steps
from ..autodiff.inputs import Inputs
from ..graph.operation_derivatives import is_inexact, live_slots
from .rule_check import rule_is_right

CUTS = {
    "stop_gradient": "stops the derivative",
    "round": "is flat between its steps",
    "floor": "is flat between its steps",
    "ceil": "is flat between its steps",
    "sign": "is flat between its steps",
    "argmax": "returns an index, which has no derivative",
    "argmin": "returns an index, which has no derivative",
    "sort": "sorts: its derivative jumps where two entries meet",
    "max": "has a kink where its operands meet",
    "min": "has a kink where its operands meet",
    "clamp": "has derivative 0 beyond its bounds",
    "abs": "has a kink at 0",
    "while": "has no derivative in reverse mode, and none by the number of its iterations",
}
COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne")
HARD = ("rule", "stop_gradient", "narrowing", "cast", "round", "floor", "ceil", "sign", "argmax", "argmin")
"""Kinds of operations that certainly spoil a derivative, in the order in which they are reported."""
SOFT = ("comparison", *(name for name in CUTS if name not in HARD), "later")
"""Kinds that may spoil a derivative, in the order in which they are reported: jumps, kinks, later steps of a loop."""


@dataclass(frozen=True)
class Suspect:
    """An operation that is suspected to spoil a derivative.

    Attributes:
        operation: The name of the operation.
        source: Its line, as file:line.
        stage: The path of the functions and named scopes around it.
        reason: Why it is suspected.
        hard: Whether it certainly spoils the derivative.
    """

    operation: str
    source: str
    stage: str
    reason: str
    hard: bool

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        return f"{self.operation}{place}{f' in {self.stage}' if self.stage else ''}: {self.reason}"


def search(inputs: Inputs) -> Callable[[int], list[Suspect]]:
    """The function from an input's number to the suspects between that input and the result, the most certain first.

    Functions with a derivative rule of their own are compared with differences, at the arguments that they have here.
    Raises Stuck if the function has an operation that cannot be run by itself.
    """
    program = program_of(trace(inputs.call, inputs.leaves))
    values = program.run(inputs.leaves)
    live = live_slots(program, values, [True] * len(program.inputs))

    def suspects(number: int) -> list[Suspect]:
        pairs = _search(program, values, {program.inputs[number]}, live, "")
        unique = list({(kind, s.operation, s.source): (kind, s) for kind, s in pairs}.values())
        order = lambda pair: HARD.index(pair[0]) if pair[0] in HARD else len(HARD) + SOFT.index(pair[0])
        return [suspect for _, suspect in sorted(unique, key=order)]

    return suspects


def narrows(inputs: Inputs) -> bool:
    """Whether anything in the function is cast to a number format with fewer digits."""
    return any(map(casts_coarser, all_equations(trace(inputs.call, inputs.leaves).jaxpr)))


def _search(
    program: Program, values: Sequence[Any], active: set[int], live: set[int], stage: str
) -> Iterator[tuple[str, Suspect]]:
    """Yields kinds and suspects among the operations that depend on `active` values.

    The operations of a solver itself are no suspects, since its step size control compares and stops derivatives on
    purpose; the functions that it calls are searched. `live` are the values that carry a derivative.
    """
    for operation in program.operations:
        if not active & set(operation.operands):
            continue
        operands = [values[slot] for slot in operation.operands]
        here = join(stage, operation.scope)
        active |= set(operation.outputs)
        moving = [slot in active for slot in operation.operands]
        detached = any(slot in active - live and is_inexact(values[slot]) for slot in operation.operands)
        carries = [slot in live for slot in operation.operands]
        kind, reason = "", ""
        if not operation.solver or operation.kind.startswith("custom_"):
            kind, reason = _judge(operation, operands, moving, None if detached else carries)
        if kind:
            yield kind, Suspect(operation.name, operation.source, here, reason, kind in HARD)
        inside = _inside(operation, operands, moving, here)
        # The body of a function with a rule of its own is not what is differentiated, but it can lose digits.
        yield from (pair for pair in inside if kind != "rule" or pair[0] == "narrowing")


def _inside(operation: Operation, operands, active: Sequence[bool], stage: str) -> Iterator[tuple[str, Suspect]]:
    """The suspects in the first step of an operation that has a function inside; none where that cannot be run.

    All steps of a loop have the same operations. In later steps the carry may depend on more inputs than in the first:
    the suspects of that dependence alone come last.
    """
    active = active[1:] if "branches" in operation.params else active
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
    first = inside_inputs(operation, active, len(inside.inputs))
    later_steps = [True] * len(inside.inputs) if step.number is not None else first
    seen = set()
    for flags in (first, later_steps):
        moving = {slot for slot, is_active in zip(inside.inputs, flags, strict=True) if is_active}
        live = live_slots(inside, values, flags)
        for kind, suspect in _search(inside, values, moving, live, stage):
            only_later = flags is not first and not suspect.hard
            if (suspect.operation, suspect.source) not in seen:
                yield ("later" if only_later else kind), suspect
            seen.add((suspect.operation, suspect.source))
        if later_steps == first:
            return


def _judge(operation: Operation, operands, active: Sequence[bool], live: Sequence[bool] | None) -> tuple[str, str]:
    """What kind of suspect an operation is, and why; two empty strings if it is none.

    The derivative rule of an operation is judged by the operands that are `live`, and not at all if `live` is None.
    That is for a function of a root that was found elsewhere: its value does not show what its rule differentiates.
    """
    name, params = operation.name, operation.params
    floats = [x for x, is_active in zip(operands, active, strict=True) if is_active and is_inexact(x)]
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
        wrong = live is not None and any(live) and not rule_is_right(operation, operands, live)
        return ("rule", "its derivative rule is wrong here") if wrong else ("", "")
    return (name, CUTS[name]) if name in CUTS else ("", "")
