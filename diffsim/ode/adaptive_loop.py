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
from ..signals.jump_times import unit
from .event_search import Search, Stage, fresh, look, opening
from .events import (
    EventState,
    LimitState,
    Past,
    choose,
    crossed,
    first_event_state,
    first_limit_state,
    next_event_state,
    next_limit_state,
    sample,
    wanted_sides,
)
from .jump_times import NONE, before_jump, jump_at, over, step_over
from .runge_kutta import Point
from .stability_limit import Stability, after_attempt, after_step, at_start, start_of_attempt, watches
from .status import Status
from .tape import Record, write
from .trial_step import Problem, TrialStep, all_finite, finest, fitted, health, resolving, trial_step

_LOOKS = 128  # in search of events, beside the steps, for which a record has rows


class LoopState(NamedTuple):
    """Where a loop stands: the last accepted point, the step to take from it, and what was recorded."""

    point: Point
    h: Scalar
    controller: Any
    search: Search  # for an event in the step from `point`
    limit_state: LimitState
    status: Count
    attempts: Count
    record: Record | None
    natural: Scalar | None = None  # the step that the controller would take, if there are landings that cut it
    jump: Count | None = None  # that behind which the step begins, NONE for none, if there are jumps
    stability: Stability | None = None  # if steps are watched


def most_attempts(max_steps: int, has_events: bool) -> int:
    """Returns how many attempts of a phase there may be to record."""
    return max_steps + (_LOOKS if has_events else 0)


def begin(problem: Problem, start: Point, record: Record | None) -> LoopState:
    """The loop at the start of a phase, with the record to write its steps to, if any."""
    frozen, here, earlier = freeze(problem), freeze(start), None
    stepper, landings, jump = frozen.stepper, frozen.landings, None
    if landings.jumps:
        jump = jump_at(landings.jumps, here.t, frozen.direction)
        earlier = before_jump(here, landings.jumps, jump, frozen.direction)
        # A phase that ends where it begins does so before the jump.
        goes_on, shift = is_ahead(problem, here.t), earlier.t - here.t
        t, behind = start.t + jnp.where(goes_on, 0.0, shift), jnp.where(goes_on, jump, NONE)
        start = over(
            problem.stepper, t, start.y, problem.landings.jumps, behind, frozen.direction, moving=problem.forward
        )
        here = freeze(start)
    wish, controller = first_step(frozen, here)
    if frozen.hint is not None:
        wish = jnp.where(jnp.isfinite(frozen.hint), frozen.hint, wish)
    h = fitted(frozen, here.t, wish)
    past = frozen.past or Past.unknown(frozen.events, here.t.dtype)
    event_state, crosses, at_jump = first_event_state(
        frozen.events, here, jnp.maximum(h, wish), stepper.args, frozen.direction, past, earlier
    )
    healthy = jnp.isfinite(h) & all_finite((here, event_state.value))
    stability = None
    if watches(frozen.controller, stepper.solver):
        largest = fitted(frozen, here.t, 10 * h)  # as much as a controller lets a step grow
        stability = at_start(frozen.controller, stepper.slope, here, h, largest)
    return LoopState(
        point=start,
        h=h,
        controller=controller,
        search=opening(event_state, crosses & healthy, h, at_jump),
        limit_state=first_limit_state(frozen.limits, here, stepper.args, frozen.direction),
        status=jnp.where(healthy, Status.FINISHED, Status.NON_FINITE),
        attempts=jnp.array(0),
        record=record,
        natural=wish if landings.any or problem.is_resumed else None,
        jump=jump,
        stability=stability,
    )


def first_step(frozen: Problem, here: Point) -> tuple[Scalar, Any]:
    """The size of the first step that the controller would take, and the controller's state."""
    stepper, direction = frozen.stepper, frozen.direction
    term = stepper.term
    if not isinstance(direction, float) or direction != 1.0:
        # For a controller time runs forward.
        term = dfx.ODETerm(lambda t, y, args: direction * stepper.term.vf(direction * t, y, args))
    t_start = direction * here.t
    end, controller = frozen.controller.init(
        term, t_start, direction * frozen.t1, here.y, frozen.dt0, stepper.args, stepper.solver.func, stepper.error_order
    )
    return freeze(jnp.asarray(end - t_start, here.t.dtype)), controller


def ahead(problem: Problem, loop: LoopState) -> Flag:
    """Whether the final time is ahead."""
    return is_ahead(problem, loop.point.t)


def is_ahead(problem: Problem, t: Scalar) -> Flag:
    """Whether the final time is ahead of `t`, farther than a jump is that a step stops before."""
    t1, jumps = problem.t1, problem.landings.jumps
    scale = jumps[0].scale if jumps else 0.0
    return problem.direction * (t1 - t) > 4 * unit(jnp.maximum(jnp.abs(t), jnp.abs(t1)), scale)


