"""The operation in a program at which a value, or an adjoint, first stops being finite."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._jax.program import Operation, Place, Program, Stuck, join, program_of
from .._jax.step_into import Step, finite, scan_of, steps
from .operation_derivatives import FLOAT0, is_inexact, live_outputs, live_slots, operation_vjp


class Fault(NamedTuple):
    """An operation that gives the first non-finite number.

    Attributes:
        operation: The operation.
        operands: The values of its operands.
        stage: The path of the functions and named scopes around it.
        steps: The step of each loop around it, the outermost first.
    """

    operation: Operation
    operands: list[Any]
    stage: str
    steps: tuple[int, ...]


class Location(NamedTuple):
    """Where a program is called within others: the stage, and the step of each loop around it."""

    stage: str = ""
    steps: tuple[int, ...] = ()

    def inside(self, operation: Operation, step: Step | None = None) -> "Location":
        """The location of the program inside an operation, at one of its steps."""
        numbers = () if step is None or step.number is None else (step.number,)
        return Location(join(self.stage, operation.scope), (*self.steps, *numbers))


OUTERMOST = Location()


def fault_of_value(program: Program, values: Sequence[Any], location: Location = OUTERMOST) -> Fault | None:
    """The fault of a program whose results are not all finite; None if no operation can be named."""
    non_finite = {slot for slot in program.results if not finite(values[slot])}
    first = None
    for operation in reversed(program.operations):
        if non_finite & set(operation.outputs):
            causes = {s for s in operation.operands if s not in program.constants and not finite(values[s])}
            non_finite |= causes
            first = first if causes else operation
    if first is None:
        return None
    operands = [values[slot] for slot in first.operands]
    fault = Fault(first, operands, join(location.stage, first.scope), location.steps)
    try:
        for step in steps(first, operands):
            if not all(map(finite, step.outputs)):
                inside = step.program()
                return fault_of_value(inside, inside.run(step.inputs), location.inside(first, step)) or fault
    except Stuck:  # the program inside cannot be run: name the operation around it
        return fault
    return fault


def fault_of_adjoint(
    program: Program,
    values: Sequence[Any],
    result_adjoints: Sequence[Any],
    live: Sequence[bool] | None = None,
    location: Location = OUTERMOST,
) -> Fault | None:
    """The fault of a program whose values are finite, from the adjoints of the results back to the `live` inputs.

    None if all adjoints are finite. Raises Stuck at an operation that JAX cannot differentiate by itself.
    """
    cotangents: dict[int, Any] = {}
    for slot, adjoint in zip(program.results, result_adjoints, strict=True):
        cotangents[slot] = adjoint if slot not in cotangents or adjoint is None else cotangents[slot] + adjoint
    active = live_slots(program, values, [True] * len(program.inputs) if live is None else live)
    for operation in reversed(program.operations):
        operands_live = [slot in active for slot in operation.operands]
        reached = any(s in active and cotangents.get(s) is not None for s in operation.outputs)
        if not any(operands_live) or not reached:
            continue
        operands = [values[slot] for slot in operation.operands]
        outputs = [cotangents.get(s) for s in operation.outputs]
        outputs = [
            jnp.zeros_like(values[s]) if x is None else x for s, x in zip(operation.outputs, outputs, strict=True)
        ]
        contributions = operation_vjp(operation, operands, outputs, operands_live)
        for slot, contribution in zip(operation.operands, contributions, strict=True):
            if contribution is not None:
                earlier = cotangents.get(slot)
                cotangents[slot] = contribution if earlier is None else earlier + contribution
                if not finite(cotangents[slot]):
                    return _inside(operation, operands, outputs, operands_live, location)
    return None


def _inside(operation: Operation, operands, adjoints, live: Sequence[bool], location: Location) -> Fault:
    """The fault of an operation whose adjoints become non-finite: one inside it if there is one, else itself."""
    fault = Fault(operation, list(operands), join(location.stage, operation.scope), location.steps)
    try:
        if "branches" in operation.params:
            step = next(steps(operation, operands))
            inside, place = step.program(), location.inside(operation)
            return fault_of_adjoint(inside, inside.run(step.inputs), adjoints, live[1:], place) or fault
        if "length" in operation.params and "jaxpr" in operation.params:
            return _inside_scan(operation, operands, adjoints, live, location) or fault
        return _inside_rule(operation, operands, adjoints, live, location) or fault
    except Stuck:  # the program inside cannot be run: name the operation around it
        return fault


def _inside_scan(operation: Operation, operands, adjoints, live: Sequence[bool], location: Location) -> Fault | None:
    """The fault in the last step of a scan at which the adjoint of the carry stops being finite."""
    scan = scan_of(operation, operands)
    carried, constants = len(scan.carry), len(scan.constants)
    cotangents, rows = list(adjoints[:carried]), adjoints[carried:]
    body = replace(operation, call=lambda *x: tuple(scan.call(*x)), params={})
    all_steps = list(steps(operation, operands))
    body_live = _live_in_body(body, all_steps[0].inputs, list(live), constants, carried) if all_steps else []
    for step in all_steps[::-1]:
        output_adjoints = [*cotangents, *(row[step.number] for row in rows)]
        contributions = operation_vjp(body, step.inputs, output_adjoints, body_live)
        if not all(map(finite, contributions)):
            pairs = zip(output_adjoints, step.outputs, strict=True)
            known = [adjoint if is_inexact(x) else None for adjoint, x in pairs]
            inside, place = step.program(), location.inside(operation, step)
            return fault_of_adjoint(inside, inside.run(step.inputs), known, body_live, place)
        of_carry = contributions[constants : constants + carried]
        cotangents = [
            jnp.zeros_like(x) if cotangent is None else cotangent
            for cotangent, x in zip(of_carry, scan.carry, strict=True)
        ]
    return None


def _live_in_body(body: Operation, inputs, live: list[bool], constants: int, carried: int) -> list[bool]:
    """Which inputs of a loop's body carry a derivative at some step.

    A carry does if the body computes it from anything that does, so that the flags are propagated until they settle.
    """
    for _ in range(carried + 1):
        outputs = live_outputs(body, inputs, live)[:carried]
        carry = [a or b for a, b in zip(live[constants : constants + carried], outputs, strict=True)]
        if carry == live[constants : constants + carried]:
            break
        live = [*live[:constants], *carry, *live[constants + carried :]]
    return live


def _inside_rule(operation: Operation, operands, adjoints, live: Sequence[bool], location: Location) -> Fault | None:
    """The fault in the backward program of an operation that has a derivative rule of its own."""
    if not operation.kind.startswith("custom_"):
        return None

    def backward(operands, adjoints):
        contributions = operation_vjp(operation, operands, adjoints, live)
        return [x for x in contributions if x is not None and x.dtype != FLOAT0]

    try:
        program = program_of(jax.make_jaxpr(backward)(list(operands), list(adjoints)), at=Place("", operation.source))
    except Stuck:
        return None
    values = program.run([*operands, *adjoints])
    return fault_of_value(program, values, location.inside(operation))
