"""Two linear maps of one array that are each other's transpose, as primitives.

JAX transposes a linear map operation by operation. Each map of such a pair is transposed by calling the other.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad
from jaxtyping import Array

from .new_primitive import new_primitive

Map = Callable[..., Array]
Shape = Callable[..., tuple[int, ...]]


def linear_pair(forward: Map, forward_shape: Shape, transpose: Map, transpose_shape: Shape) -> tuple[Map, Map]:
    """Returns both maps, each with the other as its transpose; JAX does not differentiate their operations.

    Args:
        forward: `forward(array, **options)`, linear in the array, for any number of leading axes: those of `jax.vmap`.
            Its keyword-only arguments are the options, hashable and the same for both maps.
        forward_shape: `forward_shape(shape, **options)`, the shape of the result from that of the array.
        transpose: The transpose of `forward`, with the same options.
        transpose_shape: The same as `forward_shape` for `transpose`.
    """
    first, second = _primitive(forward, forward_shape), _primitive(transpose, transpose_shape)
    ad.deflinear2(first, lambda cotangent, array, **options: [second.bind(cotangent, **options)])
    ad.deflinear2(second, lambda cotangent, array, **options: [first.bind(cotangent, **options)])
    return first.bind, second.bind


def _primitive(function: Map, shape: Shape) -> Primitive:
    def abstract(array, **options):
        return ShapedArray(shape(array.shape, **options), array.dtype)

    def batch(arrays: Any, axes: Any, **options):
        return primitive.bind(jnp.moveaxis(arrays[0], axes[0], 0), **options), 0

    arguments = inspect.signature(function).parameters.values()
    options = [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]
    eager = jax.jit(function, static_argnames=options)
    primitive = new_primitive(function.__name__, function, batch=batch, abstract=abstract, eager=eager)
    return primitive
