"""Phases and events, the parts of a hybrid system, and the signs by which a crossing shows within a step."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._errors import InputError
from .._jax.traced_function import Traced, as_arrays
from .._types import Args, Flag, Scalar
from ..signals.jump_times import JumpTimes, Sources, scale_of
from ..signals.signal import cubic
from .runge_kutta import Point
from .time_events import TimeEvent, as_jump_times, check_times

_DIRECTIONS = {"rising": -1.0, "falling": 1.0, "both": 0.0}


class Event(eqx.Module):
    """An event: the zero crossing of `function(t, y, args)`, a smooth real number.

    A function that is zero at the start of a phase and moves in the event's direction crosses there and then. With
    direction "both" it has to come from a side that is known: in `integrate_hybrid`, from the phase before.

    A function that is not a polynomial of time and state, such as the difference from a sine of the time, is also
    evaluated at three times within each step. Steps over which it changes too much are shortened, unless the controller
    takes constant steps.

    Good values: a function as smooth as the state (velocity components rather than their angle). Breaks when: it
    returns a boolean, or crosses zero and returns in much less than a step at one place only, as a narrow pulse does;
    then give the controller a `dtmax`.

    Args:
        function: `function(t, y, args)`.
        direction: The way the function crosses zero: "rising", "falling" or "both".
        reset: `reset(t, y, args)` returns the state with which the next phase starts; by default it is unchanged.
        to: The index of the next phase in `integrate_hybrid`; None ends the trajectory.

    Raises:
        InputError: For another direction.

    Examples:
        >>> floor = ds.Event(lambda t, y, g: y[0], "falling")
        >>> ball = ds.Phase(lambda t, y, g: jnp.stack([y[1], -g]), floor)
        >>> end = ds.integrate_phase(ball, 0.0, jnp.array([5.0, 0.0]), jnp.array(10.0), t1=3.0)
        >>> print(f"{end.t:.6f}")  # sqrt(2 height / g)
        1.000000
    """

    function: Callable
    direction: Literal["rising", "falling", "both"] = eqx.field(static=True, default="both")
    reset: Callable | None = None
    to: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.direction not in _DIRECTIONS:
            raise InputError(f"direction={self.direction!r} of an Event: use one of {', '.join(_DIRECTIONS)}")


class Phase(eqx.Module):
    """One vector field, in force until one of its events is crossed.

    Args:
        field: `field(t, y, args)` returns dy/dt.
        events: The events, at zero crossings (`Event`) or at known times (`TimeEvent`), or a single one.
        limits: Real functions of (t, y, args) that should stay positive while the phase lasts, as a rope's tension
            should; they do not act on it, but the least value of each is reported. A single one needs no tuple.

    Raises:
        InputError: For events that are none.

    Examples:
        >>> half = ds.Event(lambda t, y, rate: y - 0.5, "falling")
        >>> decay = ds.Phase(lambda t, y, rate: -rate * y, half, limits=lambda t, y, rate: y)
        >>> end = ds.integrate_phase(decay, 0.0, 1.0, 1.0, t1=9.0)
        >>> print(f"{end.t:.6f} {end.lowest[0]:.6f}")  # log(2), 1/2
        0.693147 0.500000
    """

    field: Callable
    events: tuple[Event | TimeEvent, ...] = eqx.field(
        default=(), converter=lambda x: (x,) if isinstance(x, Event | TimeEvent) else tuple(x)
    )
    limits: tuple[Callable, ...] = eqx.field(default=(), converter=lambda x: (x,) if callable(x) else tuple(x))

    def __check_init__(self):
        for event in self.events:
            if not isinstance(event, Event | TimeEvent):
                raise InputError(f"events has a {type(event).__name__}: give diffsim.Event(function, direction)")

    def numbered(self, kind: type) -> tuple[tuple, tuple[int, ...]]:
        """The events of one kind, and the index of each among all of them."""
        indices = tuple(i for i, event in enumerate(self.events) if isinstance(event, kind))
        return tuple(self.events[i] for i in indices), indices


def check_phases(phases: Sequence[Phase]) -> None:
    """Raises InputError for what is no phase."""
    for phase in phases:
        if not isinstance(phase, Phase):
            kind = "function" if callable(phase) else type(phase).__name__
            raise InputError(f"a phase is a {kind}: give diffsim.Phase(vector_field, events)")


class Signals(NamedTuple):
    """Functions of (t, y, args) that return the jumps of the signals that a phase's functions evaluate, and the `scale`
    of the solve that these were traced for."""

    jumps: tuple[Callable, ...]
    scale: Scalar

    def all(self, t: Scalar, y, args: Args) -> dict[int, JumpTimes]:
        """The jumps by the number of their source."""
        return functools.reduce(operator.or_, (jumps(t, y, args) for jumps in self.jumps), {})


def traced_phases(
    phases: Sequence[Phase], t: Scalar, t1: Scalar, y, args: Args
) -> tuple[tuple[Phase, ...], Args, Signals]:
    """The phases with each of their functions traced as it is now for a solve from `t` to `t1`, the arguments with
    their floats as arrays, and the signals that the functions evaluate.

    Floats by which a function decides what to do remain Python's.
    """
    check_times([g for p in phases for g in p.numbered(TimeEvent)[0]], args)

    scale = scale_of(t, t1)

    def convert(args, scale):
        sources, jumps = Sources(scale), []

        def explicit(function):
            traced, found = _with_jumps(function, sources, t, y, args)
            jumps.extend([] if found is None else [found])
            return traced

        def event(g):
            reset = g.reset and explicit(g.reset)
            if isinstance(g, TimeEvent):
                return TimeEvent(Traced.of(lambda args: as_jump_times(g.times(args), t.dtype), args), reset, g.to)
            return Event(explicit(g.function), g.direction, reset, g.to)

        converted = tuple(
            Phase(explicit(p.field), tuple(map(event, p.events)), tuple(map(explicit, p.limits))) for p in phases
        )
        return converted, args, Signals(tuple(jumps), scale)

    def convert_twice(args):
        # The edges of a clock are sums, whose rounding is known once the clock is.
        phases, args, signals = convert(args, scale)
        scales = [x.scale for x in signals.all(t, y, args).values() if x.period is not None]
        if not scales:
            return phases, args, signals
        return convert(args, functools.reduce(jnp.maximum, scales, scale))

    arrays = as_arrays(args)
    try:
        return convert_twice(arrays)
    except TypeError:
        if not any(isinstance(x, float) for x in jax.tree.leaves(args)):
            raise
        return convert_twice(args)


def jumps_of(function: Callable, t: Scalar, y, args: Args) -> dict[int, JumpTimes]:
    """The jumps of the signals that a function of (t, y, args) evaluates, by the number of their source."""
    _, jumps = _with_jumps(function, Sources(), t, y, args)
    return {} if jumps is None else jumps(t, y, args)


def _with_jumps(function: Callable, sources: Sources, t: Scalar, y, args: Args) -> tuple[Traced, Traced | None]:
    """The function, traced, and the function of the jumps of the signals that it evaluates; None if there are none."""
    count = 0

    def both(t, y, args):
        nonlocal count
        with sources.tracing((t, y, args)) as seen:
            value = function(t, y, args)
            count = len(seen)
            # Not before: a function may have evaluated them within a transformation of its own.
            return value, {number: source.jumps for number, source in seen.items()}

    traced, jumps = Traced.pair_of(both, t, y, args)
    return traced, jumps if count else None


class EventState(NamedTuple):
    """What the events of a phase show at one point: their values, rates (per second of progress) and sides.

    A side is the sign an event has had since its last crossing, so that a point on the event has one too.
    """

    value: Float[Array, " events"]
    rate: Float[Array, " events"]
    side: Float[Array, " events"]


class LimitState(NamedTuple):
    """The limits of a phase at one point, their rates, and the least value of each so far."""

    value: Float[Array, " limits"]
    rate: Float[Array, " limits"]
    lowest: Float[Array, " limits"]


def wanted_sides(events: tuple[Event, ...]) -> Float[Array, " events"]:
    """The side from which each event's crossing counts; 0 where both count."""
    return jnp.array([_DIRECTIONS[event.direction] for event in events])


