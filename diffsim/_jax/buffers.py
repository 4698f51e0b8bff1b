"""Arrays that a compiled program computes once, and arrays for its loops to write into.

XLA's CPU backend fuses an operation into each of its uses and computes it as many times; it sets memory aside for the
whole run of what depends on no argument.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .barrier import barrier


def materialize(x: Any) -> Array:
    """Returns the same array, computed once and stored: a fusion would compute it again for every use."""
    return barrier(x)[0]


def output_buffer(like: Float[Array, "..."], shape: tuple[int, ...] | None = None) -> Float[Array, "..."]:
    """Returns an array of this shape, by default that of `like`, for a loop to write over all of it.

    It depends on one element of `like`. Zeros would depend on nothing, and a compiled program begins with what depends
    on nothing: the buffers of all loops would exist at once. The element is from the middle, since one at the edge may
    be a constant.
    """
    middle = tuple(size // 2 for size in like.shape)
    return jnp.broadcast_to(0.0 * like[middle], like.shape if shape is None else shape)


def zero_pad(x: Float[Array, "..."], before: int, after: int, axis: int) -> Float[Array, "..."]:
    """Returns the array with that many zeros before and after it along an axis, as a copy of whole rows.

    Fused into what follows, `jnp.pad` would compare the place of every element with the edges.
    """
    if before == after == 0:
        return x
    zeros = lambda count: jnp.zeros([count if i == axis % x.ndim else n for i, n in enumerate(x.shape)], x.dtype)
    return materialize(jnp.concatenate([zeros(before), materialize(x), zeros(after)], axis=axis))
