"""Stepping through one phase: up to its first event, the final time, or a failure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax

from .._jax.barrier import barrier
from .._jax.batch_reductions import any_of_batch
from .._jax.scalarize import entries
from .._jax.tangents import freeze, moving_together
from .._types import Count, Flag, Scalar
from .event_search import Search, Stage, fresh, look, opening
from .events import Past, Watch, choose, first_sight, first_watch, next_sight, next_watch, wanted_sides
from .jump_times import jump_at, over
from .runge_kutta import Point
from .stability_limit import Stability, after_attempt, after_step, at_start, start_of_attempt, watches
from .status import Status
from .tape import Record, write
from .trial_step import Attempt, Problem, all_finite, attempt, finest, fitted, health, steady

_LOOKS = 128  # in search of events, beside the steps, for which a record has rows


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
    natural: Scalar | None = None  # the step that the controller would take, if there are landings that cut it
    jump: Count | None = None  # that behind which the step begins, -1 for none, if there are jumps
    stability: Stability | None = None  # if steps are watched


def rows(problem: Problem) -> int:
    """How many attempts of a phase there may be to record."""
    return problem.max_steps + (_LOOKS if problem.events else 0)


def begin(problem: Problem, start: Point, record: Record | None) -> March:
    """The march at the start of a phase, with the record to write its steps to, if any."""
    still, here = freeze(problem), freeze(start)
    stepper, landings, jump = still.stepper, still.landings, None
    if landings.jumps is not None:
        jump = jump_at(landings.jumps, here.t, still.direction)
        start = over(problem.stepper, start.t, start.y, problem.landings.jumps, jump, still.direction)
        here = freeze(start)
    wish, controller = first_step(still, here)
    if still.hint is not None:
        wish = jnp.where(jnp.isfinite(still.hint), still.hint, wish)
    h = fitted(still, here.t, wish)
    past = still.past or Past.unknown(still.events, here.t.dtype)
    sight, crosses = first_sight(still.events, here, jnp.maximum(h, wish), stepper.args, still.direction, past)
    healthy = jnp.isfinite(h) & all_finite((here, sight.value))
    stability = None
    if watches(still.controller, stepper.solver):
        largest = fitted(still, here.t, 10 * h)  # as much as a controller lets a step grow
        stability = at_start(still.controller, stepper.slope, here, h, largest)
    return March(
        point=start,
        h=h,
        controller=controller,
        search=opening(sight, crosses & healthy, h),
        watch=first_watch(still.limits, here, stepper.args, still.direction),
        status=jnp.where(healthy, Status.FINISHED, Status.NON_FINITE),
        attempts=jnp.array(0),
        record=record,
        natural=wish if landings.any else None,
        jump=jump,
        stability=stability,
    )


def first_step(still: Problem, here: Point) -> tuple[Scalar, Any]:
    """The size of the first step that the controller would take, and the controller's state."""
    stepper, direction = still.stepper, still.direction
    term = stepper.term
    if not isinstance(direction, float) or direction != 1.0:
        # For a controller time runs forward.
        term = dfx.ODETerm(lambda t, y, args: direction * stepper.term.vf(direction * t, y, args))
    begun = direction * here.t
    end, controller = still.controller.init(
        term, begun, direction * still.t1, here.y, still.dt0, stepper.args, stepper.solver.func, stepper.error_order
    )
    return freeze(jnp.asarray(end - begun, here.t.dtype)), controller


def ahead(problem: Problem, march: March) -> Flag:
    """Whether the final time is still to come."""
    t, t1 = march.point.t, problem.t1
    return problem.direction * (t1 - t) > 4 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(t1))


def advance(problem: Problem, march: March) -> March:
    """Step on until the first event, the final time, or a failure.

    The path is differentiable in forward mode; step sizes and events are constants on it, because the
    derivative wanted is that of the solution on the steps taken, and of an event only at its event.
    """

    still = freeze(problem)
    t, *rest = march.point
    march = march._replace(point=Point(t, *moving_together(rest)))
    look = _one_look if problem.events else _one_step
    march = _while_active(problem, lambda march: look(problem, still, march), march)
    if steady(problem):
        # Whatever ceased to be finite has remained so.
        status = jnp.where(all_finite(freeze(march.point)), march.status, Status.NON_FINITE)
        march = march._replace(status=status)
    cut_short = ahead(problem, march) & (march.status == Status.FINISHED) & (march.search.stage != Stage.FOUND)
    return march._replace(status=jnp.where(cut_short, Status.STEP_LIMIT, march.status))


def _while_active(problem: Problem, onward: Callable, march: March) -> March:
    """`march` carried `onward` for as long as there is anything to do."""
    # One answer for a whole batch, or `vmap` would copy every record at every step.
    go_on = lambda march: any_of_batch(_active(problem, march))
    # JAX goes through a loop several times to differentiate and batch it, but through a call within it only once.
    if not problem.stepper.small:
        return lax.while_loop(go_on, jax.jit(onward), march)
    # Few numbers are carried one by one: put together and taken apart in every step they would go through memory.
    carry_over = lambda march, function: march._replace(point=Point(march.point.t, *map(function, march.point[1:])))
    body = lambda march: carry_over(onward(carry_over(march, jnp.stack)), entries)
    return carry_over(lax.while_loop(go_on, jax.jit(body), carry_over(march, entries)), jnp.stack)