def values(functions: tuple[Callable, ...], t: Scalar, y, args: Args) -> Float[Array, " functions"]:
    """Values of one or more functions of (t, y, args)."""
    return jnp.stack([_real(function, t, y, args) for function in functions])


def measure(functions: tuple[Callable, ...], point: Point, args: Args):
    """Values and rates (per second) of functions of (t, y, args) at a point: two arrays of shape (functions,)."""
    if not functions:
        nothing = jnp.zeros(0, point.t.dtype)
        return nothing, nothing
    tangents = (jnp.ones_like(point.t), point.slope)
    return jax.jvp(lambda t, y: values(functions, t, y, args), (point.t, point.y), tangents)


def _real(function: Callable, t: Scalar, y, args: Args) -> Scalar:
    value = jnp.asarray(function(t, y, args))
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(
            f"an event or limit returned {value.dtype} of shape {value.shape}; it must return one real number "
            "whose zero is the event (for `x > 3` write `x - 3`)"
        )
    return value


def functions(events: tuple[Event, ...]) -> tuple[Callable, ...]:
    """The events' functions, for `measure`."""
    return tuple(event.function for event in events)


class Past(NamedTuple):
    """What came before a phase: the side on which each of its events was (0: not known), and which one has fired.

    The `pending` ones were brought across zero by a jump at the phase's start, and have not happened yet.
    """

    side: Float[Array, " events"]
    fired: Bool[Array, " events"]
    pending: Bool[Array, " events"]

    @classmethod
    def unknown(cls, events: tuple[Event, ...], dtype) -> "Past":
        """Nothing is known of what came before."""
        nothing = jnp.zeros(len(events), bool)
        return cls(jnp.zeros(len(events), dtype), nothing, nothing)


