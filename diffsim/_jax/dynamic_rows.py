"""Reading and writing rows of an array, which remain slices under `vmap` if all members share the index.

JAX's dynamic slices become gathers and scatters under `vmap`, which are slower and cannot be compiled whole.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array

from .._types import Count
from .new_primitive import new_primitive


def row(rows: Array, place: Count) -> Array:
    """Returns one row. Forward mode and `vmap` are supported, reverse mode is not."""
    return _row.bind(rows, place, axis=0)


def put(rows: Array, place: Count, value: Array) -> Array:
    """Returns the rows with one replaced by `value`. Forward mode and `vmap` are supported, reverse mode is not."""
    return _put.bind(rows, place, jnp.asarray(value, rows.dtype), axis=0)


# lax.dynamic_index_in_dim and similar functions would be separate calls.
def _get(rows, place, *, axis):
    sizes = [1 if i == axis else size for i, size in enumerate(rows.shape)]
    return lax.squeeze(lax.dynamic_slice(rows, _corner(rows, place, axis), sizes), [axis])


def _update(rows, place, value, *, axis):
    return lax.dynamic_update_slice(rows, lax.expand_dims(value, [axis]), _corner(rows, place, axis))


def _corner(rows, place, axis) -> list:
    return [place if i == axis else jnp.zeros_like(place) for i in range(rows.ndim)]


def _batched_row(args, axes, *, axis):
    rows, place = args
    if axes[1] is not None:
        return jax.vmap(lambda rows, place: _get(rows, place, axis=axis), axes)(rows, place), 0
    return _row.bind(jnp.moveaxis(rows, axes[0], 0), place, axis=axis + 1), 0


def _batched_put(args, axes, *, axis):
    rows, place, value = args
    if axes[1] is not None:
        return jax.vmap(lambda *args: _update(*args, axis=axis), axes)(*args), 0
    size = next(x.shape[a] for x, a in zip(args, axes, strict=True) if a is not None)
    front = lambda x, a: jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
    return _put.bind(front(rows, axes[0]), place, front(value, axes[2]), axis=axis + 1), 0


def _row_jvp(primals, tangents, *, axis):
    out, moving = _row.bind(*primals, axis=axis), tangents[0]
    if type(moving) is ad.Zero:
        return out, jnp.zeros_like(out)
    return out, _row.bind(moving, primals[1], axis=axis)


def _put_jvp(primals, tangents, *, axis):
    out = _put.bind(*primals, axis=axis)
    rows, _, value = tangents
    if type(rows) is ad.Zero and type(value) is ad.Zero:
        return out, jnp.zeros_like(out)
    return out, _put.bind(ad.instantiate_zeros(rows), primals[1], ad.instantiate_zeros(value), axis=axis)


_jitted = functools.partial(jax.jit, static_argnames="axis")
_row = new_primitive("read_row", _get, jvp=_row_jvp, batch=_batched_row, eager=_jitted(_get))
_put = new_primitive("write_row", _update, jvp=_put_jvp, batch=_batched_put, eager=_jitted(_update))
