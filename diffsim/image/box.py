"""Sums and means over windows, whose adjoints are such sums again."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

held = lax.optimization_barrier  # what is computed once and kept: a fusion would compute it again for every use


def box(image: Float[Array, "c h w"], radius: int) -> Float[Array, "c h w"]:
    """The mean over a square of 2 radius + 1 pixels, less what lies beyond the edge; the local mean of a filter."""
    counts = np.outer(*(counted(size, radius) for size in image.shape[1:]))
    sums = image
    for axis in (-2, -1):
        sums = window(fill(sums, radius, radius, axis), 2 * radius + 1, axis)
    return sums / counts.astype(image.dtype)[None]


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


def window(x: Float[Array, "..."], size: int, axis: int) -> Float[Array, "..."]:
    """The sums of `size` neighbours along an axis (counted from the last, -1) where all of them exist."""
    return _window_p.bind(x, size=size, axis=axis)


def _window(x, *, size: int, axis: int):
    """Running sums would have fewer additions, and lose digits."""
    at = x.ndim + axis
    count = x.shape[at] - size + 1
    x = held(x)
    return held(sum(lax.slice_in_dim(x, i, i + count, axis=at) for i in range(size)))


def _shape(x, *, size: int, axis: int) -> ShapedArray:
    shape = list(x.shape)
    shape[axis] -= size - 1
    return ShapedArray(tuple(shape), x.dtype)


def _transpose(cotangent, x, *, size: int, axis: int):
    return [window(fill(cotangent, size - 1, size - 1, axis), size, axis)]


_window_p = Primitive("window")
_window_p.def_impl(jax.jit(_window, static_argnames=("size", "axis")))
_window_p.def_abstract_eval(_shape)
mlir.register_lowering(_window_p, mlir.lower_fun(_window, multiple_results=False))
ad.deflinear2(_window_p, _transpose)
batching.primitive_batchers[_window_p] = lambda args, axes, **where: (
    _window_p.bind(jnp.moveaxis(args[0], axes[0], 0), **where),
    0,
)