def advance(problem: Problem, loop: LoopState) -> LoopState:
    """Step on until the first event, the final time, or a failure.

    The path is differentiable in forward mode; step sizes and events are constants on it, because the
    derivative wanted is that of the solution on the steps taken, and of an event only at its event.
    """

    frozen = freeze(problem)
    t, *rest = loop.point
    loop = loop._replace(point=Point(t, *moving_together(rest)))
    look = _one_look if problem.events else _one_step
    loop = _while_active(problem, lambda loop: look(problem, frozen, loop), loop)
    if problem.execution.fixed_steps:
        # Whatever ceased to be finite has remained so.
        status = jnp.where(all_finite(freeze(loop.point)), loop.status, Status.NON_FINITE)
        loop = loop._replace(status=status)
    cut_short = ahead(problem, loop) & (loop.status == Status.FINISHED) & (loop.search.stage != Stage.FOUND)
    return loop._replace(status=jnp.where(cut_short, Status.STEP_LIMIT, loop.status))


def _while_active(problem: Problem, onward: Callable, loop: LoopState) -> LoopState:
    """`loop` carried `onward` for as long as there is anything to do."""
    # One answer for a whole batch, or `vmap` would copy every record at every step.
    go_on = lambda loop: any_of_batch(_active(problem, loop))
    # JAX goes through a loop several times to differentiate and batch it, but through a call within it only once.
    if not problem.stepper.written_out:
        return lax.while_loop(go_on, jax.jit(onward), loop)
    # Few numbers are carried one by one: joined and separated in every step they would go through memory.
    carry_over = lambda loop, function: loop._replace(point=Point(loop.point.t, *map(function, loop.point[1:])))
    body = lambda loop: carry_over(onward(carry_over(loop, jnp.stack)), entries)
    return carry_over(lax.while_loop(go_on, jax.jit(body), carry_over(loop, entries)), jnp.stack)


def _active(problem: Problem, loop: LoopState) -> Flag:
    """Whether there are steps to take and looks to make."""
    active = ahead(problem, loop) & (loop.attempts < problem.max_steps)
    if not problem.execution.fixed_steps:
        active &= loop.status == Status.FINISHED
    if problem.events:
        active &= loop.search.stage != Stage.FOUND
        # Looks in search of events are recorded too.
        active &= loop.record is None or loop.record.attempts < loop.record.h.shape[0]
    return active


class _Outcome(NamedTuple):
    """Whether an attempt was a full step (no look in search of an event), was taken, is settled: taken or refused."""

    full: Flag
    taken: Flag
    settled: Flag


def _outcome(frozen: Problem, full: Flag, accept: Flag, clear: Flag | bool) -> _Outcome:
    """That of an attempt that the controller accepts, or not, and that is `clear` of events, or not."""
    outcome = _Outcome(full, full & accept & clear, full & (clear | ~accept))
    # Otherwise they are computed again for each number that depends on them.
    return outcome if frozen.execution.fixed_steps else _Outcome(*barrier(*outcome))


def _one_step(problem: Problem, frozen: Problem, loop: LoopState) -> LoopState:
    """The loop after one attempted step, in a phase without events."""
    active, trial, h = *_active_in(problem, loop), loop.h
    tried = trial_step(problem, frozen, *_start(frozen, loop, h), h, loop.controller)
    return _after(problem, frozen, loop, tried, _outcome(frozen, active, tried.accept, True), trial, ())


def _one_look(problem: Problem, frozen: Problem, loop: LoopState) -> LoopState:
    """The loop after one attempted step, or one look at a part of it in search of an event.

    Both need one step of the solver and one look at the events. So they share a loop with a single copy of each,
    which is what the time to compile depends on.
    """
    h, search = loop.h, loop.search
    active, trial = _active_in(problem, loop)
    tried = trial_step(problem, frozen, *_start(frozen, loop, search.time), h, loop.controller)
    event_state = next_event_state(frozen.events, freeze(tried.end), frozen.stepper.args, frozen.direction)
    samples = None
    if frozen.samples_events:
        states = search.event_state, event_state
        ends = freeze(loop.point), freeze(tried.end)
        samples = sample(frozen.events, *ends, search.time, search.low, states, frozen.stepper.args, frozen.direction)
        # A step whose first look was clear stays accepted: the search already stands within it.
        is_first = active & (search.time == h) & (search.low == 0)
        tried = resolving(frozen, loop.point.t, h, loop.controller, tried, samples.error, is_first)
    looked = look(search, event_state, h, wanted_sides(frozen.events), samples)
    outcome = _outcome(frozen, active & (search.time == h), tried.accept, looked.stage == Stage.CLEAR)
    after = _after(problem, frozen, loop, tried, outcome, trial, (event_state.value,))
    if not frozen.landings.jumps:
        restarted = fresh(choose(outcome.taken, event_state, search.event_state), after.h)
    else:
        restarted = _behind_jump(frozen, after, outcome.taken, choose(outcome.taken, event_state, search.event_state))
    return after._replace(search=choose(outcome.settled | trial, restarted, choose(active, looked, search)))


