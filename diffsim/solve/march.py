"""Stepping through one phase: up to its first event, the final time, or a failure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax as dfx
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


def _ahead(problem: Problem, march: March) -> Flag:
    """Whether the final time is still to come."""
    t, t1 = march.point.t, problem.t1
    return t1 - t > 4 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(t1))


def advance(problem: Problem, march: March) -> March:
    """Step on until the first event, the final time, or a failure.

    The path is differentiable in forward mode; step sizes and guards are constants on it, because the
    derivative wanted is that of the solution on the steps taken, and of a guard only at its event.
    """

    still = freeze(problem)
    onward = _one_look if problem.guards else _one_step

    def go_on(march):
        # One answer for a whole batch, or `vmap` would copy every record at every step.
        return eqxi.unvmap_any(_active(problem, march))

    march = lax.while_loop(go_on, lambda march: onward(problem, still, march), march)
    if steady(problem):
        # Whatever ceased to be finite has remained so.
        status = jnp.where(all_finite(freeze(march.point)), march.status, Status.NON_FINITE)
        march = march._replace(status=status)
    cut_short = _ahead(problem, march) & (march.status == Status.FINISHED) & (march.search.stage != Stage.FOUND)
    return march._replace(status=jnp.where(cut_short, Status.STEP_LIMIT, march.status))


def _active(problem: Problem, march: March) -> Flag:
    """Whether there are steps to take and looks to make."""
    active = _ahead(problem, march) & (march.attempts < problem.max_steps)
    if not steady(problem):
        active &= march.status == Status.FINISHED
    if problem.guards:
        active &= march.search.stage != Stage.FOUND
        # Looks in search of events are recorded too.
        active &= march.record is None or march.record.count < march.record.h.shape[0]
    return active


def steady(problem: Problem) -> bool:
    """Whether the steps are the same whatever becomes of the state: a batch then takes them together."""
    return not problem.guards and isinstance(problem.controller, dfx.ConstantStepSize | dfx.StepTo)


def _one_step(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, in a phase without guards."""
    active, attempt = _active(problem, march), _attempt(problem, still, march, march.h)
    return _after(still, march, attempt, active, True, ())


def _one_look(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, or one look at a part of it in search of an event.

    Both need one step of the solver and one look at the guards. So they share a loop with a single copy of each,
    which is what the time to compile depends on.
    """
    h, search, active = march.h, march.search, _active(problem, march)
    attempt = _attempt(problem, still, march, search.time)
    sight = next_sight(still.guards, freeze(attempt.end), still.stepper.args)
    looked = look(search, sight, h, still.guards)
    whole, clear = active & (search.time == h), looked.stage == Stage.CLEAR
    refused, take = whole & ~attempt.accept, whole & attempt.accept & clear
    begun = fresh(choose(take, sight, search.sight), attempt.h_next)
    search = choose(refused | take, begun, choose(active, looked, search))
    return _after(still, march, attempt, whole, clear, (sight.value,))._replace(search=search)


class _Attempt(NamedTuple):
    """The end of a step, and the verdict of the step size controller: whether it is accepted, and what is next."""

    end: Point
    accept: Flag
    h_next: Scalar
    controller: Any


def _attempt(problem: Problem, still: Problem, march: March, time: Scalar) -> _Attempt:
    end, error = problem.stepper.step(march.point, time)
    # A step into a region where the field is undefined must be refused, not compared with NaN.
    error = jnp.where(jnp.isnan(error), jnp.inf, lax.stop_gradient(error))
    return _Attempt(end, *_judge(still, freeze(march.point), freeze(end), march.h, error, march.controller))


def _after(still: Problem, march: March, attempt: _Attempt, whole: Flag, clear: Flag | bool, seen: tuple) -> March:
    """The march after an attempt at a `whole` step, taken if it is `clear` of events; `seen` must be finite too."""
    start, h, there = march.point, march.h, freeze(attempt.end)
    take = whole & attempt.accept & clear
    settled = take | (whole & ~attempt.accept)
    watch = next_watch(still.limits, march.watch, there, h, still.stepper.args)
    status = march.status
    if not steady(still):
        status = _health(attempt.accept, (there, *seen), attempt.h_next, still.t1, status)
    return march._replace(
        point=choose(take, attempt.end, start),
        h=jnp.where(settled, attempt.h_next, h),
        controller=choose(settled, attempt.controller, march.controller),
        watch=choose(take, watch, march.watch),
        status=jnp.where(whole, status, march.status),
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
