"""The record of a solve's steps, and the derivative of its end: that of a fixed replay of the steps taken."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from .._types import Count, Scalar, Vector
from .linear import linear_map
from .step import Stepper
from .whole import compile_whole_alone

_CACHED = 16 * 2**20  # bytes: states beyond that leave the caches, and are kept at some steps only


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


def stride(like: Vector, rows: int) -> int:
    """How many attempts to each state kept: one, or for long records the square root of their number."""
    small = rows * like.size * like.dtype.itemsize <= _CACHED
    return 1 if small else math.isqrt(rows)


def blank(like: Vector, rows: int, stride: int = 1) -> Record:
    """An empty record for attempts of states `like`."""
    kept = -(-rows // stride)
    zeros = jnp.zeros(kept * stride, like.dtype)
    return Record(zeros, zeros, jnp.zeros((kept, like.size), like.dtype), jnp.array(0))


def write(record: Record, t: Scalar, h: Scalar, y: Vector) -> Record:
    """The record with one more attempt, of size `h` (zero: refused) from the state `y` at `t`."""
    row = record.count
    return Record(put(record.t, row, 1, t), put(record.h, row, 1, h), put(record.y, row, record.stride, y), row + 1)


def put(rows: Array, attempt: Count, stride: int, value: Array) -> Array:
    """The rows with `value` in that of an attempt, if it is one of those that are kept."""
    place = attempt // stride
    if stride > 1:
        value = jnp.where(attempt % stride == 0, value, lax.dynamic_index_in_dim(rows, place, keepdims=False))
    return lax.dynamic_update_index_in_dim(rows, value, place, 0)


class End(NamedTuple):
    """The last time and state of a solve, and (or None) those before the attempts recorded."""

    t: Scalar
    y: Vector
    path_t: Float[Array, " rows"] | None = None
    path_y: Float[Array, "kept n"] | None = None


def replay(
    stepper: Stepper, t0: Scalar, y0: Vector, record: Record, t: Scalar, y: Vector, *, keep_path: bool, whole: bool
) -> End:
    """The end (t, y) of the recorded steps from (t0, y0), with derivatives in t0, y0 and the field's arrays.

    The values are those recorded, at no further cost. The derivative is that of the discrete solution with the
    sizes of its accepted steps held fixed: one loop over them forward for tangents, or backward for cotangents, in
    which a step is taken again from its recorded state. Refused steps are never differentiated.
    """
    moving, rest = eqx.partition((t0, y0, stepper), eqx.is_inexact_array)
    fixed, static = eqx.partition(rest, eqx.is_array)
    leaves, tree = jax.tree.flatten(moving)
    # One number for a whole batch, so that its members are stepped together.
    record = record._replace(count=eqxi.unvmap_max(record.count))
    held, held_tree = jax.tree.flatten((fixed, record))

    def known(keep_path):
        @jax.custom_jvp
        def identity(leaves, held, end):
            return end

        def rule(primals, tangents):
            leaves, held, end = primals
            live = [i for i, x in enumerate(tangents[0]) if not isinstance(x, SymbolicZero)]
            fixed, record = jax.tree.unflatten(held_tree, held)
            # For derivatives of derivatives the value and the recorded states have derivatives too.
            value = known(True)(leaves, held, End(end.t, end.y, record.t, record.y))
            held = jax.tree.leaves((fixed, record._replace(t=value.path_t, y=value.path_y)))

            def steps(residuals):
                fixed, record = jax.tree.unflatten(held_tree, residuals[len(leaves) :])
                restore = lambda leaves: eqx.combine(jax.tree.unflatten(tree, leaves), fixed, static)
                return _Steps(residuals[: len(leaves)], live, restore, record, keep_path)

            compiled = compile_whole_alone if whole else lambda function: function
            tangent = linear_map(
                compiled(lambda residuals, inputs: _tangents(steps(residuals), inputs)),
                compiled(lambda residuals, cotangents: _cotangents(steps(residuals), cotangents)),
                [*leaves, *held],
                [tangents[0][i] for i in live],
            )
            return value if keep_path else End(value.t, value.y), End(*tangent)

        identity.defjvp(rule, symbolic_zeros=True)
        return identity

    path = (record.t, record.y) if keep_path else ()
    return known(keep_path)(leaves, held, End(t, y, *path))


class _Steps(NamedTuple):
    """Recorded steps as a function of those of the `leaves` that are being differentiated, the `live` ones.

    The first two leaves are the initial time and state; `restore` gives those and the stepper back.
    """

    leaves: list
    live: list[int]
    restore: Callable
    record: Record
    keep_path: bool

    def step(self, t: Scalar, y: Vector, live: list, h: Scalar) -> tuple[Scalar, Vector]:
        """Time and state a step `h` after (t, y)."""
        leaves = list(self.leaves)
        for i, leaf in zip(self.live, live, strict=True):
            leaves[i] = leaf
        stepper: Stepper = self.restore(leaves)[2]
        end, _ = stepper.step(stepper.point(t, y), h)
        return end.t, end.y

    @property
    def values(self) -> list:
        """The leaves that are live."""
        return [self.leaves[i] for i in self.live]


def _tangents(steps: _Steps, inputs: list) -> list:
    """Tangents of the end, and of the path if it is kept, from those of the live leaves."""
    record, (t, y) = steps.record, steps.leaves[:2]
    given = dict(zip(steps.live, inputs, strict=True))
    start = given.get(0, jnp.zeros_like(t)), given.get(1, jnp.zeros_like(y))

    def take(point, h):
        along = lambda t, y, live: steps.step(t, y, live, h)
        return jax.jvp(along, (*point[0], steps.values), (*point[1], inputs))

    def body(i, carry):
        point, path = carry
        if path is not None:
            path = put(path[0], i, 1, point[1][0]), put(path[1], i, record.stride, point[1][1])
        h = record.h[i]
        return lax.cond(h != 0, take, lambda point, h: point, point, h), path

    path = (jnp.zeros_like(record.t), jnp.zeros_like(record.y)) if steps.keep_path else None
    (_, end), path = lax.fori_loop(0, record.count, body, (((t, y), start), path))
    return [*end, *(path or ())]


def _cotangents(steps: _Steps, cotangents: list) -> list:
    """Cotangents of the live leaves from those of the end, and of the path if it is kept."""
    record, stride = steps.record, steps.record.stride
    end, path = tuple(cotangents[:2]), cotangents[2:]

    def pull(carry, inputs):
        i, y = inputs
        (bar_t, bar_y), bars = carry
        along = lambda t, y, live: steps.step(t, y, live, record.h[i])
        _, transpose = jax.vjp(along, record.t[i], y, steps.values)
        bar_t, bar_y, more = transpose((bar_t, bar_y))
        return (bar_t, bar_y), jax.tree.map(jnp.add, bars, more)

    def back(i, y, carry):
        carry = lax.cond(record.h[i] != 0, pull, lambda carry, inputs: carry, carry, (i, y))
        if path:
            (bar_t, bar_y), bars = carry
            kept = jnp.where(i % stride == 0, path[1][i // stride], 0.0)
            carry = (bar_t + path[0][i], bar_y + kept), bars
        return carry

    carry = end, [jnp.zeros_like(x) for x in steps.values]
    if stride == 1:
        last = record.count - 1
        carry = lax.fori_loop(0, record.count, lambda k, c: back(last - k, record.y[last - k], c), carry)
    else:
        stretches = -(-record.count // stride)
        carry = lax.fori_loop(0, stretches, lambda k, c: _stretch(steps, stretches - 1 - k, back, c), carry)
    start, bars = carry
    for place, bar in zip((0, 1), start, strict=True):
        if place in steps.live:
            at = steps.live.index(place)
            bars[at] = bars[at] + bar
    return bars


def _stretch(steps: _Steps, which: Count, back: Callable, carry):
    """`back` through the attempts of one stretch, whose states are taken again from the one that was kept."""
    record, stride = steps.record, steps.record.stride
    first = which * stride

    def ahead(y, i):
        again = lambda y: steps.step(record.t[i], y, steps.values, record.h[i])[1]
        return lax.cond(record.h[i] != 0, again, lambda y: y, y), y

    _, ys = lax.scan(ahead, record.y[which], first + jnp.arange(stride))
    return lax.fori_loop(0, stride, lambda k, c: back(first + stride - 1 - k, ys[stride - 1 - k], c), carry)
