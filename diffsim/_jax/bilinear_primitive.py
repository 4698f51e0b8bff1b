"""Bilinear functions of two arrays as primitives with given adjoints, for batches of either array or both.

JAX has no public way to replace the transpose of a function and keep its forward mode: `jax.custom_vjp` excludes `jvp`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad

from .new_primitive import new_primitive


def _batched(function, second: int, first, other):
    """`function` over the leading axes that its arguments have beyond 3 and `second`."""
    axes = (0 if first.ndim > 3 else None, 0 if other.ndim > second else None)
    return function(first, other) if axes == (None, None) else jax.vmap(function, axes)(first, other)


def _batch_rule(primitive, second: int, args, dims):
    """Moves a batch axis to the front, and merges it with an existing batch axis."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    args = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    inner = [x.ndim - rank - (d is not None) for x, rank, d in zip(args, (3, second), dims, strict=True)]
    if not any(inner):
        return primitive.bind(*args), 0
    count = next(x.shape[0 if d is None else 1] for x, has, d in zip(args, inner, dims, strict=True) if has)
    flat = []
    for x, has, d, rank in zip(args, inner, dims, (3, second), strict=True):
        x = x if d is not None else x[None]
        x = x if has else x[:, None]
        flat.append(jnp.broadcast_to(x, (size, count, *x.shape[-rank:])).reshape(-1, *x.shape[-rank:]))
    result = primitive.bind(*flat)
    return result.reshape(size, count, *result.shape[1:]), 0


def sum_batch(value, like):
    """Returns the cotangent of `like`, summed over the batch axis if `like` has none."""
    return value if value.ndim == like.aval.ndim else value.sum(0)


def bilinear(name: str, function, second: int, shape, to_first, to_second) -> Primitive:
    """Returns the primitive of `function(first, other)`, linear in each of its arguments.

    Args:
        name: The name of the primitive.
        function: A function of an array of rank 3 and one of rank `second`.
        second: The rank of the second array.
        shape: `shape(first, other)`, the shape of the result from those of the arguments.
        to_first: `to_first(cotangent, first, other)`, the cotangent of the first argument; it may bind primitives.
        to_second: The same for the second argument.
    """
    batched = partial(_batched, function, second)

    def abstract(first, other):
        batch = first.shape[:-3] or other.shape[:-second]
        return ShapedArray((*batch, *shape(first.shape[-3:], other.shape[-second:])), jnp.result_type(first, other))

    batch = lambda args, axes: _batch_rule(primitive, second, args, axes)
    primitive = new_primitive(name, batched, batch=batch, abstract=abstract, eager=jax.jit(batched))
    ad.defbilinear(primitive, to_first, to_second)
    return primitive
