"""Sums and means over windows, whose adjoints are such sums again."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

held = lax.optimization_barrier  # what is computed once and kept: a fusion would compute it again for every use


def box(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h w"]:
    """The mean over a square of 2 radius + 1 pixels, less what lies beyond the edge; the local mean of a filter."""
    counts = np.outer(*(counted(size, radius) for size in image.shape[1:]))
    return sums(image, radius) / counts.astype(image.dtype)[None]


def sums(image: Float[Array, "*c h w"], radius: int) -> Float[Array, "*c h w"]:
    """The sums over the squares of `box`: down, then across."""
    for axis in (image.ndim - 2, image.ndim - 1):
        sizes = [2 * radius + 1 if a == axis else 1 for a in range(image.ndim)]
        filled = fill(image, radius, radius, axis)  # edges of the window itself would be asked for at every pixel
        image = held(lax.reduce_window(filled, 0.0, lax.add, sizes, [1] * image.ndim, "VALID"))
    return image


def counted(size: int, radius: int) -> np.ndarray:
    """How many of the 2 radius + 1 neighbours of each of `size` positions exist."""
    at = np.arange(size)
    return np.minimum(at + radius, size - 1) - np.maximum(at - radius, 0) + 1


def fill(x: Float[Array, "..."], before: int, after: int, axis: int) -> Float[Array, "..."]:
    """The array with that many zeros before and after it along an axis."""
    if before == after == 0:
        return x
    zeros = lambda count: jnp.zeros([count if i == axis % x.ndim else n for i, n in enumerate(x.shape)], x.dtype)
    # A copy of whole rows; as a part of what follows, every number would be asked whether it is within.
    parts = [zeros(before), held(x), zeros(after)]
    return held(jnp.concatenate(parts, axis=axis))
