"""Hybrid systems: phases joined by events and resets, chained or repeated."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._errors import InputError
from .._jax.traced_function import is_traced
from .._types import Args, Count, Scalar, State, StateLike
from ..autodiff.nan_unless import defined
from .choose_execution import is_fixed
from .events import Event, Past, Phase, check_phases, traced_phases
from .options import check_options, check_time, chosen_controller, direction_of
from .phase import differentiated
from .solve_phase import CONTROLLER, SOLVER, solve_phase
from .status import Status
from .time_events import TimeEvent
from .validate import check_state


class HybridResult(NamedTuple):
    """The events of a hybrid system, at most `max_events`, and its end.

    `event_t`, `event_y` (before the reset), `event_index` and `event_phase` have a leading axis of `max_events`; rows
    from `num_events` on contain NaN and -1. `t`, `y`, `phase` and `status` are those at the end. `ys` are the states at
    the times asked for (at an event: after its reset), NaN after the end; None if none were asked for.

    Examples:
        >>> floor = ds.Event(lambda t, y, g: y[0], "falling", reset=lambda t, y, g: y * jnp.array([1.0, -0.5]), to=0)
        >>> ball = ds.Phase(lambda t, y, g: jnp.stack([y[1], -g]), floor)
        >>> result = ds.integrate_hybrid(ball, jnp.array([5.0, 0.0]), jnp.array(10.0), t1=1.5, max_events=2)
        >>> print(f"{result.event_t[0]:.3f} s at {result.event_y[0, 1]:.3f} m/s, {result.y[0]:.3f} m at the end")
        1.000 s at -10.000 m/s, 1.250 m at the end
        >>> int(result.num_events), ds.Status(int(result.status)).name
        (1, 'FINISHED')
    """

    event_t: Float[Array, " events"]
    event_y: State
    event_index: Int[Array, " events"]
    event_phase: Int[Array, " events"]
    num_events: Count
    t: Scalar
    y: State
    phase: Count
    status: Count
    ys: State | None


def integrate_hybrid(
    phases: Phase | Sequence[Phase],
    y0: StateLike,
    args: Args = None,
    *,
    t1,
    t0=0.0,
    initial_phase: int = 0,
    max_events: int = 32,
    ts: Real[ArrayLike, " times"] | None = None,
    **options,
) -> HybridResult:
    """Returns the events and the end of a system that switches between `phases`.

    An event's `to` names the phase after it, None ends the trajectory; its `reset` gives the state there. All phases
    share the structure of `y0`: for phases with states of their own, chain `integrate_phase`. One compiled phase serves
    all events, so the compile time does not depend on how many there are. Derivatives work in every mode.

    Events at one time happen one after another, in the order in which a phase lists them: after each reset, an event
    whose function is zero and was on its way across before the reset happens at once. The event that happened last does
    not happen again before its function has left zero. Derivatives are those of that order. The step before an event
    is the first to be tried after it.

    Args:
        phases: The phases, or a single one.
        y0: The state at `t0`, any pytree of real arrays of one number format.
        args: What the phases' functions take as their third argument.
        t0, t1: First and last time; time runs backward if `t1` lies before `t0`.
        initial_phase: The index of the first phase.
        max_events: The most events; their rows are there whether they happen or not.
        ts: Times at which states are wanted too (`HybridResult.ys`).
        **options: Those of `integrate_phase`: `solver`, `stepsize_controller`, `rtol`, `atol`, `dt0`, `max_steps` (of
            each phase), `mode`, `memory`.

    Returns:
        Events and end. The status is FINISHED at `t1` or at an event that ends the trajectory, EVENT_LIMIT if
        `max_events` came first, GRAZING where events pile up at one time, or as in `integrate_phase`.

    Raises:
        InputError: For what is no phase, an index of a phase that is not there, and as in `integrate_phase`.

    Examples:
        >>> floor = ds.Event(lambda t, y, g: y[0], "falling", reset=lambda t, y, g: y * jnp.array([1.0, -0.5]), to=0)
        >>> ball = ds.Phase(lambda t, y, g: jnp.stack([y[1], -g]), floor)
        >>> result = ds.integrate_hybrid(ball, jnp.array([5.0, 0.0]), jnp.array(10.0), t1=2.4, max_events=4)
        >>> print(result.event_t.round(6), int(result.num_events))  # fall of 1 s, flight of 1 s
        [ 1.  2. nan nan] 2
    """
    if not isinstance(phases, Phase | Sequence):
        check_phases([phases])
    several = (phases,) if isinstance(phases, Phase) else tuple(phases)
    check_phases(several)
    _check_targets(several, initial_phase)
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    check_time("t0", t0, dtype)
    check_time("t1", t1, dtype)
    direction = direction_of(t0, t1)
    tolerances = options.pop("rtol", None), options.pop("atol", None)
    solver, dt0 = options.get("solver", SOLVER), options.get("dt0")
    controller = chosen_controller(
        options.get("stepsize_controller", CONTROLLER), CONTROLLER, *tolerances, solver, dt0, dtype
    )
    options["stepsize_controller"] = controller
    check_options(controller, dt0, options.get("max_steps", 1), dtype)
    t0, t1, ts = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), None if ts is None else jnp.asarray(ts, dtype)
    if dt0 is not None:
        options["dt0"] = jnp.asarray(dt0, dtype)
    watched = _Watched.of(several)
    several, args, options["signals"] = traced_phases(several, t0, t1, y0, args)
    run = _run if is_traced() else _compiled
    return run(several, watched, y0, args, t0, t1, ts, direction, initial_phase, max_events, options)


def _run(
    phases, watched: "_Watched", y0: State, args, t0, t1, ts, direction, first, max_events, options
) -> HybridResult:
    """The events and the end of a system whose functions have been traced."""

    def run(inputs, **mode):
        return _events(inputs, watched, first, max_events, mode)

    inputs = phases, y0, args, t0, t1, ts, direction, options
    return differentiated(run, inputs, options.get("mode", "auto"), options.get("memory", "auto"))


def _events(inputs: tuple, watched: "_Watched", first, max_events, mode: dict) -> HybridResult:
    """The events and the end of a system in one mode."""
    phases, y0, args, t0, t1, ts, direction, options = inputs
    options = options | mode
    dtype = t0.dtype
    blank = jax.tree.map(lambda x: jnp.full((ts.shape[0], *x.shape), jnp.nan), y0) if ts is not None else None
    sides, done = jnp.zeros(watched.functions, dtype), jnp.full(watched.clocks, -direction * jnp.inf, dtype)
    before = _Before(
        sides, jnp.zeros(watched.functions, bool), jnp.array(-1), jnp.array(-1), jnp.full((), jnp.nan, dtype), done
    )
    pile = jnp.zeros((len(phases), max(1, *(len(phase.events) for phase in phases))), bool)
    over, status = jnp.array(False), jnp.array(Status.FINISHED)
    start = _Stage(t0, y0, jnp.array(first), jnp.array(0), over, status, blank, before, pile)

    def next_event(stage, _):
        run = lambda s: _pass(phases, watched, s, args, t1, ts, direction, options)
        return lax.cond(stage.over, _rest, run, stage)

    end, (t, y, event, phase) = lax.scan(jax.checkpoint(next_event), start, length=max_events)
    status = jnp.where(end.over, end.status, Status.EVENT_LIMIT)
    happened = jnp.arange(max_events) < end.num_events
    ys = None
    if ts is not None:
        ys = jax.tree.map(lambda x: defined(_each(jnp.isfinite(x)), x), end.ys)
    event_t, event_y = defined(happened, (t, y))
    return HybridResult(event_t, event_y, event, phase, end.num_events, end.t, end.y, end.phase, status, ys)


_compiled = eqx.filter_jit(_run)


class _Watched(NamedTuple):
    """The events' functions of all phases, each counted once: for each phase, their numbers in the order of its events.

    So that the side a function was on is known in the next phase too, if that watches it. `times` has the same of
    events at known times, and `indices` the place of each other event among all of its phase.
    """

    numbers: tuple[tuple[int, ...], ...]
    times: tuple[tuple[int, ...], ...]
    indices: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, phases: Sequence[Phase]) -> "_Watched":
        numbers = _numbered([[g.function for g in p.numbered(Event)[0]] for p in phases])
        times = _numbered([[g.times for g in p.numbered(TimeEvent)[0]] for p in phases])
        return cls(numbers, times, tuple(p.numbered(Event)[1] for p in phases))

    @property
    def functions(self) -> int:
        """How many functions there are."""
        return 1 + max((n for numbers in self.numbers for n in numbers), default=0)

    @property
    def clocks(self) -> int:
        """How many different known times there are."""
        return 1 + max((n for numbers in self.times for n in numbers), default=0)


def _numbered(functions: list[list]) -> tuple[tuple[int, ...], ...]:
    """The number of each function, which is the same for those that are the same object."""
    distinct: list = []
    for function in (function for some in functions for function in some):
        if not any(function is other for other in distinct):
            distinct.append(function)
    number = lambda function: next(i for i, other in enumerate(distinct) if other is function)
    return tuple(tuple(map(number, some)) for some in functions)


class _Before(NamedTuple):
    """What a phase needs from the one before: the side of each function (0: not known), what happened, and the step.

    `pending` are the functions that a jump has brought across zero and whose events have not happened yet. `done` are
    the times up to which events at known times have happened.
    """

    side: Float[Array, " functions"]
    pending: Bool[Array, " functions"]
    phase: Count
    event: Count
    h: Scalar
    done: Float[Array, " clocks"]


class _Stage(NamedTuple):
    t: Scalar
    y: State
    phase: Count
    num_events: Count
    over: Array
    status: Count
    ys: State | None
    before: _Before
    pile: Bool[Array, "phases events"]  # the events that have fired at the present time


def _rest(stage: _Stage):
    """Nothing more happens after the end."""
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), (stage.t, stage.y))
    return stage, (*nowhere, jnp.array(-1), jnp.array(-1))


def _past(phases, watched: _Watched, index: int, before: _Before) -> Past:
    """The past of the events of the phase `index`.

    Where another phase watched the function that fired, its crossing is over.
    """
    numbers = np.array(watched.numbers[index], int)
    fired = jnp.zeros(len(numbers), bool)
    for other, theirs in enumerate(watched.numbers):
        for place, number in enumerate(theirs):
            same = np.arange(len(numbers)) == place if other == index else numbers == number
            event = watched.indices[other][place]
            fired |= same & (before.phase == other) & (before.event == event)
    return Past(before.side[numbers], fired, before.pending[numbers] & ~fired)


def _pass(phases, watched: _Watched, stage: _Stage, args, t1, ts, direction, options):
    """The stage after the phase at hand has run to its event or to the end, and the record of the event."""

    def run(index, stage):
        phase, before = phases[index], stage.before
        past = _past(phases, watched, index, before) if watched.numbers[index] else None
        clocks = np.array(watched.times[index], int)
        hint = before.h if options.get("dt0") is None and not is_fixed(options["stepsize_controller"]) else None
        result, after, _ = solve_phase(
            phase,
            stage.t,
            stage.y,
            args,
            t1,
            ts,
            direction=direction,
            past=past,
            hint=hint,
            done=before.done[clocks],
            **options,
        )
        to = jnp.array([-1 if g.to is None else g.to for g in phase.events] or [-1])
        side = jnp.zeros_like(before.side).at[np.array(watched.numbers[index], int)].set(after.side)
        pending = jnp.zeros_like(before.pending).at[np.array(watched.numbers[index], int)].set(after.pending)
        done = before.done.at[clocks].set(after.done)
        before = _Before(side, pending, stage.phase, result.event, after.h, done)
        return result, jnp.where(result.event >= 0, to[result.event], -1), before

    result, to, before = lax.switch(stage.phase, [lambda s, i=i: run(i, s) for i in range(len(phases))], stage)
    fired = result.event >= 0
    failed = (result.status != Status.FINISHED) & (result.status != Status.EVENT_NOT_FOUND)
    # Events nearer to each other than time can tell apart pile up; there is no next one to find.
    near = direction * (result.t - stage.t) <= 64 * jnp.finfo(result.t.dtype).eps * jnp.abs(result.t)
    here = stage.phase, result.event
    pile = stage.pile & near
    piled = fired & pile[here] & (stage.num_events > 0)
    pile = pile.at[here].set(fired)
    go_on = fired & (to >= 0) & ~failed & ~piled
    y = jax.tree.map(lambda new, old: jnp.where(fired, new, old), result.next_y, result.y)
    ys = stage.ys
    if ts is not None:
        has_started = direction * (ts - stage.t) >= 0
        ys = jax.tree.map(lambda new, old: jnp.where(_rows(has_started, new), new, old), result.ys, ys)
    status = jnp.where(failed, result.status, jnp.where(piled, Status.GRAZING, Status.FINISHED))
    phase = jnp.where(go_on, to, stage.phase)
    after = _Stage(result.t, y, phase, stage.num_events + fired, ~go_on, status, ys, before, pile)
    seen = jax.tree.map(lambda x: jnp.where(fired, x, jnp.nan), (result.t, result.y))
    return after, (*seen, result.event, jnp.where(fired, stage.phase, -1))


def _each(flags):
    """Whether all numbers of each row are so."""
    return jnp.all(flags, axis=tuple(range(1, flags.ndim)))


def _rows(flags, like):
    return flags.reshape(flags.shape + (1,) * (like.ndim - 1))


def _check_targets(phases, first):
    if not phases:
        raise InputError("phases is empty: give at least one Phase")
    for name, target in [("initial_phase", first), *(("Event.to", g.to) for p in phases for g in p.events)]:
        if target is not None and not 0 <= target < len(phases):
            raise InputError(f"{name}={target}: there are {len(phases)} phases, numbered from 0")