def _behind_jump(frozen: Problem, loop: LoopState, taken: Flag, before: EventState) -> Search:
    """The search in the step from the loop's point, which may lie behind a jump; `before` it the events were so.

    There the events have other rates, and where they depend on what jumps, other values: one that comes to its other
    side has crossed at the jump.
    """
    behind = next_event_state(frozen.events, freeze(loop.point), frozen.stepper.args, frozen.direction)
    side = jnp.where(before.side * behind.value < 0, jnp.sign(behind.value), before.side)
    crosses = taken & (side != before.side) & crossed(before.side, behind.value, wanted_sides(frozen.events))
    crosses &= loop.jump != NONE
    # An event that comes to zero just at the jump crosses there by itself.
    at_jump = jnp.abs(behind.value) > jnp.sqrt(jnp.finfo(side.dtype).eps) * jnp.abs(behind.rate * loop.h)
    # One that has crossed and not happened is still on its side.
    side = jnp.where(crosses & at_jump, before.side, side)
    return opening(behind._replace(side=side), crosses, loop.h, at_jump)


def _active_in(problem: Problem, loop: LoopState) -> tuple[Flag, Flag]:
    """Whether there is anything to do on the way, and whether there is in a trial from a neighbour of the point."""
    active = _active(problem, loop)
    if loop.stability is None:
        return active, jnp.array(False)
    trial = loop.stability.attempts > 0
    return active & ~trial, active & trial


def _start(frozen: Problem, loop: LoopState, time: Scalar) -> tuple[Point, Scalar]:
    """The point from which the attempt starts, and its length."""
    if loop.stability is None:
        return loop.point, time
    return start_of_attempt(frozen.controller, loop.stability, loop.point, time)


def _after(
    problem: Problem, frozen: Problem, loop: LoopState, tried: TrialStep, outcome: _Outcome, trial: Flag, seen: tuple
) -> LoopState:
    """The loop after an attempt, of which `seen` must be finite too; it may have been part of a `trial`."""
    start, h, there = loop.point, loop.h, freeze(tried.end)
    full, taken, settled = outcome
    limit_state = next_limit_state(frozen.limits, loop.limit_state, there, h, frozen.stepper.args, frozen.direction)
    status = loop.status
    if not frozen.execution.fixed_steps:
        status = health(tried.accept, (there, *seen), h, finest(frozen, start.t), status)
    record = loop.record
    if record is not None:
        record = write(record, start.t, frozen.direction * jnp.where(taken, h, 0.0), start.y, tried.slopes, loop.jump)
    point, natural, jump = choose(taken, tried.end, start), tried.wish, loop.jump
    if loop.natural is not None:
        # A landing has cut the step that was natural here.
        natural = jnp.where(taken, jnp.maximum(tried.wish, loop.natural), tried.wish)
    stability = loop.stability
    if stability is not None:
        after, next_step = after_step(frozen.controller, stability, freeze(start.y), there.y, natural)
        natural = jnp.where(taken, next_step, natural)
        after = after._replace(largest=fitted(frozen, there.t, after.largest))
        slopes = there.slope - freeze(start.slope)
        tested, h_tried = after_attempt(
            frozen.controller, stability, freeze(start.y), there.y, slopes, h, tried.accept, tried.wish
        )
        h = jnp.where(trial, fitted(frozen, freeze(start.t), h_tried), h)
        stability = choose(trial, tested, choose(taken, after, stability))
    if frozen.landings.jumps:
        assert jump is not None
        jump = jnp.where(taken, jump_at(frozen.landings.jumps, there.t, frozen.direction), jump)
        behind = jnp.where(taken & ahead(frozen, loop._replace(point=there)), jump, NONE)
        jumps, moving = problem.landings.jumps, problem.forward
        point = step_over(problem.stepper, point, jumps, behind, frozen.direction, moving=moving)
    return loop._replace(
        point=point,
        h=jnp.where(settled, fitted(frozen, freeze(point.t), natural), h),
        controller=choose(settled, tried.controller, loop.controller),
        limit_state=choose(taken, limit_state, loop.limit_state),
        status=jnp.where(full, status, loop.status),
        attempts=loop.attempts + (settled | trial),
        record=record,
        natural=None if loop.natural is None else jnp.where(settled, natural, loop.natural),
        jump=jump,
        stability=stability,
    )
