"""The record of a solve: which steps were attempted, and from which states."""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Count, Scalar, Vector

Memory = Literal["auto", "states", "two_levels", "jacobians"]
_CACHED = 16 * 2**20  # bytes: states beyond that leave the caches, and are kept at some steps only
_FEW = 8  # numbers of a state up to which all of a step's Jacobian costs little more than one product with it


class Record(NamedTuple):
    """What was attempted, one row each: time and size of the step, zero if it was refused.

    `y` holds the state before every `stride`-th attempt, where `stride` is rows of `h` over rows of `y`.
    """

    t: Float[Array, " rows"]
    h: Float[Array, " rows"]
    y: Float[Array, "kept n"]
    count: Count

    @property
    def stride(self) -> int:
        """How many attempts there are to each state kept."""
        return self.h.shape[0] // self.y.shape[0]


class Plan(NamedTuple):
    """How the derivative of a record is taken: attempts to each state kept, and whether by Jacobians."""

    stride: int
    jacobians: bool


def plan(memory: Memory, like: Vector, rows: int, *, keep_path: bool, whole: bool) -> Plan:
    """The plan for so many attempts of states `like`, by the name of a policy, or chosen from bytes and steps.

    Raises InputError for a name that is none, or a policy that keeps too few states for a path.
    """
    if memory not in get_args(Memory):
        raise InputError(f"memory={memory!r}: use one of {', '.join(get_args(Memory))}")
    if memory == "two_levels" and keep_path:
        raise InputError('memory="two_levels" keeps too few states for those at times in between: use "states"')
    small = rows * like.size * like.dtype.itemsize <= _CACHED
    if memory == "two_levels" or (memory == "auto" and not small and not keep_path):
        return Plan(math.isqrt(rows), False)
    return Plan(1, memory == "jacobians" or (memory == "auto" and not whole and like.size <= _FEW))


def blank(like: Vector, rows: int, stride: int = 1) -> Record:
    """An empty record for attempts of states `like`."""
    kept = -(-rows // stride)
    zeros = jnp.zeros(kept * stride, like.dtype)
    return Record(zeros, zeros, jnp.zeros((kept, like.size), like.dtype), jnp.array(0))


def write(record: Record, t: Scalar, h: Scalar, y: Vector) -> Record:
    """The record with one more attempt, of size `h` (zero: refused) from the state `y` at `t`."""
    i = record.count
    return Record(put(record.t, i, 1, t), put(record.h, i, 1, h), put(record.y, i, record.stride, y), i + 1)


def put(rows: Array, attempt: Count, stride: int, value: Array) -> Array:
    """The rows with `value` in that of an attempt, if it is one of those that are kept."""
    place = attempt // stride
    if stride > 1:
        value = jnp.where(attempt % stride == 0, value, row(rows, place))
    return _put(0)(rows, place, value)


def row(rows: Array, place: Count) -> Array:
    """One row. Under `vmap`, for a place that all members share, this stays a slice, where JAX's own would gather."""
    return _row(0)(rows, place)


def _row(axis: int):
    get = lambda rows, place: lax.dynamic_index_in_dim(rows, place, axis, keepdims=False)
    one = jax.custom_batching.custom_vmap(get)

    @one.def_vmap
    def _(size, batched, rows, place):
        if batched[1]:
            return jax.vmap(get, in_axes=[0 if b else None for b in batched])(rows, place), True
        return _row(axis + 1)(rows, place), True

    return one


def _put(axis: int):
    update = lambda rows, place, value: lax.dynamic_update_index_in_dim(rows, value, place, axis)
    one = jax.custom_batching.custom_vmap(update)

    @one.def_vmap
    def _(size, batched, rows, place, value):
        if batched[1]:
            return jax.vmap(update, in_axes=[0 if b else None for b in batched])(rows, place, value), True
        rows, value = (
            x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in ((rows, batched[0]), (value, batched[2]))
        )
        return _put(axis + 1)(rows, place, value), True

    return one
