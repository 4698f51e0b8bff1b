"""The search for the earliest event within a step, one look at a time, and the event as a differentiable point."""

import enum
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from .._jax.barrier import barrier
from .._jax.custom_rule import custom_jvp
from .._jax.tangents import freeze, moving_together
from .._types import Count, Flag, Scalar
from .events import Event, EventState, Samples, choose, crossed, extremum, functions, values
from .runge_kutta import Point, Stepper

_LOOKS = 8  # at dips between the ends of a step
_TURNS = 60  # of Newton's method and bisection
_NEAR = 0.02  # of the event's size: a dip that comes so near to zero is looked at
_TOUCH = 1e-10  # of the event's size over the step: at a dip so near to zero it touches
_FLAT = 1e-4  # of the event's size over the step: it is at a dip if slower than that per step
_TOGETHER = 2 / 3  # power of eps, of the step: events nearer than that happen in the order of the events
_GRAZE = 1e-6  # of the event's size over the step: slower than that per step, it grazes


class Stage(enum.IntEnum):
    """What a search is doing: sweeping a step from left to right, closing a bracket; or what it came to."""

    SWEEP = 0
    CLOSE = 1
    CLEAR = 2
    FOUND = 3


class Search(NamedTuple):
    """Where the search within one step stands; times count from the start of the step.

    No event has crossed up to `low`, where they showed `event_state`. The next look is at `time`, that of the event
    once the stage is FOUND.
    """

    stage: Count
    low: Scalar
    event_state: EventState
    time: Scalar
    high: Scalar  # the end of the bracket
    past: Bool[Array, " events"]  # the events that have crossed at `high`
    size: Float[Array, " events"]  # the largest value of each event in this step, without its sign
    looks: Count
    event: Count  # the one whose event it is
    rate: Scalar  # of that event at the last look, per second
    grazing: Flag
    at_jump: Flag  # whether the event jumped across zero, at the start of this step


def fresh(event_state: EventState, h: Scalar) -> Search:
    """The search at the start of a step, before the look at its end."""
    nothing = jnp.zeros(event_state.value.shape, bool)
    none, zero = jnp.array(0), jnp.zeros_like(h)
    size = jnp.abs(event_state.value)
    return Search(
        jnp.array(int(Stage.SWEEP)), zero, event_state, h, h, nothing, size, none, none, zero, *2 * [jnp.array(False)]
    )


def opening(
    event_state: EventState, crosses: Bool[Array, " events"], h: Scalar, at_jump: Bool[Array, " events"]
) -> Search:
    """The search at the start of a step: over at once, with the first of the events, if any cross there.

    Those `at_jump` cross because something that they depend on jumps.
    """
    search = fresh(event_state, h)
    if not crosses.size:
        return search
    event = jnp.argmax(crosses)
    over = search._replace(
        stage=jnp.array(int(Stage.FOUND)),
        time=jnp.zeros_like(h),
        past=crosses & at_jump,
        event=event,
        rate=event_state.rate[event],
        at_jump=at_jump[event],
    )
    return choose(jnp.any(crosses), over, search)


def still_pending(search: Search) -> Bool[Array, " events"]:
    """The events that a jump has brought across zero, without the one that happens."""
    others = jnp.arange(search.past.shape[0]) != search.event
    return search.past & others & (search.stage == Stage.FOUND) & (search.time == 0)


@jax.jit
def look(
    search: Search, here: EventState, h: Scalar, wanted: Float[Array, " events"], samples: Samples | None = None
) -> Search:
    """The search after a look at `search.time`, where the events show `here`, and `samples` before it if there are any.

    The step's length is `h`; crossings count from the sides `wanted`, from either where that is 0. Looks are made at
    the ends of shortened steps of the solver itself. Where the cubic through both ends of a stretch dips towards zero
    in between, the dip is looked at first, so that a double crossing is seen.
    """
    size = jnp.maximum(search.size, jnp.abs(here.value))
    side = search.event_state.side
    sweeping = search.stage == Stage.SWEEP
    touches = sweeping & (jnp.abs(here.value) <= _TOUCH * size) & (jnp.abs(here.rate) * h <= _FLAT * size)
    crossing = crossed(side, jnp.where(touches, 0.0, here.value), wanted)
    dip, time_of_dip = _dip(search, here, _NEAR if samples is None else _NEAR + 2 * samples.error)
    if samples is not None:
        hidden, time = _hidden(search, here, samples)
        dip, time_of_dip = dip | hidden, jnp.minimum(time_of_dip, time)
    dip &= sweeping & (search.looks < _LOOKS)
    closing = ~dip & (~sweeping | jnp.any(crossing))
    # Otherwise all of them are computed again for each number of the search.
    dip, time_of_dip, closing, crossing = barrier(dip, time_of_dip, closing, crossing)
    bracket = _narrow(search._replace(size=size), here, crossing, h)
    clear = jnp.where(search.time < h, Stage.SWEEP, Stage.CLEAR)
    ahead = search._replace(
        stage=jnp.where(dip, Stage.SWEEP, clear),
        low=jnp.where(dip, search.low, search.time),
        event_state=choose(dip, search.event_state, here),
        time=jnp.where(dip, time_of_dip, h),
        size=size,
        looks=search.looks + 1,
    )
    return choose(closing, bracket, ahead)


