"""The doctor: the operation, its line, stage and step, where a value or an adjoint first stops being finite."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .._jax.program import Stuck, program_of, trace
from .._jax.source_lines import first_line
from .._jax.step_into import finite
from ..autodiff.inputs import Inputs, split
from .faults import Fault, fault_of_adjoint, fault_of_value
from .operation_derivatives import moves

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
    "select_n": "NaN is chosen here on purpose, as by a solve that failed: look at its status",
    "custom_vjp_call": "the rule of this function gives it: call jax.grad on the function alone",
    "custom_jvp_call": "the rule of this function gives it: call jax.grad on the function alone",
}


@dataclass(frozen=True)
class Finding:
    """Where something first stops being finite: in an "input", in a "value", or in an "adjoint".

    `stage` is the path of `jax.named_scope`s and functions, `steps` the numbers of the loops' steps from the
    outermost in, `operands` the numbers that the operation met. Where the place cannot be found, `operation` is
    "not located" and `remedy` says why.
    """

    kind: Literal["input", "value", "adjoint"]
    operation: str
    source: str
    stage: str
    steps: tuple[int, ...]
    operands: str
    remedy: str

    def __str__(self) -> str:
        if self.operation == NOT_LOCATED:
            return f"first non-finite {self.kind}: {NOT_LOCATED}: {self.remedy}"
        place = f" at {self.source}" if self.source else ""
        place += f" in {self.stage}" if self.stage else ""
        place += f", step {', '.join(map(str, self.steps))}" if self.steps else ""
        return f"first non-finite {self.kind}: {self.operation}({self.operands}){place}: {self.remedy}"


NOT_LOCATED = "not located"


def find_non_finite(f: Callable[..., Any], *args: Any) -> Finding | None:
    """Returns where `f(*args)` first stops being finite, or if its value is finite its gradient; None if nowhere.

    Only what reaches the result counts: infinities that a later operation handles are none. Loops and solves are
    followed step by step. `f` returns one number or a tree of arrays; the gradient is that of their sum. Where a
    value or gradient is not finite and no operation can be blamed, the finding is "not located" and says why.

    Raises InputError where there is nothing to differentiate, and where the value is finite and jax has no reverse
    mode for `f`.
    """
    inputs = split(f, args)
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        if not finite(leaf):
            return Finding("input", name, "", "", (), show(leaf), "give finite numbers")
    closed = trace(inputs.call, inputs.leaves)
    outputs, back, reason = _reverse(inputs)
    if all(map(finite, outputs)) and back is not None and all(map(finite, back)):
        return None
    kind: Any = "adjoint" if all(map(finite, outputs)) else "value"
    try:
        program = program_of(closed)
        values = program.run(inputs.leaves)
        if kind == "value":
            fault = fault_of_value(program, values)
        else:
            seeds = [jnp.ones_like(values[slot]) if moves(values[slot]) else None for slot in program.results]
            fault = fault_of_adjoint(program, values, seeds)
    except Stuck as stuck:
        if kind == "adjoint" and back is None:
            raise InputError(f"{stuck}: the value is finite") from stuck
        return Finding(kind, NOT_LOCATED, "", "", (), "", str(stuck))
    if fault is None and back is None and kind == "adjoint":
        raise InputError(f"f has no reverse mode ({reason}): the value is finite")
    return _finding(kind, fault)


def _reverse(inputs: Inputs) -> tuple[list[Any], list[Any] | None, str]:
    """The outputs and the gradient of their sum, as jax has them; or None, and why it has no gradient."""
    flat = lambda leaves: jax.tree.leaves(inputs.call(leaves))

    def both(leaves):
        outputs, back = jax.vjp(flat, leaves)
        seeds = [jnp.ones_like(x) if moves(x) else np.zeros(jnp.shape(x), jax.dtypes.float0) for x in outputs]
        return outputs, back(seeds)[0]

    try:
        return *jax.jit(both)(inputs.leaves), ""
    except Exception as error:  # any kind: rules of users raise what they like
        return jax.jit(flat)(inputs.leaves), None, first_line(error)


def _finding(kind: Any, fault: Fault | None) -> Finding:
    if fault is None:
        why = "each operation by itself is finite; compiled together they are not"
        return Finding(kind, NOT_LOCATED, "", "", (), "", why)
    operation, numbers = fault.operation, ", ".join(map(show, fault.operands))
    remedy = REMEDIES.get(operation.name) or REMEDIES.get(operation.kind, "look at its operands there")
    return Finding(kind, operation.name, operation.source, fault.stage, fault.steps, numbers, remedy)


def show(value: Any) -> str:
    """Returns a value for a message: a number, or of an array its shape, least and greatest entry."""
    array = np.asarray(value) if not jax.dtypes.issubdtype(jnp.result_type(value), jax.dtypes.prng_key) else np.zeros(0)
    if array.size == 1:
        return f"{array.item():.4g}" if np.issubdtype(array.dtype, np.floating) else str(array.item())
    if array.size == 0 or not np.issubdtype(array.dtype, np.number):
        return f"{array.dtype}[{'x'.join(map(str, array.shape))}]"
    return f"[{'x'.join(map(str, array.shape))}: {np.min(array):.4g} to {np.max(array):.4g}]"
