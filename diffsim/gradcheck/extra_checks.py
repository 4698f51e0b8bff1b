"""Further evidence on a gradient: complex steps, the dot-product test, and the other number format."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from ..autodiff.complex_step import complex_derivatives
from ..autodiff.inputs import Inputs
from ..graph.operation_derivatives import NO_RULE
from .directions import Probes
from .verdict import Row

COMPLEX_STEP_ROUNDINGS = 1e3
"""Roundings by which a complex step may differ from reverse mode."""


class ThoroughRows(NamedTuple):
    """The rows with the further evidence.

    Attributes:
        rows: The rows of the check.
        dot_product: The relative difference of the dot-product test; None if it cannot be made.
        hints: Remarks on the function.
    """

    rows: list[Row]
    dot_product: float | None = None
    hints: tuple[str, ...] = ()


def more_evidence(inputs: Inputs, gradient: list[np.ndarray], probes: Probes, rows: list[Row]) -> ThoroughRows:
    """The rows of a check with complex steps and the other number format, and the dot-product test."""
    weights = [jnp.asarray(weight) for weight in probes.weights]
    scale = [float(np.sum(np.abs(g * w))) for g, w in zip(gradient, probes.weights, strict=True)]
    dot_product, hints = _dot_product(inputs, gradient, weights, sum(scale))
    gaps, remark = _complex_steps(inputs, gradient, weights, scale)
    other_format, losses = _other_format(inputs, gradient)
    hints += [remark]
    hints += [f"{other_format}: gradients differ from it by at most {max(losses):.1e}"] if losses else [other_format]
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in inputs.leaves)
    allowed = max(1e-10, COMPLEX_STEP_ROUNDINGS * eps)
    judged = []
    for number, row in enumerate(rows):
        gap, loss = gaps[number] if gaps else None, losses[number] if losses else None
        row = replace(row, imaginary=gap, precision=loss)
        if gap is not None and not gap <= allowed and row.verdict in ("agrees", "inconclusive"):
            row = replace(row, verdict="disagrees", notes=(*row.notes, f"a complex step differs by {gap:.1e}"))
        judged.append(row)
    return ThoroughRows(judged, dot_product, tuple(hints))


def _dot_product(inputs: Inputs, gradient, weights, scale: float) -> tuple[float | None, list[str]]:
    """The relative difference of gradient . direction and the tangent along the direction, over all parameters."""
    try:
        tangent = float(jax.jit(lambda x, d: jax.jvp(inputs.call, (x,), (d,))[1])(inputs.leaves, weights))
    except NO_RULE:
        return None, ["no dot-product test: forward mode is not available"]
    product = float(sum(np.sum(g * np.asarray(w, np.float64)) for g, w in zip(gradient, weights, strict=True)))
    gap = abs(tangent - product) / scale if scale else abs(tangent)
    return gap, [f"dot-product test: reverse and forward mode differ by {gap:.1e}"]


def _complex_steps(inputs: Inputs, gradient, weights, scale: Sequence[float]) -> tuple[list[float], str]:
    """The relative difference of a complex step along each parameter from reverse mode, if it exists; and a remark."""
    try:
        derivative = complex_derivatives(inputs.call, inputs.leaves)
    except InputError as error:
        return [], f"no complex steps: {error}"
    gaps = []
    for number, weight in enumerate(weights):
        direction = [weight if k == number else jnp.zeros_like(w) for k, w in enumerate(weights)]
        slope = float(derivative(direction)[0])
        product = float(np.sum(gradient[number] * np.asarray(weight, np.float64)))
        gap = abs(slope - product)
        gaps.append(gap / scale[number] if scale[number] else gap)
    return gaps, f"complex steps: reverse mode differs by at most {np.max(gaps):.1e}"


def _other_format(inputs: Inputs, gradient: list[np.ndarray]) -> tuple[str, list[float]]:
    """A phrase on the other number format, and how far the gradient in it is off, relative to each one's largest entry.

    The list is empty if the function does not work in that format; the phrase then says why.
    """
    is_single = any(leaf.dtype == jnp.float32 for leaf in inputs.leaves)
    other: Any = jnp.float64 if is_single else jnp.float32
    with jax.enable_x64(True):  # within this block alone, so that the caller's setting stays as it is
        leaves = [jnp.asarray(np.asarray(leaf), other) for leaf in inputs.leaves]
        try:
            other_gradient = [np.asarray(g, np.float64) for g in jax.jit(jax.grad(inputs.call))(leaves)]
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            return f"not available in {jnp.dtype(other).name}: {reason}", []
    losses = []
    for own, others in zip(gradient, other_gradient, strict=True):
        largest = np.max(np.abs(own), initial=0.0)
        gap = np.max(np.abs(own - others), initial=0.0)
        losses.append(float(gap / largest) if largest > 0 else float(gap))
    return f"with parameters in {jnp.dtype(other).name}", losses
