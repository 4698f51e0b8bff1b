"""The operation in a program at which a value, or an adjoint, first stops being finite."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._jax.program import Operation, Place, Program, Stuck, join, program_of
from .._jax.step_into import Step, finite, scan_of, steps
from .operation_derivatives import FLOAT0, live_outputs, live_slots, moves, pull


class Fault(NamedTuple):
    """An operation, the values of its operands, and where it stands: stage, and steps of the loops around it."""

    operation: Operation
    operands: list[Any]
    stage: str
    steps: tuple[int, ...]


class Way(NamedTuple):
    """Where a program stands within others: the stage, and the steps taken in the loops around it."""

    stage: str = ""
    steps: tuple[int, ...] = ()

    def into(self, operation: Operation, step: Step | None = None) -> "Way":
        """Returns the way to what an operation has inside, at a step of it."""
        numbers = () if step is None or step.number is None else (step.number,)
        return Way(join(self.stage, operation.scope), (*self.steps, *numbers))


START = Way()


def fault_of_value(program: Program, values: Sequence[Any], way: Way = START) -> Fault | None:
    """Returns the fault of a program whose results are not all finite; None where there is none to be found."""
    guilty = {slot for slot in program.results if not finite(values[slot])}
    found = None
    for operation in reversed(program.operations):
        if guilty & set(operation.outputs):
            bad = {s for s in operation.operands if s not in program.constants and not finite(values[s])}
            guilty |= bad
            found = found if bad else operation
    if found is None:
        return None
    operands = [values[slot] for slot in found.operands]
    here = Fault(found, operands, join(way.stage, found.scope), way.steps)
    try:
        for step in steps(found, operands):
            if not all(map(finite, step.outputs)):
                inside = step.program()
                return fault_of_value(inside, inside.run(step.inputs), way.into(found, step)) or here
    except Stuck:  # then the operation as a whole is as near as one can come
        return here
    return here


def fault_of_adjoint(
    program: Program,
    values: Sequence[Any],
    seeds: Sequence[Any],
    live: Sequence[bool] | None = None,
    way: Way = START,
) -> Fault | None:
    """Returns the fault of a program whose values are finite, from the results' adjoints back to the `live` inputs.

    None where all adjoints are finite. Raises Stuck at an operation that jax cannot differentiate by itself.
    """
    cotangents: dict[int, Any] = {}
    for slot, seed in zip(program.results, seeds, strict=True):
        cotangents[slot] = seed if slot not in cotangents or seed is None else cotangents[slot] + seed
    active = live_slots(program, values, [True] * len(program.inputs) if live is None else live)
    for operation in reversed(program.operations):
        given = [slot in active for slot in operation.operands]
        if not any(given) or not any(s in active and cotangents.get(s) is not None for s in operation.outputs):
            continue
        operands = [values[slot] for slot in operation.operands]
        mine = [
            cotangents.get(s) if cotangents.get(s) is not None else jnp.zeros_like(values[s]) for s in operation.outputs
        ]
        for slot, share in zip(operation.operands, pull(operation, operands, mine, given), strict=True):
            if share is not None:
                cotangents[slot] = share if cotangents.get(slot) is None else cotangents[slot] + share
                if not finite(cotangents[slot]):
                    return _deeper(operation, operands, mine, given, way)
    return None


def _deeper(operation: Operation, operands, adjoints, live: Sequence[bool], way: Way) -> Fault:
    """The fault of an operation whose adjoints turn non-finite, from inside it where it has an inside."""
    here = Fault(operation, list(operands), join(way.stage, operation.scope), way.steps)
    try:
        if "branches" in operation.params:
            step = next(steps(operation, operands))
            inside = step.program()
            return fault_of_adjoint(inside, inside.run(step.inputs), adjoints, live[1:], way.into(operation)) or here
        if "length" in operation.params and "jaxpr" in operation.params:
            return _scan(operation, operands, adjoints, live, way) or here
        return _rule(operation, operands, adjoints, live, way) or here
    except Stuck:  # then the operation as a whole is as near as one can come
        return here


def _scan(operation: Operation, operands, adjoints, live: Sequence[bool], way: Way) -> Fault | None:
    """The fault in the step of a scan, followed backwards, at which the adjoint of the carry stops being finite."""
    scan = scan_of(operation, operands)
    carried, given = len(scan.carry), len(scan.constants)
    cotangents, rows = list(adjoints[:carried]), adjoints[carried:]
    body = replace(operation, call=lambda *x: tuple(scan.call(*x)), params={})
    walk = list(steps(operation, operands))
    moving = _moving_in_body(body, walk[0].inputs, list(live), given, carried) if walk else []
    for step in walk[::-1]:
        seeds = [*cotangents, *(row[step.number] for row in rows)]
        back = pull(body, step.inputs, seeds, moving)
        if not all(map(finite, back)):
            known = [seed if moves(x) else None for seed, x in zip(seeds, step.outputs, strict=True)]
            inside = step.program()
            return fault_of_adjoint(inside, inside.run(step.inputs), known, moving, way.into(operation, step))
        moved = back[given : given + carried]
        cotangents = [
            jnp.zeros_like(x) if cotangent is None else cotangent
            for cotangent, x in zip(moved, scan.carry, strict=True)
        ]
    return None


def _moving_in_body(body: Operation, inputs, live: list[bool], given: int, carried: int) -> list[bool]:
    """Which inputs of a loop's body carry a derivative at some step: a carry does once what it is made of does."""
    for _ in range(carried + 1):
        found = live_outputs(body, inputs, live)[:carried]
        carry = [a or b for a, b in zip(live[given : given + carried], found, strict=True)]
        if carry == live[given : given + carried]:
            break
        live = [*live[:given], *carry, *live[given + carried :]]
    return live


def _rule(operation: Operation, operands, adjoints, live: Sequence[bool], way: Way) -> Fault | None:
    """The fault in the backward program of an operation that has a rule of its own."""
    if not operation.kind.startswith("custom_"):
        return None

    def backward(operands, adjoints):
        return [x for x in pull(operation, operands, adjoints, live) if x is not None and x.dtype != FLOAT0]

    try:
        program = program_of(jax.make_jaxpr(backward)(list(operands), list(adjoints)), at=Place("", operation.source))
    except Stuck:
        return None
    values = program.run([*operands, *adjoints])
    return fault_of_value(program, values, way.into(operation))
