"""The record of a solve: which steps were attempted, and from which states."""

import math
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._errors import InputError
from .._jax.dynamic_rows import put
from .._types import Count, Scalar, Vector
from .dirk import Slopes

Memory = Literal["auto", "states", "two_levels", "jacobians"]
_CACHED = 16 * 2**20  # bytes: states beyond that leave the caches, and are kept at some steps only
_APART, _BESIDE = 32, 12  # rows of a record, modulo the first: with a power of two its arrays would meet in a cache
_FEW = 8  # numbers of a state up to which all of a step's Jacobian costs little more than one product with it


class Record(NamedTuple):
    """What was attempted, one row each: time and size of the step, zero if it was refused.

    `y` holds the state before every `stride`-th attempt; where that is not each, it has one row more than it needs.
    Where it is each, `slopes` may hold those of the stages of an implicit method, so that they need not be found again.
    `jump` is the index of the jump of the field behind which an attempt begins, -1 for none.
    """

    t: Float[Array, " rows"]
    h: Float[Array, " rows"]
    y: Float[Array, "kept n"]
    count: Count
    slopes: Float[Array, "rows stages n"] | None = None
    jump: Int[Array, " rows"] | None = None

    @property
    def stride(self) -> int:
        """How many attempts there are to each state kept."""
        rows, kept = self.h.shape[0], self.y.shape[0]
        return 1 if kept == rows else rows // (kept - 1)


class Plan(NamedTuple):
    """How the derivative of a record is taken: attempts to each state kept, and whether by Jacobians."""

    stride: int
    jacobians: bool


def plan(memory: Memory, like: Vector, rows: int, stages: int, *, keep_path: bool, whole: bool) -> Plan:
    """The plan for so many attempts of states `like`, by the name of a policy, or chosen from bytes and steps.

    Of an implicit method the slopes of so many `stages` are kept beside each state.

    Raises InputError for a name that is none, or a policy that keeps too few states for a path.
    """
    if memory not in get_args(Memory):
        raise InputError(f"memory={memory!r}: use one of {', '.join(get_args(Memory))}")
    if memory == "two_levels" and keep_path:
        raise InputError('memory="two_levels" keeps too few states for those at times in between: use "states"')
    small = rows * (1 + stages) * like.size * like.dtype.itemsize <= _CACHED
    if memory == "two_levels" or (memory == "auto" and not small and not keep_path):
        return Plan(math.isqrt(rows), False)
    return Plan(1, memory == "jacobians" or (memory == "auto" and not (whole or stages) and like.size <= _FEW))


def blank(like: Vector, rows: int, stride: int = 1, stages: int = 0, jumps: bool = False) -> Record:
    """An empty record for attempts of states `like`, with the slopes of so many stages each."""
    if stride == 1:
        rows += -(rows - _BESIDE) % _APART
    kept = -(-rows // stride)
    zeros = jnp.zeros(kept * stride, like.dtype)
    slopes = jnp.zeros((rows, stages, like.size), like.dtype) if stages and stride == 1 else None
    jump = jnp.full(kept * stride, -1) if jumps else None
    return Record(zeros, zeros, jnp.zeros((kept + (stride > 1), like.size), like.dtype), jnp.array(0), slopes, jump)


def write(record: Record, t: Scalar, h: Scalar, y: Vector, slopes: Slopes | None, jump: Count | None = None) -> Record:
    """The record with one more attempt, of size `h` (zero: refused) from the state `y` at `t`, behind a `jump`."""
    i = record.count
    ys = put_some(record.y, i, record.stride, y)
    kept = record.slopes if slopes is None or record.slopes is None else put(record.slopes, i, slopes)
    jumps = record.jump if record.jump is None or jump is None else put(record.jump, i, jump)
    return Record(put(record.t, i, t), put(record.h, i, h), ys, i + 1, kept, jumps)


def put_some(rows: Array, attempt: Count, stride: int, value: Array) -> Array:
    """The rows with `value` in that of an attempt, to stay if it is one of those that are kept.

    The others are written to the row of the next that is, which writes over them: cheaper than to ask.
    """
    return put(rows, -(-attempt // stride), value)
