"""A curve of straight segments on every pixel, with its adjoint by hand.

No table is looked up: a pixel's value is the sum over the segments of the rise times the part of the value within the
segment. The cotangent of the rises is summed separately for each place of a strip, in vector registers; differentiated
by rule it would take one pass over the picture for each segment.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..._jax.buffers import materialize
from ..._jax.custom_adjoint import with_adjoint
from ..values import check_floating
from .tiling import for_each_tile, not_repeated

STRIP, LINES = 2**12, 8  # numbers of a strip; lines of it whose sums are written out


def _within(x, segment: int, count: int):
    """How much of x lies within a segment; the outermost ones are unbounded."""
    if segment == 0:
        return jnp.minimum(x, 1.0)
    if segment == count - 1:
        return jnp.maximum(x - segment, 0.0)
    return jnp.clip(x - segment, 0.0, 1.0)


def _curve(steps: Float[Array, " n"], picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """The curve through (i/n, steps[0] + ... + steps[i-1]) at every value of the picture, straight beyond 0 and 1."""
    count = steps.shape[0]
    x = count * picture
    total = steps[0] * _within(x, 0, count)
    for i in range(1, count):
        total = total + steps[i] * _within(x, i, count)
    return total


def _adjoint(steps, picture, cotangent):
    count = steps.shape[0]
    x = count * picture
    # k within segment k, and half way between two at a knot, where the slope is the mean of both, as of differences.
    place = 0.5 * (jnp.floor(x) + jnp.ceil(x) - 1.0)
    changes = jnp.diff(steps)
    slope = steps[0] - jnp.sum(changes * np.arange(count - 1))
    for i in range(count - 1):
        slope = slope + changes[i] * _clipped(place, i, i + 1)
    return _to_steps(count, picture, cotangent), count * slope * cotangent


def _clipped(x, low: float, high: float):
    """The same as `jnp.clip`, by comparisons: it is not differentiated, and takes two instructions less."""
    x = jnp.where(x < low, low, x)
    return jnp.where(x > high, high, x)


def _to_steps(count: int, picture, cotangent):
    """The cotangent of the steps: the sums over the picture of the cotangent times the part within each segment."""
    values, cotangents = picture.ravel(), cotangent.ravel()
    size = min(STRIP, values.size)
    lines = LINES if size % LINES == 0 else 1
    segments = np.arange(count, dtype=picture.dtype)[:, None]

    def add_strip(sums, unmoved, start):
        x, c = (lax.dynamic_slice_in_dim(a, start, size) for a in (values, cotangents))
        c = jnp.where(not_repeated(unmoved, start, size), c, 0.0)
        pairs = list(zip(*(materialize(a).reshape(lines, 1, -1) for a in (count * x, c)), strict=True))
        within = sum(jnp.clip(x - segments, 0.0, 1.0) * c for x, c in pairs)
        below = sum(jnp.minimum(x, 0.0) * c for x, c in pairs)
        above = sum(jnp.maximum(x - count, 0.0) * c for x, c in pairs)
        return [total + new for total, new in zip(sums, (within, below, above), strict=True)]

    zeros = [jnp.zeros((rows, size // lines), picture.dtype) for rows in (count, 1, 1)]
    within, below, above = (x.sum(1) for x in for_each_tile(values.size, size, add_strip, zeros))
    return jnp.concatenate([within[:1] + below, within[1:-1], within[-1:] + above])


curve = with_adjoint(_curve, _adjoint, check_floating)
"""`curve(steps, picture)`: every value x as the curve through (i/n, steps[0] + ... + steps[i-1]) maps it."""
