"""Stepping through one phase: up to its first event, the final time, or a failure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .._types import Count, Flag, Scalar, State
from .guard import (
    Guard,
    Watch,
    choose,
    first_sight,
    first_watch,
    next_sight,
    next_watch,
)
from .locate import Search, Stage, fresh, look
from .record import Record, write
from .status import Status
from .step import Point, Stepper

_LOOKS = 128  # in search of events, beside the steps, for which a record has rows


class Problem(NamedTuple):
    """One phase made ready to be stepped through, up to the time `t1`."""

    stepper: Stepper
    guards: tuple[Guard, ...]
    limits: tuple[Callable, ...]
    controller: Any
    t1: Scalar
    dt0: Scalar | None
    max_steps: int
    whole: bool  # compile its loops whole


class March(NamedTuple):
    """Where a march stands: the last accepted point, the step to take from it, and what was recorded."""

    point: Point
    h: Scalar
    controller: Any
    search: Search  # for an event in the step from `point`
    watch: Watch
    status: Count
    attempts: Count
    record: Record | None


def freeze(tree):
    """The same tree, treated as constant by differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def rows(problem: Problem) -> int:
    """How many attempts of a phase there may be to record."""
    return problem.max_steps + (_LOOKS if problem.guards else 0)


def begin(problem: Problem, start: Point, record: Record | None) -> March:
    """The march at the start of a phase, with the record to write its steps to, if any."""
    still, here = freeze(problem), freeze(start)
    stepper = still.stepper
    end, controller = problem.controller.init(
        stepper.term,
        here.t,
        still.t1,
        here.y,
        still.dt0,
        stepper.args,
        stepper.solver.func,
        stepper.error_order,
    )
    h = freeze(jnp.asarray(jnp.minimum(end, still.t1) - here.t, here.t.dtype))
    sight = first_sight(still.guards, here, h, stepper.args)
    healthy = jnp.isfinite(h) & all_finite((here, sight.value))
    return March(
        point=start,
        h=h,
        controller=controller,
        search=fresh(sight, h),
        watch=first_watch(still.limits, here, stepper.args),
        status=jnp.where(healthy, Status.FINISHED, Status.NON_FINITE),
        attempts=jnp.array(0),
        record=record,
    )


def underway(problem: Problem, march: March) -> Flag:
    """Whether the march is healthy and has not come to the final time."""
    t, t1 = march.point.t, problem.t1
    left = t1 - t > 4 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(t1))
    return left & (march.status == Status.FINISHED)


def advance(problem: Problem, march: March) -> March:
    """Step on until the first event, the final time, or a failure.

    The path is differentiable in forward mode; step sizes and guards are constants on it, because the
    derivative wanted is that of the solution on the steps taken, and of a guard only at its event.
    """

    still = freeze(problem)

    def go_on(march):
        # One answer for a whole batch, or `vmap` would copy every record at every step.
        return eqxi.unvmap_any(_active(problem, march))

    march = lax.while_loop(go_on, lambda march: _one_look(problem, still, march), march)
    cut_short = underway(problem, march) & (march.search.stage != Stage.FOUND)
    return march._replace(status=jnp.where(cut_short, Status.STEP_LIMIT, march.status))


def _active(problem: Problem, march: March) -> Flag:
    """Whether there are steps to take and looks to make."""
    active = underway(problem, march) & (march.search.stage != Stage.FOUND) & (march.attempts < problem.max_steps)
    return active if march.record is None else active & (march.record.count < march.record.h.shape[0])


def _one_look(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, or one look at a part of it in search of an event.

    Both need one step of the solver and one look at the guards. So they share a loop with a single copy of each,
    which is what the time to compile depends on.
    """
    start, h, search = march.point, march.h, march.search
    active = _active(problem, march)
    end, error = problem.stepper.step(start, search.time)
    here, there = freeze(start), freeze(end)
    # A step into a region where the field is undefined must be refused, not compared with NaN.
    error = jnp.where(jnp.isnan(error), jnp.inf, lax.stop_gradient(error))
    accept, h_next, controller = _judge(still, here, there, h, error, march.controller)
    sight = next_sight(still.guards, there, still.stepper.args)
    looked = look(search, sight, h, still.guards)
    whole = active & (search.time == h)
    refused, take = whole & ~accept, whole & accept & (looked.stage == Stage.CLEAR)
    settled = refused | take
    watch = next_watch(still.limits, march.watch, there, h, still.stepper.args)
    return March(
        point=choose(take, end, start),
        h=jnp.where(settled, h_next, h),
        controller=choose(settled, controller, march.controller),
        search=choose(settled, fresh(choose(take, sight, search.sight), h_next), choose(active, looked, search)),
        watch=choose(take, watch, march.watch),
        status=jnp.where(whole, _health(accept, (there, sight.value), h_next, still.t1, march.status), march.status),
        attempts=march.attempts + settled,
        record=None if march.record is None else write(march.record, start.t, jnp.where(take, h, 0.0), start.y),
    )


def _judge(still: Problem, here: Point, there: Point, h, error, controller):
    """The step size controller's verdict on a step, and the next step, cut to end at `t1`."""
    accept, t0, t1, _, controller, _ = still.controller.adapt_step_size(
        here.t, there.t, here.y, there.y, still.stepper.args, error, still.stepper.error_order, controller
    )
    # From the difference and not the sum, so that a tiny step is not lost beside a large time.
    h_next = jnp.minimum(t1 - t0, still.t1 - jnp.where(accept, there.t, here.t))
    # A controller of constant steps answers with Python's True.
    return jnp.asarray(accept), freeze(jnp.asarray(h_next, h.dtype)), controller


def _health(accept, reached: tuple[Point, Array], h, t1, status):
    """The status after a step: failed once an accepted state or guard is not finite, or the step has vanished."""
    broken = ~all_finite(reached)
    eps = jnp.finfo(h.dtype).eps
    vanished = ~accept & (h <= eps * jnp.maximum(jnp.abs(reached[0].t), eps * jnp.abs(t1)))
    status = jnp.where(vanished, jnp.where(broken, Status.NON_FINITE, Status.STEP_LIMIT), status)
    return jnp.where(accept & broken, Status.NON_FINITE, status)


def all_finite(tree: State) -> Flag:
    """Whether every number of the tree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))
