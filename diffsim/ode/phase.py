"""One phase of a hybrid system, up to its earliest event, with a differentiable event time."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._jax.compile_whole import compile_small
from .._jax.tangents import forward_only, freeze
from .._jax.traced_function import Traced, is_traced
from .._types import Args, Count, Flag, Scalar, State, Vector
from ..autodiff.forward_mode import few_or_many
from ..autodiff.nan_unless import defined
from .adaptive_loop import LoopState, advance, ahead, begin, rows
from .event_search import Stage, end_point, event_point
from .events import Event, Past, Phase, check_phases, next_limit_state, traced_phases
from .jump_times import over, unwrapped
from .options import check_options, check_time, chosen_controller, direction_of, sensible
from .replay import End, replay
from .runge_kutta import Point
from .solver_setup import as_vector, on_vectors, stepper, with_plain_norm
from .status import Status
from .tape import Memory, Record, blank, plan
from .trial_step import Problem, all_finite, steady
from .validate import check_field, check_state

Mode = Literal["auto", "replay", "forward"]
FEW = 4
SOLVER = dfx.Tsit5()
CONTROLLER = dfx.PIDController(rtol=1e-8, atol=1e-10)


class PhaseResult(NamedTuple):
    """How a phase ended: at an event, at the final time, or by a failure.

    `t` and `y` are time and state at the end, before any reset; `next_y` is the state after the reset.
    `event` is the index of the event that fired, -1 for none. `ys` are the states at the times asked for, NaN
    outside the phase; None if none were asked for. `lowest` holds the least value of each of the phase's limits
    (a constant for differentiation), `steps` counts attempted steps.
    """

    t: Scalar
    y: State
    next_y: State
    event: Count
    status: Count
    steps: Count
    lowest: Float[Array, " limits"]
    ys: State | None


def integrate_phase(
    phase: Phase,
    t0,
    y0: State,
    args: Args = None,
    *,
    t1,
    ts: Float[Array, " times"] | None = None,
    solver: dfx.AbstractSolver = SOLVER,
    stepsize_controller: dfx.AbstractStepSizeController = CONTROLLER,
    rtol: float | None = None,
    atol: float | None = None,
    dt0=None,
    max_steps: int = 1024,
    mode: Mode = "auto",
    memory: Memory = "auto",
) -> PhaseResult:
    """The end of one phase: the earliest crossing of any of its events from `t0` on, at most `t1`.

    Time runs backward where `t1` lies before `t0`; events then cross in the direction in which they are met.

    The vector field is that of `phase`, `dy/dt = phase.field(t, y, args)`; `y0` is any pytree of real arrays.
    `ts` asks for states at these times. Any diffrax one-step solver and step size controller may be given; `rtol` and
    `atol` are the short form of a PID controller (1e-8 and 1e-10; one of them alone keeps that ratio).

    Event time and state are as accurate as the solution, and so are their derivatives. `grad`, `jacfwd`, `hessian` and
    `vmap` all work. With `mode="replay"` the steps are found and recorded first; the derivative is that of a fixed
    replay of the accepted ones, and reverse mode over reverse mode is refused (`jax.hessian` is forward over reverse).
    `mode="forward"` does all in one pass, for `jvp` and `jacfwd` only; wrapped in `forward_mode` it serves `grad` too.
    "auto" is a replay, but for a phase with events of which at most four numbers are being differentiated: these take
    their tangents along in one pass, which compiles in a third of the time and runs in half of it. A `memory` that is
    named is for a replay. On a CPU the loops over small states are compiled whole. A controller's norm sees the state
    as one vector.

    `memory` says what reverse mode works from: "states" (each is kept, each step taken again), "two_levels" (one state
    in sqrt(max_steps) is kept, each step taken again twice) or "jacobians" (as "states", with the Jacobians of 64
    steps at a time: fast where a step is many operations on few numbers). "auto" takes "states" up to 16 MiB and
    "two_levels" beyond, and "jacobians" for up to 8 numbers if loops are not compiled whole. Stages of an implicit
    method are differentiated as the roots they are; but for "two_levels" their slopes are kept beside each state, and
    nothing is solved for again.

    Status: EVENT_NOT_FOUND if the phase has events and `t1` came first, GRAZING if an event's function only touches
    zero, STEP_LIMIT, NON_FINITE (constant steps continue to `t1` all the same), INVALID_INPUT for times or step sizes
    that make no sense. Raises InputError for an event that is not real, a field that does not return the structure of
    `y0`, and times, steps and tolerances that make no sense where they are known.
    """
    check_phases((phase,))
    direction = direction_of(t0, t1)
    t0, t1, y0, ts = _as_arrays(t0, t1, y0, ts)
    controller = chosen_controller(stepsize_controller, CONTROLLER, rtol, atol, solver, dt0, t0.dtype)
    check_options(controller, dt0, max_steps, t0.dtype)
    (phase,), args = traced_phases((phase,), t0, y0, args)
    dt0 = None if dt0 is None else jnp.asarray(dt0, t0.dtype)
    options = {"solver": solver, "stepsize_controller": controller, "dt0": dt0, "max_steps": max_steps, "mode": mode}
    run = _one_phase if is_traced() else _compiled_phase
    return run(phase, t0, y0, args, t1, ts, direction, options | {"memory": memory})


def _one_phase(phase: Phase, t0, y0: State, args: Args, t1, ts, direction, options) -> PhaseResult:
    """The arrival of a phase whose functions have been traced."""

    def run(inputs, **mode):
        phase, t0, y0, args, t1, ts, direction, options = inputs
        return run_phase(phase, t0, y0, args, t1, ts, direction=direction, **options | mode)[0]

    inputs = phase, t0, y0, args, t1, ts, direction, options
    return differentiated(run, inputs, options["mode"], options["memory"], bool(phase.events))


_compiled_phase = eqx.filter_jit(_one_phase)


def differentiated(run: Callable, inputs: PyTree, mode: Mode, memory: Memory, events: bool = True):
    """`run(inputs, mode=)` in the mode given; of "auto" in that which suits the number of inputs differentiated.

    With a search for events forward mode takes a third of the time to compile, and half of that to run, up to FEW
    numbers; the value alone compiles faster too, as nothing is recorded.
    """
    if mode == "forward":
        return forward_only(run(inputs))
    if mode != "auto" or memory != "auto" or not events:
        return run(inputs)
    run_in = lambda mode: lambda inputs: run(inputs, mode=mode)
    return few_or_many(run_in("forward"), run_in("replay"), inputs, FEW)


class After(NamedTuple):
    """What the phase after an event needs to know: the sides its events were on, and the step that was taken last."""

    side: Float[Array, " events"]
    h: Scalar


def run_phase(
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
    *,
    direction: Scalar | float,
    past: Past | None = None,
    hint: Scalar | None = None,
) -> tuple[PhaseResult, After]:
    """The result of `integrate_phase`, and what the phase after it needs; `past` and `hint` are from the one before."""
    if mode not in get_args(Mode):
        raise InputError(f'mode={mode!r}: use "auto", "replay" or "forward"')
    controller, landings = unwrapped(stepsize_controller, t0.dtype)
    valid = sensible(t0, t1, controller, dt0)
    check_field(phase.field, t0, y0, args)
    y0, unravel = as_vector(y0)
    phase = _vector_phase(phase, t0, y0, unravel, args)
    step = stepper(phase.field, solver, controller, t0, y0, args)
    if mode == "forward" and phase.events:
        # With tangents and a search for events the loop is long to compile, and stages written out gain little.
        step = step._replace(small=False)
    whole = mode != "forward" and not (phase.events or phase.limits) and step.is_light(y0)
    controller = with_plain_norm(controller)
    problem = Problem(step, phase.events, phase.limits, controller, t1, dt0, max_steps, whole, direction, landings)
    problem = problem._replace(past=past, hint=hint)
    loop, end = _end(problem, t0, y0, mode, memory, ts is not None)
    arrival = _arrive(phase, problem, unravel, loop, end, ts, valid)
    h = loop.h if loop.natural is None else jnp.maximum(loop.h, loop.natural)
    return arrival, After(loop.search.event_state.side, freeze(h))


def _end(problem: Problem, t0: Scalar, y0: Vector, mode: Mode, memory: Memory, keep_path: bool):
    """The LoopState of a phase to a differentiable last point, and the End with the path to it."""
    forward = mode == "forward"
    stages = problem.stepper.number_of_stages
    stride, jacobians = plan(memory, y0, rows(problem), stages, keep_path=keep_path, whole=problem.whole)
    stepped = problem if forward else freeze(problem)
    arrays, static = eqx.partition(stepped, eqx.is_array)

    def run(arrays, t0, y0):
        problem = eqx.combine(arrays, static)
        jumps = problem.landings.jumps is not None
        record = blank(y0, rows(problem), stride, stages, jumps) if keep_path or not forward else None
        return advance(problem, begin(problem, problem.stepper.point(t0, y0), record))

    run = functools.partial(compile_small(run, y0.size * y0.dtype.itemsize) if problem.whole else run, arrays)
    if forward:
        loop = run(t0, y0)
        path = (loop.record.t, loop.record.y) if loop.record is not None else ()
        return loop, End(loop.point.t, loop.point.y, *path)
    loop = freeze(run(freeze(t0), freeze(y0)))
    options: dict[str, Any] = {
        "keep_path": keep_path,
        "jacobians": jacobians,
        "whole": problem.whole,
        "steady": steady(problem),
    }
    options |= {"jumps": problem.landings.jumps, "direction": problem.direction}
    end = replay(problem.stepper, t0, y0, loop.record, loop.point.t, loop.point.y, **options)
    point = problem.stepper.point(end.t, end.y)
    if loop.jump is not None:
        behind = jnp.where(ahead(problem, loop), loop.jump, -1)
        point = over(problem.stepper, end.t, end.y, problem.landings.jumps, behind, problem.direction)
    return loop._replace(point=point), end


def _arrive(phase, problem, unravel, loop: LoopState, last: End, ts, valid: Flag | None) -> PhaseResult:
    """The arrival at the end of the loop: at the event found, or at the point reached.

    Nothing but a status if times and options are not `valid`; None says that they are.
    """
    point, search, status = loop.point, loop.search, loop.status
    event = jnp.array(-1)
    next_y = unravel(point.y)
    if phase.events:
        found = search.stage == Stage.FOUND
        found = found if valid is None else found & valid
        end = event_point(problem.stepper, phase.events, point, search, found, problem.t1, problem.direction)
        event = jnp.where(found, search.event, -1)
        next_y = _reset(phase.events, search.event, end, unravel, problem.stepper.args)
        next_y = defined(found, next_y)
        status = jnp.where(found & search.grazing, Status.GRAZING, status)
        status = jnp.where((status == Status.FINISHED) & ~found, Status.EVENT_NOT_FOUND, status)
        # The points of the loop were looked at when they were reached.
        status = jnp.where((status == Status.FINISHED) & ~all_finite(end), Status.NON_FINITE, status)
    else:
        end = end_point(problem.stepper, point, problem.t1)
    if valid is not None:
        t, y = defined(valid, (end.t, end.y))
        end = end._replace(t=t, y=y)
        status = jnp.where(valid, status, Status.INVALID_INPUT)
    ys = None
    if ts is not None and loop.record is not None:
        ys = jax.vmap(unravel)(_states_at(problem, point, last, loop.record, end.t, ts))
    here, direction = freeze(end), problem.direction
    h = direction * (here.t - freeze(point.t))
    lowest = freeze(next_limit_state(phase.limits, loop.limit_state, here, h, problem.stepper.args, direction).lowest)
    return PhaseResult(end.t, unravel(end.y), next_y, event, status, loop.attempts, lowest, ys)


def _reset(events: tuple[Event, ...], event, end: Point, unravel, args) -> State:
    resets = [g.reset if g.reset is not None else (lambda t, y, args: unravel(y)) for g in events]
    if len(resets) == 1:
        return resets[0](end.t, end.y, args)
    return lax.switch(event, [lambda p, r=r: r(p.t, p.y, args) for r in resets], end)


def _states_at(problem: Problem, point: Point, last: End, record: Record, t_end, ts) -> Float[Array, "times n"]:
    """States at `ts` by one shortened step each, so that they are as accurate as the solution itself."""
    path_t, path_y = last.path_t, last.path_y
    assert path_t is not None
    assert path_y is not None
    direction, stepper, jumps = problem.direction, problem.stepper, problem.landings.jumps
    times = jnp.where(jnp.arange(record.t.shape[0]) < record.count, direction * record.t, jnp.inf)
    row = jnp.searchsorted(lax.stop_gradient(times), lax.stop_gradient(direction * ts), side="right") - 1

    def state(row, t):
        after, has_started = direction * (t - point.t) >= 0, row >= 0
        row = jnp.maximum(row, 0)
        start_t, start_y = path_t[row], path_y[row]
        if record.jump is not None:
            start_t, start_y, _ = over(stepper, start_t, start_y, jumps, record.jump[row], direction)
        start_t, start_y = jnp.where(after, point.t, start_t), jnp.where(after, point.y, start_y)
        inside = (direction * (t_end - t) >= 0) & has_started | (t == t_end)
        h = jnp.where(inside, t - start_t, 0.0)
        end, _ = stepper.step(stepper.point(start_t, start_y), h)
        # Constant steps go on from a state that is infinite.
        return defined(inside & all_finite(end.y), end.y)

    return jax.vmap(state)(row, ts)


def _as_arrays(t0, t1, y0, ts):
    """Times and state as arrays of one floating type."""
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    check_time("t0", t0, dtype)
    check_time("t1", t1, dtype)
    ts = None if ts is None else jnp.asarray(ts, dtype)
    return jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), y0, ts


def _vector_phase(phase: Phase, t0, y0: Vector, unravel: Callable, args) -> Phase:
    """The phase for states as one vector, and with whatever its functions close over made explicit.

    One vector in place of many small arrays makes the loops over steps several times smaller to compile, and faster.
    """

    def explicit(function):
        return Traced.of(lambda t, y, args: function(t, unravel(y), args), t0, y0, args)

    events = tuple(
        Event(explicit(g.function), g.direction, None if g.reset is None else explicit(g.reset), g.to)
        for g in phase.events
    )
    field = on_vectors(phase.field, t0, y0, unravel, args)
    return Phase(field, events, tuple(explicit(limit) for limit in phase.limits))
