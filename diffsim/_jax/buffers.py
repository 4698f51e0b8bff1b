"""Arrays that a compiled program computes once, and output buffers of its loops.

XLA's CPU backend fuses an operation into each of its uses and computes it once for each. It computes what depends on no
argument at the start of the program, so that such buffers occupy memory throughout.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .barrier import barrier


def materialize(x: Any) -> Array:
    """Returns the same array, computed once and stored instead of being fused into each of its uses."""
    return barrier(x)[0]


def output_buffer(like: Float[Array, "..."], shape: tuple[int, ...] | None = None) -> Float[Array, "..."]:
    """Returns an output buffer of this shape, by default that of `like`, which a loop must overwrite completely.

    The buffer depends on one element of `like`. Plain zeros would depend on no argument, and a program computes such
    values at its start: the buffers of all loops would exist at the same time. The element is in the middle, since one
    at the edge may be a constant.
    """
    middle = tuple(size // 2 for size in like.shape)
    return jnp.broadcast_to(0.0 * like[middle], like.shape if shape is None else shape)


def zero_pad(x: Float[Array, "..."], before: int, after: int, axis: int) -> Float[Array, "..."]:
    """Returns the array with `before` and `after` zeros along an axis, by copying rows.

    `jnp.pad` would be fused into the next operation, which would then compare the index of every element with the
    edges.
    """
    if before == after == 0:
        return x
    zeros = lambda count: jnp.zeros([count if i == axis % x.ndim else n for i, n in enumerate(x.shape)], x.dtype)
    return materialize(jnp.concatenate([zeros(before), materialize(x), zeros(after)], axis=axis))
