"""A curve of straight segments on every pixel, with its adjoint by hand.

No table is looked up: a pixel's value is the sum over segments of what of it lies within each. The adjoint in the
segments' rises is summed by column, row after row, which a processor does in wide registers; differentiated by rule it
would be one pass over the picture for each segment.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .adjoint import with_adjoint

ROWS = 4  # of a strip whose sums are written out


def _within(x, segment: int, count: int):
    """How much of x lies within a segment; the outermost ones go on for ever."""
    if segment == 0:
        return jnp.minimum(x, 1.0)
    if segment == count - 1:
        return jnp.maximum(x - segment, 0.0)
    return jnp.clip(x - segment, 0.0, 1.0)


def _curve(steps: Float[Array, " n"], picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """Every value x as the curve through (i/n, steps[0] + ... + steps[i-1]) has it, straight beyond 0 and 1."""
    count = steps.shape[0]
    x = count * picture
    total = steps[0] * _within(x, 0, count)
    for i in range(1, count):
        total = total + steps[i] * _within(x, i, count)
    return total


def _adjoint(steps, picture, cotangent):
    count = steps.shape[0]
    x = count * picture
    slope = jnp.broadcast_to(steps[0], x.shape)
    for i in range(1, count):
        # At a knot, of both slopes the mean, as differences have it.
        slope = jnp.where(x > i, steps[i], jnp.where(x == i, 0.5 * (steps[i - 1] + steps[i]), slope))
    return _steps_bar(count, picture, cotangent), count * slope * cotangent


def _steps_bar(count: int, picture, cotangent):
    """The sums over the picture of the cotangent times what lies within each segment."""
    channels, height, width = picture.shape
    edges = [(0, 0), (0, -height % ROWS), (0, 0)]
    picture, cotangent = jnp.pad(picture, edges), jnp.pad(cotangent, edges)

    def add(sums, at):
        x, bar = (lax.dynamic_slice_in_dim(a, at, ROWS, axis=1) for a in (count * picture, cotangent))
        lines = [(x[c, row], bar[c, row]) for c in range(channels) for row in range(ROWS)]
        return sums + jnp.stack([sum(_within(a, i, count) * b for a, b in lines) for i in range(count)]), None

    start = jnp.zeros((count, width), picture.dtype)
    return lax.scan(add, start, jnp.arange(0, height, ROWS))[0].sum(axis=1)


curve = with_adjoint(_curve, _adjoint)