def _dip(search: Search, here: EventState, margin: Scalar | float) -> tuple[Flag, Scalar]:
    """Whether an event dips towards zero, or beyond it, between `low` and the look at hand, and when first.

    A dip counts if it comes within a `margin` of zero, a fraction of the event's size.
    """
    before, width = search.event_state, search.time - search.low
    fraction, value = extremum(before.side, before.value, before.rate, here.value, here.rate, width)
    scale = jnp.maximum(jnp.abs(before.value), jnp.abs(here.value))
    near = jnp.isfinite(value) & (before.side * value <= margin * scale)
    return jnp.any(near), search.low + width * jnp.min(jnp.where(near, fraction, 1.0))


def _hidden(search: Search, here: EventState, samples: Samples) -> tuple[Flag, Scalar]:
    """Whether an event has crossed zero at a sample and is back at a later one or at the look, and the first such time.

    Without one, the time is that of the look.
    """
    side = search.event_state.side
    signs = side[None] * jnp.concatenate([samples.value, here.value[None]])
    back = lax.cummax((signs > 0).astype(int), reverse=True)[1:] > 0
    hidden = jnp.any((signs[:-1] < 0) & back, axis=1)
    return jnp.any(hidden), jnp.min(jnp.where(hidden, samples.time, search.time))


def _narrow(search: Search, here: EventState, crossing, h: Scalar) -> Search:
    """The bracket after a look within it or at its end: Newton's method, guarded by bisection.

    Of the events that have crossed, the one with the earliest estimate is followed; of several at one time the first.
    """
    some = jnp.any(crossing)
    low, high = jnp.where(some, search.low, search.time), jnp.where(some, search.time, search.high)
    past = jnp.where(some, crossing, search.past)
    # A root at which the event moves back to its side is not the crossing, although it may lie within the bracket.
    is_leaving = search.event_state.side * here.rate < 0
    newton = search.time - here.value / jnp.where(is_leaving, here.rate, jnp.nan)
    inside = past & (newton >= low) & (newton <= high)
    estimates = jnp.where(inside, newton, jnp.where(past, 0.5 * (low + high), jnp.inf))
    tie = jnp.finfo(h.dtype).eps ** _TOGETHER * h
    event = jnp.argmax(estimates <= jnp.min(estimates) + tie)
    event, time = barrier(event, estimates[event])
    # Newton's method squares the error, so that after a change this small only rounding is left.
    closed = jnp.abs(time - search.time) <= jnp.finfo(h.dtype).eps ** (2 / 3) * h
    done = closed | (search.looks >= _TURNS)
    rate = here.rate[event]
    return search._replace(
        stage=jnp.where(done, Stage.FOUND, Stage.CLOSE),
        low=low,
        time=time,
        high=high,
        past=past,
        looks=search.looks + 1,
        event=event,
        rate=rate,
        grazing=jnp.abs(rate) * h <= _GRAZE * search.size[event],
    )


def event_point(
    stepper: Stepper, events: tuple[Event, ...], start: Point, search: Search, happened: Flag, t1: Scalar, direction
) -> Point:
    """The event of a search, its time after `start` a constant, as a differentiable point; or, if none, that at `t1`.

    Time runs in `direction`, 1 or -1. The delay is a root of the event, known from the search; without an event it is
    zero, a root of the time left; where the event jumped, it is none after the jump. Newton's method with a constant
    slope leaves its value as it is and makes one more order of derivatives right with each turn: three of them serve up
    to the third.
    """
    # An event that grazes has no derivative; its status says so, and the value stays finite.
    rate = freeze(jnp.where(happened & (search.rate != 0) & ~search.at_jump, direction * search.rate, 1.0))

    def newton(carry, _):
        delay, _ = carry
        end, _ = stepper._replace(written_out=False).step(start, delay)
        value = values(functions(events), end.t, end.y, stepper.args)
        value = lax.dynamic_index_in_dim(value, search.event, keepdims=False)
        left = jnp.where(happened, jnp.where(search.at_jump, delay, value), end.t - t1)
        return (delay - (left - lax.stop_gradient(left)) / rate, end), None

    delay, *start_values = moving_together([jnp.where(happened, direction * freeze(search.time), 0.0), *start])
    (_, end), _ = lax.scan(newton, (delay, Point(*start_values)), length=4)
    return end


def end_point(stepper: Stepper, point: Point, t1: Scalar) -> Point:
    """The last point of a phase without events, as one that stays at `t1` whatever time its steps began at.

    With their sizes fixed, the steps end later if they begin later. What they are too long or too short by, nothing in
    value, is one more step; it is taken if derivatives in time are asked for.
    """
    moving, rest = eqx.partition((stepper, point, t1), eqx.is_inexact_array)
    fixed, static = eqx.partition(rest, eqx.is_array)

    @custom_jvp
    def constant_point(moving, fixed):
        return moving[1]

    def rule(primals, tangents):
        (_, in_point, in_t1), _ = tangents
        filled = lambda x, like: jnp.zeros_like(like) if isinstance(x, SymbolicZero) else x
        if isinstance(in_point.t, SymbolicZero) and isinstance(in_t1, SymbolicZero):
            return constant_point(*primals), jax.tree.map(filled, in_point, primals[0][1])

        def on(moving):
            stepper, point, t1 = eqx.combine(moving, primals[1], static)
            delay = t1 - point.t
            return stepper.step(point, delay - lax.stop_gradient(delay))[0]

        moving = primals[0]
        _, tangent = jax.jvp(on, (moving,), (jax.tree.map(filled, tangents[0], moving),))
        return constant_point(*primals), tangent

    constant_point.defjvp(rule)
    return constant_point(moving, fixed)
