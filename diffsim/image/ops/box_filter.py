"""Sums and means over windows, whose adjoints are sums over windows too."""

from functools import reduce
from math import isqrt
from operator import add

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..._jax.buffers import materialize
from ..values import check_floating


def box_filter(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h w"]:
    """Returns the mean over the pixels of the picture within a square of 2 radius + 1 pixels.

    Args:
        image: the picture.
        radius: of the square, in pixels.

    Raises:
        InputError: for a picture of whole numbers.

    Examples:
        >>> print(ds.image.box_filter(jnp.array([[[0.0, 3.0, 6.0, 3.0]]]), 1).round(6))  # fewer pixels at the edges
        [[[1.5 3.  4.  4.5]]]
    """
    check_floating(image)
    counts = np.outer(*(_neighbours(size, radius) for size in image.shape[1:]))
    edges = ((0, 0), (radius, radius), (radius, radius))
    return box_sums(materialize(jnp.pad(image, edges)), radius) / counts.astype(image.dtype)[None]


def box_sums(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h-2*{radius} w-2*{radius}"]:
    """Returns the sums over the squares of `box_filter` that lie within the picture: down, then across."""
    return _runs(materialize(_runs(image, 2 * radius + 1, 1)), 2 * radius + 1, 2)


def _runs(x, count: int, axis: int):
    """The sums of every `count` neighbours along an axis: of short runs, of these, and of the remaining ones."""
    short = isqrt(count)
    runs, size = count // short, x.shape[axis] - count + 1
    part = lambda y, at, n: lax.slice_in_dim(y, at, at + n, axis=axis)
    reach = size + short * (runs - 1)
    few = materialize(sum(part(x, i, reach) for i in range(short)))
    total = reduce(add, [part(few, i * short, size) for i in range(runs)])
    return reduce(add, [part(x, i, size) for i in range(short * runs, count)], total)


def _neighbours(size: int, radius: int) -> np.ndarray:
    """How many of the 2 radius + 1 neighbours of each of `size` positions exist."""
    at = np.arange(size)
    return np.minimum(at + radius, size - 1) - np.maximum(at - radius, 0) + 1
