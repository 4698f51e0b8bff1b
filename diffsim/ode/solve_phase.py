"""The solution of one phase: the loop over its steps, its derivative, and the event at its end."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, cast, get_args

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .._errors import InputError
from .._jax.compile_whole import compile_small
from .._jax.polynomial import is_polynomial
from .._jax.tangents import freeze
from .._jax.traced_function import Traced
from .._types import Args, Count, Flag, Scalar, State, Vector
from ..autodiff.nan_unless import defined
from ..signals.jump_times import scale_of
from .adaptive_loop import LoopState, advance, ahead, begin, is_ahead, most_attempts
from .choose_execution import choose_execution
from .event_search import Stage, end_point, event_point, still_pending
from .events import Event, Past, Phase, Signals, next_limit_state
from .jump_times import NONE, make_sense, over, unwrapped
from .options import both, sensible
from .replay import End, replay
from .runge_kutta import Point
from .solver_setup import as_vector, on_vectors, stepper, with_plain_norm
from .status import Status
from .tape import Memory, Record, blank
from .time_events import TimeEvent, next_due
from .trial_step import Problem, all_finite
from .validate import check_field

Mode = Literal["auto", "replay", "forward"]
SOLVER = dfx.Tsit5()
CONTROLLER = dfx.PIDController(rtol=1e-8, atol=1e-10)


class PhaseResult(NamedTuple):
    """The end of a phase: an event, the final time, or a failure.

    `t` and `y` are time and state at the end, before any reset; `next_y` is the state after the reset. `event` is the
    index of the event that happened, -1 for none; `status` is a `Status`. `steps` counts attempted steps. `lowest` is
    the least value of each of the phase's limits (a constant for differentiation). `ys` are the states at the times
    asked for, NaN outside the phase; None if none were asked for.

    Examples:
        >>> stop = ds.Event(lambda t, v, drag: v - 1.0, "falling", reset=lambda t, v, drag: 0.0 * v)
        >>> end = ds.integrate_phase(ds.Phase(lambda t, v, drag: -drag, stop), 0.0, 3.0, 0.5, t1=9.0)
        >>> print(f"{end.t:.3f} {end.y:.3f} {end.next_y:.3f}", int(end.event), bool(ds.finished(end.status)))
        4.000 1.000 0.000 0 True
    """

    t: Scalar
    y: State
    next_y: State
    event: Count
    status: Count
    steps: Count
    lowest: Float[Array, " limits"]
    ys: State | None


class Trajectory(NamedTuple):
    """The recorded steps of a solved phase, from which states at any times between are computed, with derivatives."""

    problem: Problem
    t0: Scalar
    point: Point  # the last point before the end
    end: End
    record: Record
    t_end: Scalar
    unravel: Callable

    def states(self, ts: Float[Array, " times"]) -> State:
        """Returns the states at `ts`, each by one shortened step, as accurate as these; NaN outside the phase."""
        return jax.vmap(self.unravel)(_states_at(self, ts))


class After(NamedTuple):
    """What the phase after an event needs to know: the sides its events were on, and the step that was taken last.

    `pending` are the events that a jump has brought across zero and that have not happened yet. `done` are the times up
    to which events at known times have happened.
    """

    side: Float[Array, " events"]
    pending: Bool[Array, " events"]
    h: Scalar
    done: Float[Array, " time_events"]


def solve_phase(
    phase: Phase,
    t0,
    y0: State,
    args: Args,
    t1,
    ts,
    solver: dfx.AbstractSolver = SOLVER,
    stepsize_controller: dfx.AbstractStepSizeController = CONTROLLER,
    dt0=None,
    max_steps: int = 1024,
    mode: Mode = "auto",
    memory: Memory = "auto",
    signals: Signals | None = None,
    *,
    direction: Scalar | float,
    past: Past | None = None,
    hint: Scalar | None = None,
    done: Float[Array, " time_events"] | None = None,
    dense: bool = False,
) -> tuple[PhaseResult, After, Trajectory | None]:
    """Returns the result of `integrate_phase`, what the phase after it needs, and the steps if `dense` or with `ts`.

    `past`, `hint` and `done` are from the phase before; `signals` are those that the phase's functions
    evaluate.
    """
    if mode not in get_args(Mode):
        raise InputError(f'mode={mode!r}: use "auto", "replay" or "forward"')
    of_signals = signals.all(t0, y0, args) if signals else {}
    scale = signals.scale if signals else scale_of(t0, t1)
    controller, landings = unwrapped(stepsize_controller, t0, t1, of_signals, scale)
    valid = both(sensible(t0, t1, controller, dt0), make_sense(landings))
    check_field(phase.field, t0, y0, args)
    y0, unravel = as_vector(y0)
    phase = _vector_phase(phase, t0, y0, unravel, args)
    (events, _), (time_events, time_indices) = phase.numbered(Event), phase.numbered(TimeEvent)
    due = next_due(time_events, t0, t1, args, direction, done, scale) if time_events else None
    if due is not None:
        t1, valid = due.t, both(valid, due.valid)
    bound, controller = stepper(phase.field, solver, controller, args), with_plain_norm(controller)
    execution = choose_execution(
        bound,
        t0,
        y0,
        controller,
        attempts=most_attempts(max_steps, bool(events)),
        memory=memory,
        keep_path=dense or ts is not None,
        forward=mode == "forward",
        has_events=bool(events),
        has_limits=bool(phase.limits),
    )
    bound = bound._replace(written_out=execution.written_out)
    problem = Problem(bound, events, phase.limits, controller, t1, dt0, max_steps, execution, direction, landings)
    # A polynomial of time and state is as smooth as the state, whose error the controller bounds.
    samples_events = not all(is_polynomial(cast(Traced, event.function), (0, 1)) for event in events)
    problem = problem._replace(past=past, hint=hint, forward=mode == "forward", samples_events=samples_events)
    problem = problem._replace(is_resumed=due is not None)
    loop, end = _end(problem, t0, y0, forward=mode == "forward", keep_path=dense or ts is not None)
    on_time = jnp.array(-1)
    if due is not None:
        arrived = (loop.status == Status.FINISHED) & ~ahead(problem, loop) & (due.event >= 0)
        on_time = jnp.where(arrived, jnp.array(time_indices)[due.event], -1)
    result = _result(phase, problem, unravel, loop, valid, on_time)
    trajectory = None
    if loop.record is not None and end.path_t is not None:
        trajectory = Trajectory(problem, t0, loop.point, end, loop.record, result.t, unravel)
        result = result if ts is None else result._replace(ys=trajectory.states(ts))
    h = loop.h if loop.natural is None else jnp.maximum(loop.h, loop.natural)
    done = jnp.zeros(0, t0.dtype) if due is None else due.after((result.event == on_time) & (on_time >= 0))
    return result, After(loop.search.event_state.side, still_pending(loop.search), freeze(h), done), trajectory


def _end(problem: Problem, t0: Scalar, y0: Vector, *, forward: bool, keep_path: bool) -> tuple[LoopState, End]:
    """The LoopState of a phase to a differentiable last point, and the End with the path to it."""
    execution = problem.execution
    rows = most_attempts(problem.max_steps, bool(problem.events))
    stepped = problem if forward else freeze(problem)
    arrays, static = eqx.partition(stepped, eqx.is_array)

    def run(arrays, t0, y0):
        problem = eqx.combine(arrays, static)
        jumps, stages = bool(problem.landings.jumps), problem.stepper.number_of_stages
        record = blank(y0, rows, execution.stride, stages, jumps) if keep_path or not forward else None
        return advance(problem, begin(problem, problem.stepper.point(t0, y0), record))

    compiled = compile_small(run, y0.size * y0.dtype.itemsize) if execution.single_program else run
    run = functools.partial(compiled, arrays)
    if forward:
        loop = run(t0, y0)
        path = (loop.record.t, loop.record.y) if loop.record is not None else ()
        return loop, End(loop.point.t, loop.point.y, *path)
    loop = freeze(run(freeze(t0), freeze(y0)))
    end = replay(
        problem.stepper,
        t0,
        y0,
        loop.record,
        loop.point.t,
        loop.point.y,
        keep_path=keep_path,
        execution=execution,
        jumps=problem.landings.jumps,
        direction=problem.direction,
    )
    point = problem.stepper.point(end.t, end.y)
    if loop.jump is not None:
        behind = jnp.where(ahead(problem, loop), loop.jump, NONE)
        point = over(problem.stepper, end.t, end.y, problem.landings.jumps, behind, problem.direction)
    return loop._replace(point=point), end


def _result(
    phase: Phase, problem: Problem, unravel, loop: LoopState, valid: Flag | None, on_time: Count
) -> PhaseResult:
    """The result at the end of the loop, at its event or at the point reached, without states in between.

    Nothing but a status if times and options are not `valid`; None says that they are. `on_time` is the index of the
    event at a known time that was reached, -1 for none.
    """
    point, search, status = loop.point, loop.search, loop.status
    event = on_time
    next_y = unravel(point.y)
    events, indices = phase.numbered(Event)
    if events:
        happened = search.stage == Stage.FOUND
        happened = happened if valid is None else happened & valid
        end = event_point(problem.stepper, events, point, search, happened, problem.t1, problem.direction)
        event = jnp.where(happened, jnp.array(indices)[search.event], event)
        status = jnp.where(happened & search.grazing, Status.GRAZING, status)
        # The points of the loop were looked at when they were reached.
        status = jnp.where((status == Status.FINISHED) & happened & ~all_finite(end), Status.NON_FINITE, status)
    else:
        end = end_point(problem.stepper, point, problem.t1)
    if problem.landings.jumps:
        # The last step stopped just before a jump at the final time.
        arrived = ~ahead(problem, loop) & (loop.status == Status.FINISHED) & (search.stage != Stage.FOUND)
        left = jnp.where(arrived, freeze(problem.t1 - end.t), 0.0)
        end = end._replace(t=end.t + left, y=end.y + left * freeze(end.slope))
        next_y = unravel(end.y)
    if phase.events:
        happened = event >= 0 if valid is None else (event >= 0) & valid
        event = jnp.where(happened, event, -1)
        next_y = defined(happened, _reset(phase.events, jnp.maximum(event, 0), end, unravel, problem.stepper.args))
        status = jnp.where((status == Status.FINISHED) & ~happened, Status.EVENT_NOT_FOUND, status)
    if valid is not None:
        t, y = defined(valid, (end.t, end.y))
        end = end._replace(t=t, y=y)
        status = jnp.where(valid, status, Status.INVALID_INPUT)
    here, direction = freeze(end), problem.direction
    h = direction * (here.t - freeze(point.t))
    lowest = freeze(next_limit_state(phase.limits, loop.limit_state, here, h, problem.stepper.args, direction).lowest)
    return PhaseResult(end.t, unravel(end.y), next_y, event, status, loop.attempts, lowest, None)


def _reset(events: tuple[Event | TimeEvent, ...], event, end: Point, unravel, args) -> State:
    resets = [g.reset if g.reset is not None else (lambda t, y, args: unravel(y)) for g in events]
    if len(resets) == 1:
        return resets[0](end.t, end.y, args)
    return lax.switch(event, [lambda p, r=r: r(p.t, p.y, args) for r in resets], end)


def _states_at(trajectory: Trajectory, ts) -> Float[Array, "times n"]:
    """The states at `ts` as vectors, by one shortened step each."""
    problem, t0, point, end, record, t_end, _ = trajectory
    path_t, path_y = end.path_t, end.path_y
    assert path_t is not None
    assert path_y is not None
    direction, stepper, jumps = problem.direction, problem.stepper, problem.landings.jumps
    times = jnp.where(jnp.arange(record.t.shape[0]) < record.attempts, direction * record.t, jnp.inf)
    row = jnp.searchsorted(lax.stop_gradient(times), lax.stop_gradient(direction * ts), side="right") - 1

    def state(row, t):
        after, has_started = (direction * (t - point.t) >= 0) | (record.attempts == 0), direction * (t - t0) >= 0
        # A phase that begins at a jump has its first step behind it.
        is_first, row = row < 0, jnp.maximum(row, 0)
        start_t, start_y = path_t[row], path_y[row]
        if record.jump is not None:
            index = jnp.where(is_first, NONE, record.jump[row])
            start_t, start_y, _ = over(stepper, start_t, start_y, jumps, index, direction)
        start_t, start_y = jnp.where(after, point.t, start_t), jnp.where(after, point.y, start_y)
        inside = (direction * (t_end - t) >= 0) & has_started | (t == t_end)
        h = t - start_t
        if record.jump is not None:
            # At a jump it is the state before it, to which the field behind it does not contribute.
            on = jnp.where(is_ahead(problem, point.t), jnp.inf, 0.0)
            longest = lax.stop_gradient(jnp.where(after, on, direction * record.h[row]))
            h = h + lax.stop_gradient(direction * jnp.clip(direction * h, 0.0, longest) - h)
        h = jnp.where(inside, h, 0.0)
        end, _ = stepper.step(stepper.point(start_t, start_y), h)
        # Constant steps go on from a state that is infinite.
        return defined(inside & all_finite(end.y), end.y)

    return jax.vmap(state)(row, ts)


def _vector_phase(phase: Phase, t0, y0: Vector, unravel: Callable, args) -> Phase:
    """The phase for states as one vector, and with what its functions close over as arguments.

    One vector in place of many small arrays makes the loops over steps several times smaller to compile, and faster.
    """

    def explicit(function):
        return Traced.of(lambda t, y, args: function(t, unravel(y), args), t0, y0, args)

    def event(g):
        reset = None if g.reset is None else explicit(g.reset)
        return (
            TimeEvent(g.times, reset, g.to)
            if isinstance(g, TimeEvent)
            else Event(explicit(g.function), g.direction, reset, g.to)
        )

    events = tuple(map(event, phase.events))
    field = on_vectors(phase.field, t0, y0, unravel, args)
    return Phase(field, events, tuple(explicit(limit) for limit in phase.limits))
