"""The doctor: the operation, its line, stage and step, where a value or an adjoint first stops being finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .inside import Step, finite, scan_of, steps
from .local import NO_RULE, moves, pull
from .probes import split
from .program import Operation, Program, join, program_of, trace

REMEDIES = {
    "sqrt": "its derivative is infinite at 0: use derivatives.safe.sqrt, or choose the argument before the root",
    "rsqrt": "keep the argument above 0",
    "log": "keep the argument above 0: use derivatives.safe.log",
    "log1p": "keep the argument above -1",
    "div": "the denominator is 0: choose it before dividing, or use derivatives.safe.divide",
    "pow": "the base is 0 or negative: use derivatives.safe.power",
    "atan2": "both arguments are 0, where there is no angle: use derivatives.safe.atan2",
    "acos": "the argument is at or beyond 1: use derivatives.safe.atan2 of sine and cosine",
    "asin": "the argument is at or beyond 1: use derivatives.safe.atan2 of sine and cosine",
    "exp": "overflow: subtract the largest exponent first, as jax.nn.logsumexp does",
    "mul": "0 times infinity, or overflow: look at the factors",
    "sub": "infinity minus infinity, or overflow: look at the terms",
    "custom_vjp_call": "the rule of this function gives it: call jax.grad on the function alone",
    "custom_jvp_call": "the rule of this function gives it: call jax.grad on the function alone",
}


@dataclass(frozen=True)
class Finding:
    """Where something first stops being finite: in an "input", in a "value", or in an "adjoint".

    `stage` is the path of `jax.named_scope`s and functions, `steps` the numbers of the loops' steps from the
    outermost in, `operands` the numbers that the operation met.
    """

    kind: Literal["input", "value", "adjoint"]
    operation: str
    source: str
    stage: str
    steps: tuple[int, ...]
    operands: str
    remedy: str

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        place += f" in {self.stage}" if self.stage else ""
        place += f", step {', '.join(map(str, self.steps))}" if self.steps else ""
        return f"first non-finite {self.kind}: {self.operation}({self.operands}){place}: {self.remedy}"


def diagnose(f: Callable[..., Any], *args: Any) -> Finding | None:
    """Returns where `f(*args)` first stops being finite, or if its value is finite its gradient; None if nowhere.

    Only what reaches the result counts: infinities that a later operation handles are none. Loops are followed
    step by step. `f` returns one number or a tree of arrays; the gradient is that of their sum.
    """
    inputs = split(f, args)
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        if not finite(leaf):
            return Finding("input", name, "", "", (), show(leaf), "give finite numbers")
    program = program_of(trace(inputs.call, inputs.leaves))
    values = program.run(inputs.leaves)
    if not all(finite(values[slot]) for slot in program.results):
        return _value(program, values, "", ())
    seeds = [jnp.ones_like(values[slot]) if moves(values[slot]) else None for slot in program.results]
    return _adjoint(program, values, seeds, "", ())


def _value(program: Program, values: Sequence[Any], stage: str, taken: tuple[int, ...]) -> Finding | None:
    """The finding within a program whose results are not all finite."""
    guilty = {slot for slot in program.results if not finite(values[slot])}
    found = None
    for operation in reversed(program.operations):
        if guilty & set(operation.outputs):
            bad = {s for s in operation.operands if s not in program.constants and not finite(values[s])}
            guilty |= bad
            found = found if bad else operation
    if found is None:
        return None
    operands, here = [values[slot] for slot in found.operands], join(stage, found.scope)
    for step in steps(found, operands):
        if not all(map(finite, step.outputs)):
            inside = step.program()
            deeper = _value(inside, inside.run(step.inputs), here, _numbered(taken, step))
            return deeper or _finding("value", found, operands, here, taken)
    return _finding("value", found, operands, here, taken)


def _adjoint(program: Program, values, seeds: Sequence[Any], stage: str, taken: tuple[int, ...]) -> Finding | None:
    """The finding within a program whose values are finite; None where all adjoints are finite too."""
    bars: dict[int, Any] = {}
    for slot, seed in zip(program.results, seeds, strict=True):
        bars[slot] = seed if slot not in bars or seed is None else bars[slot] + seed
    active = set(program.inputs)
    for operation in program.operations:
        active |= set(operation.outputs) if active & set(operation.operands) else set()
    for operation in reversed(program.operations):
        if not active & set(operation.operands) or not any(bars.get(s) is not None for s in operation.outputs):
            continue
        operands = [values[slot] for slot in operation.operands]
        mine = [bars.get(s) if bars.get(s) is not None else jnp.zeros_like(values[s]) for s in operation.outputs]
        for slot, share in zip(operation.operands, _pull(operation, operands, mine), strict=True):
            if share is not None and slot in active:
                bars[slot] = share if bars.get(slot) is None else bars[slot] + share
                if not finite(bars[slot]):
                    return _deeper(operation, operands, mine, join(stage, operation.scope), taken)
    return None


def _pull(operation: Operation, operands: list[Any], adjoints: list[Any]) -> list[Any]:
    """The contributions to an operation's operands; raises InputError where jax has no rule for them."""
    try:
        return pull(operation, operands, adjoints)
    except NO_RULE as error:
        at = f" at {operation.source}" if operation.source else ""
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{operation.name}{at} has no reverse mode ({reason}): the value is finite") from error


