"""Where a value or an adjoint first stops being finite: the operation, its line, stage and step, and a remedy."""

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
from .._trees import is_key, shape_text
from ..autodiff.inputs import Inputs, split
from .faults import Fault, fault_of_adjoint, fault_of_value
from .operation_derivatives import FLOAT0, is_inexact

REMEDIES = {
    "sqrt": "its derivative is infinite at 0: use diffsim.safe.sqrt, or choose the argument before the root",
    "rsqrt": "keep the argument above 0",
    "log": "keep the argument above 0: use diffsim.safe.log",
    "log1p": "keep the argument above -1",
    "div": "the denominator is 0: choose it before dividing, or use diffsim.safe.divide",
    "pow": "the base is 0 or negative: use diffsim.safe.power",
    "atan2": "both arguments are 0, where there is no angle: use diffsim.safe.atan2",
    "acos": "the argument is at or beyond 1: use diffsim.safe.atan2 of sine and cosine",
    "asin": "the argument is at or beyond 1: use diffsim.safe.atan2 of sine and cosine",
    "exp": "overflow: subtract the largest exponent first, as jax.nn.logsumexp does",
    "mul": "0 times infinity, or overflow: look at the factors",
    "sub": "infinity minus infinity, or overflow: look at the terms",
    "select_n": "NaN is chosen here on purpose, as by a solve that failed: look at its status",
    "custom_vjp_call": "the rule of this function gives it: call jax.grad on the function alone",
    "custom_jvp_call": "the rule of this function gives it: call jax.grad on the function alone",
}


@dataclass(frozen=True)
class Finding:
    """The operation that gives the first non-finite number. `str()` gives a sentence.

    Attributes:
        kind: What is not finite: an "input", a "value" or an "adjoint".
        operation: The name of the operation, or of the input; "not located" if no operation can be named.
        source: Its line, as file:line.
        stage: The path of the functions and `jax.named_scope`s around it.
        steps: The step of each loop around it, the outermost first.
        operands: The values of its operands.
        remedy: What to do; if the operation is not located, why.
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
    """Where `f(*args)` first stops being finite, or if its value is finite, its gradient; None if both are finite.

    Only what reaches the result counts: an infinity that a later operation removes is not reported. Loops and solves
    are followed step by step. If no operation can be named, the finding is "not located" and says why.

    Args:
        f: A function that returns one number or a tree of arrays; the gradient is that of their sum.
        args: Its arguments. Every floating-point array in them is differentiated.

    Raises:
        InputError: If there is nothing to differentiate, and if the value is finite and JAX has no reverse mode for
            `f`.

    Examples:
        >>> masked = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
        >>> finding = ds.find_non_finite(masked, jnp.array([0.0, 1.0]))
        >>> print(f"{finding.kind} of {finding.operation}: {finding.remedy}")
        adjoint of sqrt: its derivative is infinite at 0: use diffsim.safe.sqrt, or choose the argument before the root
    """
    inputs = split(f, args)
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        if not finite(leaf):
            return Finding("input", name, "", "", (), _describe(leaf), "give finite numbers")
    closed = trace(inputs.call, inputs.leaves)
    outputs, gradient, reason = _outputs_and_gradient(inputs)
    if all(map(finite, outputs)) and gradient is not None and all(map(finite, gradient)):
        return None
    kind: Any = "adjoint" if all(map(finite, outputs)) else "value"
    try:
        program = program_of(closed)
        values = program.run(inputs.leaves)
        if kind == "value":
            fault = fault_of_value(program, values)
        else:
            results = [values[slot] for slot in program.results]
            fault = fault_of_adjoint(program, values, [jnp.ones_like(x) if is_inexact(x) else None for x in results])
    except Stuck as stuck:
        if kind == "adjoint" and gradient is None:
            raise InputError(f"{stuck}: the value is finite") from stuck
        return Finding(kind, NOT_LOCATED, "", "", (), "", str(stuck))
    if fault is None and gradient is None and kind == "adjoint":
        raise InputError(f"f has no reverse mode ({reason}): the value is finite")
    return _finding(kind, fault)


def _outputs_and_gradient(inputs: Inputs) -> tuple[list[Any], list[Any] | None, str]:
    """The outputs, the gradient of their sum, and an empty reason; without reverse mode None and the reason."""
    flat = lambda leaves: jax.tree.leaves(inputs.call(leaves))

    def both(leaves):
        outputs, vjp = jax.vjp(flat, leaves)
        ones = [jnp.ones_like(x) if is_inexact(x) else np.zeros(jnp.shape(x), FLOAT0) for x in outputs]
        return outputs, vjp(ones)[0]

    try:
        return *jax.jit(both)(inputs.leaves), ""
    except Exception as error:  # any kind: a user's derivative rule may raise anything
        return jax.jit(flat)(inputs.leaves), None, first_line(error)


def _finding(kind: Any, fault: Fault | None) -> Finding:
    """The finding for a fault, with its remedy."""
    if fault is None:
        why = "each operation by itself is finite; compiled together they are not"
        return Finding(kind, NOT_LOCATED, "", "", (), "", why)
    operation, numbers = fault.operation, ", ".join(map(_describe, fault.operands))
    remedy = REMEDIES.get(operation.name) or REMEDIES.get(operation.kind, "look at its operands there")
    return Finding(kind, operation.name, operation.source, fault.stage, fault.steps, numbers, remedy)


def _describe(value: Any) -> str:
    """A value for a message: a number, or of an array its shape, least and greatest entry."""
    array = np.zeros(0) if is_key(value) else np.asarray(value)
    if array.size == 1:
        return f"{array.item():.4g}" if np.issubdtype(array.dtype, np.floating) else str(array.item())
    if array.size == 0 or not np.issubdtype(array.dtype, np.number):
        return f"{array.dtype}[{shape_text(array.shape)}]"
    return f"[{shape_text(array.shape)}: {np.min(array):.4g} to {np.max(array):.4g}]"
