"""The steps of loops, the branches taken and the bodies of custom functions, as programs with their values."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .program import Operation, Place, Program, Stuck, program_of

MOST = 100_000
"""The largest number of steps of a loop that are yielded."""

BODIES = ("call_jaxpr", "call", "program", "jaxpr", "fun_jaxpr")
"""The parameters under which an operation may have its body: functions with custom rules, and calls."""


class Step(NamedTuple):
    """One step of an operation that has a function inside.

    Attributes:
        number: The number of the step; None if the operation is not a loop.
        inside: The function.
        inputs: The values of its inputs in this step.
        outputs: The values of its results.
        at: The origin of the operation.
    """

    number: int | None
    inside: core.ClosedJaxpr
    inputs: list[Any]
    outputs: list[Any]
    at: Place = Place()

    def program(self) -> Program:
        """Returns the step's operations."""
        return program_of(self.inside, at=self.at)


class Scan(NamedTuple):
    """The parts of a scan's operands, and its body, compiled."""

    inside: core.ClosedJaxpr
    constants: list[Any]
    carry: list[Any]
    rows: list[Any]
    order: range
    call: Callable[..., Any]


def steps(operation: Operation, operands: Sequence[Any]) -> Iterator[Step]:
    """Yields the steps of a loop in order, the branch that is taken, or the body of a custom function.

    Yields nothing for an operation without a function inside; raises Stuck if that function cannot be run.
    """
    at = Place("", operation.source, operation.solver)
    try:
        for step in _steps(operation, operands):
            yield step._replace(at=at)
    except Stuck:
        raise
    except Exception as error:  # of any type: a callback to Python inside may raise anything
        raise Stuck(operation, "cannot be run step by step", error) from error


def _steps(operation: Operation, operands: Sequence[Any]) -> Iterator[Step]:
    params = operation.params
    if "branches" in params:
        chosen = int(np.clip(int(operands[0]), 0, len(params["branches"]) - 1))
        yield _once(params["branches"][chosen], operands[1:])
    elif "body_jaxpr" in params:
        yield from _while(params, list(operands))
    elif "length" in params and "jaxpr" in params:
        yield from _scan(scan_of(operation, operands))
    elif callable(params.get("forward")):
        yield _linear(params, operands)
    else:
        inside = (params.get(name) for name in BODIES)
        for body in [body for body in inside if isinstance(body, core.ClosedJaxpr)][:1]:
            yield _once(body, operands)


def inside_inputs(operation: Operation, flags: Sequence[bool], count: int) -> list[bool]:
    """Returns the flags of the inputs of the first step, from those of the operation's operands.

    The operands of a while loop begin with those of its condition, which are not inputs of a step.
    """
    return list(flags[operation.params.get("cond_nconsts", 0) :]) if len(flags) >= count else [any(flags)] * count


def _linear(params: dict[str, Any], operands: Sequence[Any]) -> Step:
    """The body of a `linear_map`, a function of its residuals and its inputs."""
    count = params["count"]
    body = jax.make_jaxpr(lambda *x: params["forward"](list(x[:count]), list(x[count:])))(*operands)
    return _once(body, operands)


def _once(inside: core.ClosedJaxpr, operands: Sequence[Any]) -> Step:
    return Step(None, inside, list(operands), jax.jit(core.jaxpr_as_fun(inside))(*operands))


def _while(params: dict[str, Any], operands: list[Any]) -> Iterator[Step]:
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    given, constants = operands[:tests], operands[tests : tests + bodies]
    carry = operands[tests + bodies :]
    condition = jax.jit(core.jaxpr_as_fun(params["cond_jaxpr"]))
    body = jax.jit(core.jaxpr_as_fun(params["body_jaxpr"]))
    for number in range(MOST):
        if not np.all(condition(*given, *carry)[0]):
            return
        inputs, carry = [*constants, *carry], body(*constants, *carry)
        yield Step(number, params["body_jaxpr"], inputs, carry)


def scan_of(operation: Operation, operands: Sequence[Any]) -> Scan:
    """Returns a scan's operands by role: rows are those that have one more axis than inside the body."""
    inside: Any = operation.params["jaxpr"]
    pairs = list(zip(inside.in_avals, operands, strict=True))
    rows = [x for aval, x in pairs if np.ndim(x) > len(aval.shape)]
    rest = [x for aval, x in pairs if np.ndim(x) == len(aval.shape)]
    length = operation.params["length"]
    stacked = sum(rank > len(aval.shape) for aval, rank in zip(inside.out_avals, operation.ranks, strict=True))
    given = len(rest) - (len(inside.out_avals) - stacked)
    order = range(length)[::-1] if operation.params["reverse"] else range(length)
    return Scan(inside, rest[:given], rest[given:], rows, order, jax.jit(core.jaxpr_as_fun(inside)))


def _scan(scan: Scan) -> Iterator[Step]:
    carry = scan.carry
    for number in scan.order:
        inputs = [*scan.constants, *carry, *(row[number] for row in scan.rows)]
        outputs = scan.call(*inputs)
        carry = outputs[: len(carry)]
        yield Step(number, scan.inside, inputs, outputs)


def finite(value: Any) -> bool:
    """Whether a value has no NaN and no infinity; true for integers and keys."""
    if value is None or not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return True
    return bool(np.all(np.isfinite(np.asarray(value))))