def first_event_state(
    events, start: Point, h: Scalar, args: Args, direction, past: Past, earlier: Point | None = None
) -> tuple[EventState, Bool[Array, "..."], Bool[Array, "..."]]:
    """The events at the start of a phase, which of them cross there and then, and which because of a jump.

    The point `earlier` has the same state before what jumps at the start.

    "At zero" means within sqrt(eps) of a step `h`. An event at zero that has just fired is on the side it is moving to,
    so that it does not fire again. Any other was on the side of its `past`; where that is not known, on the side from
    which its crossing counts if it is crossing. One that rests at zero is there too: to leave it is to cross it.
    """
    value, rate = measure(functions(events), start, args)
    rate = direction * rate
    wanted = wanted_sides(events).astype(value.dtype)
    at_zero = jnp.abs(value) <= jnp.sqrt(jnp.finfo(value.dtype).eps) * jnp.abs(rate * h)
    going = jnp.where(rate == 0, wanted, jnp.sign(rate))
    before = jnp.where(past.side != 0, past.side, jnp.where(going == -wanted, wanted, going))
    before = jnp.where(past.fired | (rate == 0), going, before)
    side = jnp.where(at_zero, before, jnp.sign(value))
    crosses = at_zero & (side * rate < 0) & crossed(side, value, wanted)
    pending, from_side = past.pending, past.side
    if earlier is not None and events:
        from_value = values(functions(events), earlier.t, earlier.y, args)
        pending |= (past.side * from_value > 0) & (from_value * value < 0)
    at_jump = pending & ~at_zero & (from_side * value < 0) & crossed(from_side, value, wanted)
    # One that has crossed and not happened is still on its side.
    side = jnp.where(at_jump, from_side, side)
    return EventState(value, rate, side), crosses | at_jump, at_jump


def next_event_state(events: tuple[Event, ...], point: Point, args: Args, direction) -> EventState:
    """The events at a later point."""
    value, rate = measure(functions(events), point, args)
    rate = direction * rate
    return EventState(value, rate, jnp.where(value == 0, jnp.sign(rate), jnp.sign(value)))


class Samples(NamedTuple):
    """What the events show between the ends of a stretch of a step: times from the step's start, values, agreement.

    `error` is the largest difference of a value from the cubic through values and rates at both ends of the stretch,
    as a fraction of the event's largest value.
    """

    time: Float[Array, " samples"]
    value: Float[Array, "samples events"]
    error: Scalar