def _deeper(operation: Operation, operands, adjoints, stage: str, taken: tuple[int, ...]) -> Finding:
    """The finding on an operation whose adjoints turn non-finite, from inside it where it has an inside."""
    here = _finding("adjoint", operation, operands, stage, taken)
    if "branches" in operation.params:
        step = next(steps(operation, operands))
        inside = step.program()
        return _adjoint(inside, inside.run(step.inputs), adjoints, stage, taken) or here
    if "length" in operation.params and "jaxpr" in operation.params:
        return _scan(operation, operands, adjoints, stage, taken) or here
    return here


def _scan(operation: Operation, operands, adjoints, stage: str, taken: tuple[int, ...]) -> Finding | None:
    """The finding in the step of a scan, followed backwards, at which the adjoint of the carry stops being finite."""
    scan = scan_of(operation, operands)
    carried = len(scan.carry)
    bars, rows = list(adjoints[:carried]), adjoints[carried:]
    body = Operation(operation.name, operation.kind, lambda *x: tuple(scan.call(*x)), (), (), (), {}, "", "")
    for step in list(steps(operation, operands))[::-1]:
        seeds = [*bars, *(row[step.number] for row in rows)]
        back = pull(body, step.inputs, seeds)
        if not all(map(finite, back)):
            known = [seed if moves(x) else None for seed, x in zip(seeds, step.outputs, strict=True)]
            inside = step.program()
            return _adjoint(inside, inside.run(step.inputs), known, stage, _numbered(taken, step))
        moved = back[len(scan.constants) : len(scan.constants) + carried]
        bars = [jnp.zeros_like(x) if bar is None else bar for bar, x in zip(moved, scan.carry, strict=True)]
    return None


def _numbered(taken: tuple[int, ...], step: Step) -> tuple[int, ...]:
    return taken if step.number is None else (*taken, step.number)


def _finding(kind: Any, operation: Operation, operands, stage: str, taken: tuple[int, ...]) -> Finding:
    numbers = ", ".join(map(show, operands))
    remedy = REMEDIES.get(operation.name) or REMEDIES.get(operation.kind, "look at its operands there")
    return Finding(kind, operation.name, operation.source, stage, taken, numbers, remedy)


def show(value: Any) -> str:
    """Returns a value for a message: a number, or of an array its shape, least and greatest entry."""
    array = np.asarray(value) if not jax.dtypes.issubdtype(jnp.result_type(value), jax.dtypes.prng_key) else np.zeros(0)
    if array.size == 1:
        return f"{array.item():.4g}" if np.issubdtype(array.dtype, np.floating) else str(array.item())
    if array.size == 0 or not np.issubdtype(array.dtype, np.number):
        return f"{array.dtype}[{'x'.join(map(str, array.shape))}]"
    return f"[{'x'.join(map(str, array.shape))}: {np.min(array):.4g} to {np.max(array):.4g}]"
