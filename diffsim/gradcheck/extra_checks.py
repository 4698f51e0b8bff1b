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

TINY = 1e3
"""Roundings by which a complex step may differ from reverse mode."""


class Evidences(NamedTuple):
    """The rows with what was added, the result of the dot-product test, and remarks."""

    rows: list[Row]
    dot_product: float | None = None
    hints: tuple[str, ...] = ()


def more_evidence(inputs: Inputs, gradient: list[np.ndarray], probes: Probes, rows: list[Row]) -> Evidences:
    """Returns the rows of a check with complex steps and the other number format, and the dot-product test."""
    weights = [jnp.asarray(weight) for weight in probes.weights]
    scale = [float(np.sum(np.abs(g * w))) for g, w in zip(gradient, probes.weights, strict=True)]
    dot, hints = _dot_product(inputs, gradient, weights, sum(scale))
    gaps, reason = _imaginary(inputs, gradient, weights, scale)
    other, losses = _other_format(inputs, gradient)
    hints += [reason] if reason else []
    hints += [f"{other}: gradients differ from it by at most {max(losses):.1e}"] if losses else [other]
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in inputs.leaves)
    found = []
    for number, row in enumerate(rows):
        gap, loss = gaps[number] if gaps else None, losses[number] if losses else None
        row = replace(row, imaginary=gap, precision=loss)
        if gap is not None and not gap <= max(1e-10, TINY * eps) and row.verdict in ("agrees", "inconclusive"):
            row = replace(row, verdict="disagrees", notes=(*row.notes, f"a complex step differs by {gap:.1e}"))
        found.append(row)
    return Evidences(found, dot, tuple(hints))


def _dot_product(inputs: Inputs, gradient, weights, scale: float) -> tuple[float | None, list[str]]:
    """The relative difference of gradient . direction and the tangent along the direction, over all parameters."""
    try:
        tangent = float(jax.jit(lambda x, d: jax.jvp(inputs.call, (x,), (d,))[1])(inputs.leaves, weights))
    except NO_RULE:
        return None, ["no dot-product test: forward mode is not available"]
    product = float(sum(np.sum(g * np.asarray(w, np.float64)) for g, w in zip(gradient, weights, strict=True)))
    gap = abs(tangent - product) / scale if scale else abs(tangent)
    return gap, [f"dot-product test: reverse and forward mode differ by {gap:.1e}"]


def _imaginary(inputs: Inputs, gradient, weights, scale: Sequence[float]) -> tuple[list[float], str]:
    """How far a complex step along each parameter is from reverse mode, relative; or none, and why."""
    try:
        derivative = complex_derivatives(inputs.call, inputs.leaves)
    except InputError as error:
        return [], f"no complex steps: {error}"
    gaps = []
    for number, weight in enumerate(weights):
        along = [weight if k == number else jnp.zeros_like(w) for k, w in enumerate(weights)]
        slope = float(derivative(along)[0])
        product = float(np.sum(gradient[number] * np.asarray(weight, np.float64)))
        gap = abs(slope - product)
        gaps.append(gap / scale[number] if scale[number] else gap)
    return gaps, f"complex steps: reverse mode differs by at most {np.max(gaps):.1e}"


def _other_format(inputs: Inputs, gradient: list[np.ndarray]) -> tuple[str, list[float]]:
    """The other number format, and how far its gradient is per parameter, relative to the parameter's largest."""
    coarse = any(leaf.dtype == jnp.float32 for leaf in inputs.leaves)
    other: Any = jnp.float64 if coarse else jnp.float32
    with jax.enable_x64(True):  # for these lines only: the caller's setting stays as it is
        leaves = [jnp.asarray(np.asarray(leaf), other) for leaf in inputs.leaves]
        try:
            found = [np.asarray(g, np.float64) for g in jax.jit(jax.grad(inputs.call))(leaves)]
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            return f"not available in {jnp.dtype(other).name}: {reason}", []
    losses = []
    for mine, theirs in zip(gradient, found, strict=True):
        largest = np.max(np.abs(mine), initial=0.0)
        gap = np.max(np.abs(mine - theirs), initial=0.0)
        losses.append(float(gap / largest) if largest > 0 else float(gap))
    return f"with parameters in {jnp.dtype(other).name}", losses
