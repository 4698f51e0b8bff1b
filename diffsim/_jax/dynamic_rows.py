"""Reading and writing rows of a table, which `vmap` leaves a slice where all members share the place.

JAX's own slices become gathers and scatters under `vmap`, which cost more and cannot be compiled whole.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from .._types import Count
from .linear_map import abstract


def row(rows: Array, place: Count) -> Array:
    """One row. Forward mode and `vmap` go through it, reverse mode does not."""
    return _row.bind(rows, place, axis=0)


def put(rows: Array, place: Count, value: Array) -> Array:
    """The rows with `value` at one place. Forward mode and `vmap` go through it, reverse mode does not."""
    return _put.bind(rows, place, jnp.asarray(value, rows.dtype), axis=0)


# Not lax.dynamic_index_in_dim and its like, which are calls of their own.
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


_row, _put = Primitive("read_row"), Primitive("write_row")
for _primitive, _function, _batch, _jvp in (
    (_row, _get, _batched_row, _row_jvp),
    (_put, _update, _batched_put, _put_jvp),
):
    _primitive.def_impl(jax.jit(_function, static_argnames="axis"))
    mlir.register_lowering(_primitive, mlir.lower_fun(_function, multiple_results=False))
    batching.primitive_batchers[_primitive] = _batch
    ad.primitive_jvps[_primitive] = _jvp
    _primitive.def_abstract_eval(abstract(_function))
