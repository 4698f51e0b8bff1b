"""Sums and means over windows, whose adjoints are such sums again."""

from functools import reduce
from math import isqrt
from operator import add

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..._jax.barrier import barrier
from ..values import check_floating


def held(x) -> Array:
    """The same array, computed once and kept: a fusion would compute it again for every use."""
    return barrier(x)[0]


def box(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h w"]:
    """The mean over a square of 2 radius + 1 pixels, less what lies beyond the edge; the local mean of a filter."""
    check_floating(image)
    counts = np.outer(*(counted(size, radius) for size in image.shape[1:]))
    edges = ((0, 0), (radius, radius), (radius, radius))
    return sums(held(jnp.pad(image, edges)), radius) / counts.astype(image.dtype)[None]


def sums(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h-2r w-2r"]:
    """The sums over the squares of `box` that lie within the picture: down, then across."""
    return _runs(held(_runs(image, 2 * radius + 1, 1)), 2 * radius + 1, 2)


def _runs(x, count: int, axis: int):
    """The sums of every `count` neighbours along an axis: first of short runs, then of these, then what is left."""
    short = isqrt(count)
    runs, size = count // short, x.shape[axis] - count + 1
    part = lambda y, at, n: lax.slice_in_dim(y, at, at + n, axis=axis)
    reach = size + short * (runs - 1)
    few = held(sum(part(x, i, reach) for i in range(short)))
    total = reduce(add, [part(few, i * short, size) for i in range(runs)])
    return reduce(add, [part(x, i, size) for i in range(short * runs, count)], total)


def counted(size: int, radius: int) -> np.ndarray:
    """How many of the 2 radius + 1 neighbours of each of `size` positions exist."""
    at = np.arange(size)
    return np.minimum(at + radius, size - 1) - np.maximum(at - radius, 0) + 1


def room(after: Float[Array, "..."], shape: tuple[int, ...] | None = None) -> Float[Array, "..."]:
    """An array of this shape, by default that of `after`, for a loop to write over; of no meaning before.

    It hangs on a number in the middle of `after`: one at the edge may be known. Zeros would hang on nothing, and a
    compiled program begins with what hangs on nothing: with room for every loop in it.
    """
    middle = tuple(size // 2 for size in after.shape)
    return jnp.broadcast_to(0.0 * after[middle], after.shape if shape is None else shape)


def fill(x: Float[Array, "..."], before: int, after: int, axis: int) -> Float[Array, "..."]:
    """The array with that many zeros before and after it along an axis."""
    if before == after == 0:
        return x
    zeros = lambda count: jnp.zeros([count if i == axis % x.ndim else n for i, n in enumerate(x.shape)], x.dtype)
    # A copy of whole rows; as a part of what follows, every number would be asked whether it is within.
    parts = [zeros(before), held(x), zeros(after)]
    return held(jnp.concatenate(parts, axis=axis))