_FRACTIONS = (0.21, 0.47, 0.83)  # of a stretch, in no ratio of small numbers


def sample(
    events: tuple[Event, ...], start: Point, end: Point, span: Scalar, low: Scalar, states: tuple, args, direction
) -> Samples:
    """The events between `low` and `span`, times from the step's `start` to its `end` a time `span` later.

    `states` are the events' states at both times. The path between is the cubic through both ends of the step.
    """
    before, after = states
    fractions = jnp.array(_FRACTIONS, span.dtype)
    times = low + fractions * (span - low)

    def look(time):
        y = cubic(time / span, start.y, direction * span * start.slope, end.y, direction * span * end.slope)
        return values(functions(events), start.t + direction * time, y, args)

    value, width = jax.vmap(look)(times), span - low
    guess = jax.vmap(lambda s: cubic(s, before.value, width * before.rate, after.value, width * after.rate))(fractions)
    # A value that is not finite, as beyond the domain of the event, tells nothing.
    finite = lambda x: jnp.where(jnp.isfinite(x), jnp.abs(x), 0.0)
    size = jnp.maximum(finite(before.value), jnp.maximum(finite(after.value), jnp.max(finite(value), axis=0)))
    error = jnp.max(finite(value - guess), axis=0)
    return Samples(times, value, jnp.max(jnp.where(size > 0, error / jnp.where(size > 0, size, 1.0), 0.0)))


def first_limit_state(limits, start: Point, args: Args, direction) -> LimitState:
    """The limits at the start of a phase."""
    value, rate = measure(limits, start, args)
    return LimitState(value, direction * rate, value)


def next_limit_state(limits, before: LimitState, point: Point, h: Scalar, args: Args, direction) -> LimitState:
    """The limits at a point a time `h` after the one `before`, with the dips between the two."""
    if not limits:
        return before
    value, rate = measure(limits, point, args)
    rate = direction * rate
    _, dip = extremum(1.0, before.value, before.rate, value, rate, h)
    return LimitState(value, rate, jnp.minimum(before.lowest, jnp.minimum(value, dip)))


def extremum(sign, g0, r0, g1, r1, h):
    """Fraction and value of the interior extremum of the cubic through two ends that makes `sign * g` least.

    `g` are values, `r` rates, `h` the time between. Without an interior extremum: fraction 1/2 and infinity.
    """
    m0, m1, rise = h * r0, h * r1, g1 - g0
    square, cube = 3 * rise - 2 * m0 - m1, m0 + m1 - 2 * rise
    root = jnp.sqrt(jnp.maximum(square**2 - 3 * cube * m0, 0.0))
    # Both roots of m0 + 2 square s + 3 cube s^2, without cancellation.
    q = -(square + jnp.where(square >= 0, root, -root))
    fractions = jnp.stack([_divide(q, 3 * cube), _divide(m0, q)])

    def look(fraction):
        value = cubic(fraction, g0, m0, g1, m1)
        inside = (fraction > 0) & (fraction < 1) & (square**2 > 3 * cube * m0)
        return jnp.where(inside, value, jnp.inf), jnp.where(inside, sign * value, jnp.inf)

    values, signed = jax.vmap(look)(fractions)
    nearest = jnp.argmin(signed, axis=0)[None]
    fraction = jnp.take_along_axis(fractions, nearest, axis=0)[0]
    value = jnp.take_along_axis(values, nearest, axis=0)[0]
    return jnp.where(jnp.isfinite(value), fraction, 0.5), value


def _divide(a, b):
    return jnp.where(b == 0, jnp.inf, a / jnp.where(b == 0, 1.0, b))


def crossed(side, value, wanted) -> Bool[Array, "..."]:
    """Where an event that was on `side` has reached zero or gone beyond, in a direction that counts."""
    return (side * value <= 0) & (side != 0) & ((wanted == 0) | (side == wanted))


def choose(which: Flag, a, b):
    """The numbers of one of two trees of the same structure."""
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), a, b)
