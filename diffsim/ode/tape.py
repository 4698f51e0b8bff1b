"""The record of a solve: which steps were attempted, and from which states."""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._jax.dynamic_rows import put
from .._types import Count, Scalar, Vector
from .dirk import Slopes
from .jump_times import NONE

Memory = Literal["auto", "states", "two_levels", "jacobians"]
MEMORIES: tuple[str, ...] = get_args(Memory)
_MODULUS, _REMAINDER = 32, 12  # of the rows of a record: with a power of two its arrays would meet in a cache


class Record(NamedTuple):
    """What was attempted, one row each: time and size of the step, zero if it was refused.

    `y` has the state before every `stride`-th attempt; where that is not each, it has one row more than it needs. Where
    it is each, `slopes` may have those of an implicit method's stages, so that they need not be solved for again.
    `jump` is the index of the jump of the field behind which an attempt begins, `jump_times.NONE` for none.
    """

    t: Float[Array, " rows"]
    h: Float[Array, " rows"]
    y: Float[Array, "recorded n"]
    attempts: Count
    slopes: Float[Array, "rows stages n"] | None = None
    jump: Int[Array, " rows"] | None = None

    @property
    def stride(self) -> int:
        """How many attempts there are to each recorded state."""
        rows, recorded = self.h.shape[0], self.y.shape[0]
        return 1 if recorded == rows else rows // (recorded - 1)


def blank(like: Vector, rows: int, stride: int = 1, stages: int = 0, jumps: bool = False) -> Record:
    """An empty record for attempts of states `like`, with the slopes of so many stages each."""
    if stride == 1:
        rows += -(rows - _REMAINDER) % _MODULUS
    recorded = -(-rows // stride)
    zeros = jnp.zeros(recorded * stride, like.dtype)
    slopes = jnp.zeros((rows, stages, like.size), like.dtype) if stages and stride == 1 else None
    jump = jnp.full(recorded * stride, NONE) if jumps else None
    return Record(zeros, zeros, jnp.zeros((recorded + (stride > 1), like.size), like.dtype), jnp.array(0), slopes, jump)


def write(record: Record, t: Scalar, h: Scalar, y: Vector, slopes: Slopes | None, jump: Count | None = None) -> Record:
    """The record with one more attempt, of size `h` (zero: refused) from the state `y` at `t`, behind a `jump`."""
    i = record.attempts
    ys = put_some(record.y, i, record.stride, y)
    all_slopes = record.slopes if slopes is None or record.slopes is None else put(record.slopes, i, slopes)
    jumps = record.jump if record.jump is None or jump is None else put(record.jump, i, jump)
    return Record(put(record.t, i, t), put(record.h, i, h), ys, i + 1, all_slopes, jumps)


def put_some(rows: Array, attempt: Count, stride: int, value: Array) -> Array:
    """Returns the rows with the `value` of an attempt in its row, if its state is one of those that are recorded.

    Otherwise it is written to the row of the next recorded state, which overwrites it: cheaper than a condition.
    """
    return put(rows, -(-attempt // stride), value)
