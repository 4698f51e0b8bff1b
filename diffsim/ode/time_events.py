"""Events at known times: when the next one is due, and which of them have happened."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .._jax.tangents import freeze
from .._jax.tracers import is_tracer
from .._types import Args, Count, Flag, Scalar
from ..signals.jump_times import JumpTimes, unit

_TOGETHER = 4  # units of rounding: nearer times are one


class TimeEvent(eqx.Module):
    """An event at known times, which are reached exactly and without a search, and can be trained.

    A time that is that of the phase's start counts, unless the same event has just happened there.

    Args:
        times: `times(args)` returns a time, an array of times, or the edges of a clock, such as `args.clock.rising`; or
            these themselves.
        reset: `reset(t, y, args)` returns the state with which the next phase starts; by default it is unchanged.
        to: The index of the next phase in `integrate_hybrid`; None ends the trajectory.

    Raises:
        InputError: For times that are not finite real numbers.

    Examples:
        >>> dose = ds.TimeEvent(lambda p: p["times"], reset=lambda t, y, p: y + p["dose"], to=0)
        >>> drug = ds.Phase(lambda t, y, p: -0.5 * y, dose)
        >>> level = lambda times: ds.integrate_hybrid(drug, 0.0, {"times": times, "dose": 10.0}, t1=5.0).y
        >>> times = jnp.array([1.0, 3.0])
        >>> print(f"{level(times):.5f}", jax.grad(level)(times).round(5))  # 10 exp(-2) + 10 exp(-1)
        5.03215 [0.67668 1.8394 ]
    """

    times: Callable = eqx.field(converter=lambda times: times if callable(times) else lambda _: times)
    reset: Callable | None = None
    to: int | None = eqx.field(static=True, default=None)


def as_jump_times(times, dtype) -> JumpTimes:
    """What the times of a TimeEvent are, in increasing order."""
    if isinstance(times, JumpTimes):
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), times)
    return JumpTimes(jnp.sort(jnp.ravel(jnp.asarray(times, dtype))))


def check_times(events: Sequence[TimeEvent], args: Args) -> None:
    """Raises InputError for times of events that are no times, as far as they are known."""
    for event in events:
        times = event.times(args)
        leaves = jax.tree.leaves(times)
        kinds = [jnp.result_type(x) for x in leaves]
        real = [jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer) for kind in kinds]
        if not leaves or not all(real) or not all(jnp.size(x) for x in leaves):
            raise InputError(f"times of a TimeEvent are {times!r:.80}: give a time, an array of times, or clock.rising")
        for x in leaves:
            if not is_tracer(x) and not np.all(np.isfinite(np.asarray(x))):
                raise InputError(f"times of a TimeEvent are {x!r:.80}: give finite times; leave out what never happens")


class Due(NamedTuple):
    """The end of a phase with events at known times: the next of them, or the final time if that comes first.

    `event` is its place among these events, -1 at the final time. `done` are the times up to which each has happened
    before, and `valid` says whether all times are finite.
    """

    t: Scalar
    event: Count
    done: Float[Array, " events"]
    valid: Flag

    def after(self, has_happened: Flag) -> Float[Array, " events"]:
        """The times up to which each has happened at the end of the phase."""
        mine = jnp.arange(self.done.shape[0]) == self.event
        return freeze(jnp.where(has_happened & mine, self.t, self.done))


def next_due(
    events: tuple[TimeEvent, ...],
    t0: Scalar,
    t1: Scalar,
    args: Args,
    direction,
    done: Float[Array, " events"] | None,
    scale: Scalar,
) -> Due:
    """The first time of `events` from `t0` to `t1` that is behind what is `done`; of several at one time the first.

    Times nearer to zero than the `scale` have its rounding.
    """
    done = jnp.full(len(events), -direction * jnp.inf, t0.dtype) if done is None else done
    jumps = [event.times(args) for event in events]
    scale = functools.reduce(jnp.maximum, [x.scale for x in jumps], lax.stop_gradient(scale))
    times = jnp.stack([_first(x, t0, direction, done[i], scale) for i, x in enumerate(jumps)])
    soonest = jnp.min(direction * lax.stop_gradient(times))
    # Times that rounding of their formulas may have parted are one, and happen in the order of the events.
    event = jnp.argmax(direction * times <= soonest + _TOGETHER * unit(soonest, scale))
    is_due = direction * (times[event] - t1) <= _TOGETHER * unit(t1, scale)
    valid = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(jumps)]))
    return Due(jnp.where(is_due, times[event], t1), jnp.where(is_due, event, -1), done, valid)


def _first(jumps: JumpTimes, t0: Scalar, direction, done: Scalar, scale: Scalar) -> Scalar:
    """The first of some times from `t0` on and behind `done`; infinitely far if there is none."""
    _, times = jumps.near(lax.stop_gradient(t0))
    here, tolerance = lax.stop_gradient(times), _TOGETHER * unit(jnp.maximum(jnp.abs(times), jnp.abs(t0)), scale)
    ahead = (direction * (here - t0) >= -tolerance) & ~(direction * (here - done) <= tolerance)
    nearest = jnp.argmin(jnp.where(ahead, direction * here, jnp.inf))
    return jnp.where(jnp.any(ahead), times[nearest], direction * jnp.inf)
