"""The discrete adjoint: derivatives carried over recorded steps, tangents forward and cotangents backward.

With a step y_{n+1} = F(t_n, y_n, h_n, p), a tangent obeys

    dy_{n+1} = (dF/dt) dt_n + (dF/dy) dy_n + (dF/dp) dp

from the first step to the last, and the cotangents, from the last to the first,

    lambda_n = lambda_{n+1} dF/dy,    mu += lambda_{n+1} dF/dp

where mu, that of the parameters p, begins at zero. The sizes h_n of the steps are constants.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._jax.barrier import barrier
from .._jax.dynamic_rows import put, row
from .._types import Count, Scalar, Vector
from .choose_execution import Execution
from .dirk import Slopes, Stages
from .jump_times import NONE, over
from .runge_kutta import Stepper
from .tape import Record, put_some

_CHUNK = 64  # steps linearised together


class Steps(NamedTuple):
    """Recorded steps as a function of those of the `leaves` that are being differentiated, the `live` ones.

    The first two leaves are the initial time and state; `restore` gives those, the stepper and the times of jumps back.
    """

    leaves: list
    live: list[int]
    restore: Callable
    record: Record
    keep_path: bool
    execution: Execution
    direction: Scalar | float = 1.0

    def step(
        self, t: Scalar, y: Vector, live: list, h: Scalar, slopes: Slopes | None, jump: Count | None
    ) -> tuple[Scalar, Vector]:
        """Time and state a step `h` after (t, y), behind a jump if there is one, by its stages if these are known."""
        leaves = list(self.leaves)
        for i, leaf in zip(self.live, live, strict=True):
            leaves[i] = leaf
        stepper: Stepper
        _, _, stepper, jumps = self.restore(leaves)
        start = stepper.point(t, y)
        if jump is not None:
            # The last leaves are those of the jumps.
            moving = 0 in self.live or max(self.live) >= len(leaves) - len(jax.tree.leaves(jumps))
            start = over(stepper, t, y, jumps, jump, self.direction, moving=moving)
        end, _ = stepper.step(start, h, None if slopes is None else Stages(slopes))
        return end.t, end.y

    def jump(self, i: Count) -> Count | None:
        """That behind which an attempt begins, if there are any."""
        return None if self.record.jump is None else row(self.record.jump, i)

    def slopes(self, i: Count) -> Slopes | None:
        """Those of the stages of an attempt, if they were recorded."""
        return None if self.record.slopes is None else row(self.record.slopes, i)

    def where_taken(self, h: Scalar, take: Callable, carry):
        """`take(carry)` for an attempt of size `h` that was not refused, else `carry`."""
        return take(carry) if self.execution.fixed_steps else lax.cond(h != 0, take, lambda carry: carry, carry)

    @property
    def values(self) -> list:
        """The leaves that are live."""
        return [self.leaves[i] for i in self.live]


def with_slopes(stepper: Stepper, record: Record) -> Record:
    """The record of accepted steps, with the slopes of an implicit method's stages, which are solved for again."""
    if not stepper.number_of_stages or record.stride > 1:
        return record

    def slopes_of(t, y, h):
        stages = stepper.stages(stepper.point(t, y), h)
        assert stages is not None
        return stages.slopes

    def chunk(k, slopes):
        rows = k * _CHUNK + jnp.arange(_CHUNK)
        safe = jnp.minimum(rows, record.attempts - 1)
        return slopes.at[rows].set(jax.vmap(slopes_of)(record.t[safe], record.y[safe], record.h[safe]), mode="drop")

    blank = jnp.zeros((record.h.shape[0], stepper.number_of_stages, record.y.shape[1]), record.y.dtype)
    return record._replace(slopes=lax.fori_loop(0, -(-record.attempts // _CHUNK), chunk, blank))


def tangents(steps: Steps, inputs: list) -> list:
    """Tangents of the end, and of the path if it is wanted, from those of the live leaves."""
    record, (t, y) = steps.record, steps.leaves[:2]
    given = dict(zip(steps.live, inputs, strict=True))
    start = given.get(0, jnp.zeros_like(t)), given.get(1, jnp.zeros_like(y))

    def take(point, h, slopes, jump):
        along = lambda t, y, live: steps.step(t, y, live, h, slopes, jump)
        return jax.jvp(along, (*point[0], steps.values), (*point[1], inputs))

    def body(i, carry):
        point, path = carry
        if path is not None:
            path = put(path[0], i, point[1][0]), put_some(path[1], i, record.stride, point[1][1])
        h, slopes, jump = row(record.h, i), steps.slopes(i), steps.jump(i)
        # The recorded time, which behind a jump is not the sum of the steps.
        point = ((row(record.t, i), point[0][1]), point[1]) if jump is not None else point
        return steps.where_taken(h, lambda point: take(point, h, slopes, jump), point), path

    path = (jnp.zeros_like(record.t), jnp.zeros_like(record.y)) if steps.keep_path else None
    (_, end), path = lax.fori_loop(0, record.attempts, body, (((t, y), start), path))
    return [*end, *(path or ())]


def cotangents(steps: Steps, cotangents: list) -> list:
    """Cotangents of the live leaves from those of the end, and of the path if it is wanted."""
    carry = tuple(cotangents[:2]), [jnp.zeros_like(x) for x in steps.values]
    over = _by_jacobians if steps.execution.jacobians else _in_stretches if steps.record.stride > 1 else _one_by_one
    start, leaf_cotangents = over(steps, cotangents[2:], carry)
    for place, cotangent in zip((0, 1), start, strict=True):
        if place in steps.live:
            at = steps.live.index(place)
            leaf_cotangents[at] = leaf_cotangents[at] + cotangent
    return leaf_cotangents


def _pull(steps: Steps, path: list, i: Count, y: Vector, slopes: Slopes | None, carry):
    """`carry`, the cotangents of time, state and live leaves after attempt `i` from `y`, brought before it."""
    # Outside the condition, within which all that is mapped over takes a place of its own for each member.
    t, h, y = barrier(row(steps.record.t, i), row(steps.record.h, i), y)
    slopes = None if slopes is None else barrier(slopes)[0]
    stride, jump = steps.record.stride, steps.jump(i)

    def pull(carry):
        (t_cotangent, y_cotangent), leaf_cotangents = carry
        _, transpose = jax.vjp(lambda t, y, live: steps.step(t, y, live, h, slopes, jump), t, y, steps.values)
        t_cotangent, y_cotangent, more = transpose((t_cotangent, y_cotangent))
        return (t_cotangent, y_cotangent), jax.tree.map(jnp.add, leaf_cotangents, more)

    carry = steps.where_taken(h, pull, carry)
    if path:
        (t_cotangent, y_cotangent), leaf_cotangents = carry
        of_path = jnp.where(i % stride == 0, row(path[1], i // stride), 0.0)
        carry = (t_cotangent + row(path[0], i), y_cotangent + of_path), leaf_cotangents
    return carry


def _one_by_one(steps: Steps, path: list, carry):
    """`carry` brought from the end of the record to its beginning, from one recorded state to another."""
    last = steps.record.attempts - 1
    back = lambda i, carry: _pull(steps, path, i, row(steps.record.y, i), steps.slopes(i), carry)
    return lax.fori_loop(0, last + 1, lambda k, carry: back(last - k, carry), carry)


def _in_stretches(steps: Steps, path: list, carry):
    """The same where few states were recorded: the steps of each stretch are taken again from its first."""
    record, stride = steps.record, steps.record.stride

    def ahead(y, i):
        t, h = row(record.t, i), row(record.h, i)
        return steps.where_taken(h, lambda y: steps.step(t, y, steps.values, h, None, steps.jump(i))[1], y), y

    def stretch(which, carry):
        rows = which * stride + jnp.arange(stride)
        _, ys = lax.scan(ahead, row(record.y, which), rows)
        back = lambda k, carry: _pull(steps, path, rows[0] + k, row(ys, k), None, carry)
        return lax.fori_loop(0, stride, lambda k, carry: back(stride - 1 - k, carry), carry)

    last = -(-record.attempts // stride) - 1
    return lax.fori_loop(0, last + 1, lambda k, c: stretch(last - k, c), carry)


def _by_jacobians(steps: Steps, path: list, carry):
    """The same with the steps linearised side by side, and products of small matrices one after the other.

    The states of a record are known, so that all the Jacobians of a chunk of steps are taken together. Where a step
    is many operations on few numbers, sending these off one by one is what costs most.
    """
    count = steps.record.attempts
    back = lambda k, carry: _chunk(steps, path, count - (k + 1) * _CHUNK + jnp.arange(_CHUNK), carry)
    return lax.fori_loop(0, -(-count // _CHUNK), back, carry)


def _chunk(steps: Steps, path: list, rows, carry):
    """`carry` brought back over the attempts `rows`, of which negative ones do not count."""
    record = steps.record
    taken = (rows >= 0) & (record.h[rows] != 0)
    # In place of a step that was refused stands one that was taken, so that its numbers are sound.
    safe = jnp.where(taken, rows, jnp.argmax(record.h != 0))
    columns = record.t, record.y, record.h, record.slopes, record.jump
    t, y, h, slopes, jump = jax.tree.map(lambda x: x[safe], columns)
    each = jax.vmap(steps.step, in_axes=(0, 0, None, 0, 0, 0))
    _, transpose = jax.vjp(lambda t, y, live: each(t, y, live, h, slopes, jump), t, y, steps.values)
    basis = jnp.broadcast_to(jnp.eye(y.shape[1], dtype=y.dtype)[:, None], (y.shape[1], *y.shape))
    in_t, in_y, _ = jax.vmap(transpose)((jnp.zeros(basis.shape[:2], t.dtype), basis))

    def before(after, step):
        t_cotangent, y_cotangent = after
        taken, carries_time, in_t, in_y, more = step
        t_cotangent = t_cotangent * carries_time + jnp.where(taken, y_cotangent @ in_t, 0.0)
        y_cotangent = jnp.where(taken, y_cotangent @ in_y, y_cotangent)
        return (t_cotangent + more[0], y_cotangent + more[1]), after

    # Behind a jump time is that of the jump, whenever the step before it ended.
    carries_time = jnp.ones_like(t) if jump is None else jnp.where(taken & (jump != NONE), 0.0, jnp.ones_like(t))
    more = tuple(jnp.where(rows >= 0, x[rows].T, 0.0).T for x in path) or (jnp.zeros_like(t), jnp.zeros_like(y))
    ends, leaf_cotangents = carry
    ends, after = lax.scan(before, ends, (taken, carries_time, in_t.T, jnp.moveaxis(in_y, 0, 1), more), reverse=True)
    _, _, of_chunk = transpose(jax.tree.map(lambda x: jnp.where(taken, x.T, 0.0).T, after))
    return ends, jax.tree.map(jnp.add, leaf_cotangents, of_chunk)