def _active(problem: Problem, march: March) -> Flag:
    """Whether there are steps to take and looks to make."""
    active = ahead(problem, march) & (march.attempts < problem.max_steps)
    if not steady(problem):
        active &= march.status == Status.FINISHED
    if problem.events:
        active &= march.search.stage != Stage.FOUND
        # Looks in search of events are recorded too.
        active &= march.record is None or march.record.count < march.record.h.shape[0]
    return active


class _Outcome(NamedTuple):
    """Whether an attempt was at a whole step, whether that was taken, and whether it is settled, taken or refused."""

    whole: Flag
    taken: Flag
    settled: Flag


def _outcome(still: Problem, whole: Flag, accept: Flag, clear: Flag | bool) -> _Outcome:
    """That of an attempt that the controller accepts, or not, and that is `clear` of events, or not."""
    found = _Outcome(whole, whole & accept & clear, whole & (clear | ~accept))
    # XLA otherwise finds them out anew for each number that hangs on them.
    return found if steady(still) else _Outcome(*barrier(*found))


def _one_step(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, in a phase without events."""
    active, trial, h = *_active_in(problem, march), march.h
    tried = attempt(problem, still, *_start(still, march, h), h, march.controller)
    return _after(problem, still, march, tried, _outcome(still, active, tried.accept, True), trial, ())


def _one_look(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, or one look at a part of it in search of an event.

    Both need one step of the solver and one look at the events. So they share a loop with a single copy of each,
    which is what the time to compile depends on.
    """
    h, search = march.h, march.search
    active, trial = _active_in(problem, march)
    tried = attempt(problem, still, *_start(still, march, search.time), h, march.controller)
    sight = next_sight(still.events, freeze(tried.end), still.stepper.args, still.direction)
    looked = look(search, sight, h, wanted_sides(still.events))
    outcome = _outcome(still, active & (search.time == h), tried.accept, looked.stage == Stage.CLEAR)
    after = _after(problem, still, march, tried, outcome, trial, (sight.value,))
    if still.landings.jumps is not None:
        # Behind a jump the events have other rates, and keep their sides.
        behind = next_sight(still.events, freeze(after.point), still.stepper.args, still.direction)
        sight = sight._replace(value=behind.value, rate=behind.rate)
    begun = fresh(choose(outcome.taken, sight, search.sight), after.h)
    return after._replace(search=choose(outcome.settled | trial, begun, choose(active, looked, search)))


def _active_in(problem: Problem, march: March) -> tuple[Flag, Flag]:
    """Whether there is anything to do on the way, and whether there is in a trial from a neighbour of the point."""
    active = _active(problem, march)
    if march.stability is None:
        return active, jnp.array(False)
    trial = march.stability.attempts > 0
    return active & ~trial, active & trial


def _start(still: Problem, march: March, time: Scalar) -> tuple[Point, Scalar]:
    """The point from which the attempt starts, and its length."""
    if march.stability is None:
        return march.point, time
    return start_of_attempt(still.controller, march.stability, march.point, time)


def _after(
    problem: Problem, still: Problem, march: March, tried: Attempt, outcome: _Outcome, trial: Flag, seen: tuple
) -> March:
    """The march after an attempt, of which `seen` must be finite too; it may have been part of a `trial`."""
    start, h, there = march.point, march.h, freeze(tried.end)
    whole, taken, settled = outcome
    watch = next_watch(still.limits, march.watch, there, h, still.stepper.args, still.direction)
    status = march.status
    if not steady(still):
        status = health(tried.accept, (there, *seen), h, finest(still, start.t), status)
    record = march.record
    if record is not None:
        record = write(record, start.t, still.direction * jnp.where(taken, h, 0.0), start.y, tried.slopes, march.jump)
    point, natural, jump = choose(taken, tried.end, start), tried.wish, march.jump
    if march.natural is not None:
        # A landing has cut the step that was natural here.
        natural = jnp.where(taken, jnp.maximum(tried.wish, march.natural), tried.wish)
    stability = march.stability
    if stability is not None:
        after, next_step = after_step(still.controller, stability, freeze(start.y), there.y, natural)
        natural = jnp.where(taken, next_step, natural)
        after = after._replace(largest=fitted(still, there.t, after.largest))
        slopes = there.slope - freeze(start.slope)
        tested, h_tried = after_attempt(stability, slopes, h, tried.accept, tried.wish)
        h = jnp.where(trial, fitted(still, freeze(start.t), h_tried), h)
        stability = choose(trial, tested, choose(taken, after, stability))
    if still.landings.jumps is not None:
        assert jump is not None
        jump = jnp.where(taken, jump_at(still.landings.jumps, there.t, still.direction), jump)
        behind = jnp.where(taken & ahead(still, march._replace(point=there)), jump, -1)
        point = over(problem.stepper, point.t, point.y, problem.landings.jumps, behind, still.direction)
    return march._replace(
        point=point,
        h=jnp.where(settled, fitted(still, freeze(point.t), natural), h),
        controller=choose(settled, tried.controller, march.controller),
        watch=choose(taken, watch, march.watch),
        status=jnp.where(whole, status, march.status),
        attempts=march.attempts + (settled | trial),
        record=record,
        natural=None if march.natural is None else jnp.where(settled, natural, march.natural),
        jump=jump,
        stability=stability,
    )
