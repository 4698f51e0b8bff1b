"""Times at which a vector field jumps: steps end just before each and start again after it."""

from typing import Any, NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from .._errors import InputError
from .._jax.tangents import without_derivative
from .._types import Count, Flag, Scalar, Vector
from ..signals.jump_times import JumpTimes, delay, scale_of, unit
from .runge_kutta import Point, Stepper

# In units of eps * |t|: a step ends so far before a jump, and the next one begins so far behind it, that no rounding
# puts the one behind and the other before. The state between is extrapolated.
_BEFORE, _AFTER = 3, 2
_APART = 10  # jumps nearer than that cannot be told apart, but for those at one time
NONE = int(np.iinfo(np.int32).min)  # the index of no jump


class Source(eqx.Module):
    """Jumps of one origin, which lie later than their times by the delay of the source.

    `scale` is a time of which the units serve for jumps that are nearer to zero.
    """

    jumps: JumpTimes
    scale: Scalar
    number: int = eqx.field(static=True, default=0)

    def at(self, number: Int[Array, "*numbers"]) -> Float[Array, "*numbers"]:
        """The time of a jump."""
        t = self.jumps.at(number)
        return t + delay(self.number, t, self.scale)

    def near(self, t: Scalar) -> tuple[Int[Array, " near"], Float[Array, " near"]]:
        """The numbers and times of the jumps about `t`."""
        numbers, times = self.jumps.near(t)
        return numbers, times + delay(self.number, times, self.scale)

    def units(self, t):
        """A distance in time about `t` that is at least one unit of rounding."""
        return unit(t, self.scale)


class Landings(NamedTuple):
    """Times that no step may go beyond: those of jumps, and others that are only to be stepped to.

    The index of a jump is its number times the count of sources, plus the place of its source.
    """

    jumps: tuple[Source, ...] = ()
    stops: Float[Array, " stops"] | None = None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.jumps) or self.stops is not None


def unwrapped(
    controller,
    t0: Scalar,
    t1: Scalar,
    of_signals: dict[int, JumpTimes] | None = None,
    scale: Scalar | None = None,
) -> tuple[Any, Landings]:
    """A step size controller without diffrax's wrappers that clip its steps, and the times to land at.

    These are the times that the wrappers name, and the jumps of signals by the number of their source, which were
    traced with a `scale`.
    """
    jumps, stops, dtype = [], [], t0.dtype
    while isinstance(controller, dfx.ClipStepSizeController):
        jumps += [] if controller.jump_ts is None else [jnp.asarray(controller.jump_ts, dtype)]
        stops += [] if controller.step_ts is None else [jnp.asarray(controller.step_ts, dtype)]
        controller = controller.controller
    together = lambda times: jnp.concatenate(times) if times and sum(x.size for x in times) else None
    times = together(jumps)
    # Last the signals: where a jump was named as well, the derivative is that of the signal.
    scale = scale_of(t0, t1) if scale is None else lax.stop_gradient(scale)
    sources = [] if times is None else [Source(JumpTimes(jnp.sort(times)), scale)]
    for number, x in sorted((of_signals or {}).items()):
        sources.append(Source(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), x), scale, number))
    return controller, Landings(tuple(sources), together(stops))


def with_constant_jumps(controller, signals: dict[int, JumpTimes], dtype):
    """A step size controller for diffrax's own loop: it jumps at the times of `signals` too, and has no derivative."""
    if any(x.period is not None for x in signals.values()):
        raise InputError(
            "diffrax's own loop, of an adjoint or a term of diffrax, cannot land on the jumps of a periodic signal or "
            "clock: leave adjoint= out and give the vector field itself, or a signal with knots for all periods"
        )
    if signals:
        times = jnp.concatenate([jnp.asarray(x.times, dtype) for x in signals.values()])
        controller = dfx.ClipStepSizeController(controller, jump_ts=times)
    if not isinstance(controller, dfx.ClipStepSizeController):
        return controller
    message = (
        "diffrax's own loop, of an adjoint or a term of diffrax, has no derivative in the times of jumps: leave "
        "adjoint= out and give the vector field itself"
    )
    constant = lambda x: None if x is None else without_derivative(jnp.asarray(x, dtype), message)
    inner = with_constant_jumps(controller.controller, {}, dtype)
    parts = inner, constant(controller.jump_ts), constant(controller.step_ts)
    where = lambda clip: (clip.controller, clip.jump_ts, clip.step_ts)
    return eqx.tree_at(where, controller, parts, is_leaf=lambda x: x is None)


def make_sense(landings: Landings) -> Flag | None:
    """Whether the times of the jumps are finite, increase, and are far enough from each other; None without jumps.

    Those of clocks are not compared with others.
    """
    if not landings.jumps:
        return None
    periods = [source.jumps.period for source in landings.jumps]
    flags = [period > 0 for period in periods if period is not None]
    for source in landings.jumps:
        times = source.jumps.times
        flags += [jnp.all(jnp.isfinite(times)) & jnp.all(jnp.diff(times) >= 0)]
    tables = [source for source, period in zip(landings.jumps, periods, strict=True) if period is None]
    if tables:
        times = jnp.concatenate([x.jumps.times + delay(x.number, x.jumps.times, x.scale) for x in tables])
        times = lax.stop_gradient(jnp.sort(times) if len(tables) > 1 else times)
        steps = jnp.diff(times)
        flags += [jnp.all((steps == 0) | (steps > _APART * tables[0].units(times[1:])))]
    return jnp.all(jnp.stack(flags))


def largest_step(landings: Landings, t: Scalar, direction) -> Scalar:
    """Returns how far a step from `t` may go: to the next landing or just before the next jump, else infinitely."""
    before = [(times, _BEFORE * source.units(times)) for source in landings.jumps for times in source.near(t)[1:]]
    at = [] if landings.stops is None else [(landings.stops, jnp.zeros_like(landings.stops))]
    largest = jnp.full_like(t, jnp.inf)
    for times, margin in (*before, *at):
        left = direction * (lax.stop_gradient(times) - t) - margin
        # What is nearer than that has been reached.
        reached = 2 * jnp.maximum(margin / _BEFORE, unit(times))
        largest = jnp.minimum(largest, jnp.min(jnp.where(left > reached, left, jnp.inf)))
    return largest


def jump_at(jumps: tuple[Source, ...], t: Scalar, direction) -> Int[Array, ""]:
    """The index of the jump that a step to `t` has ended before, or that `t` is at; NONE for none."""
    found = jnp.array(NONE)
    for place, source in enumerate(jumps):
        numbers, times = source.near(t)
        units, ahead = source.units(times), direction * (lax.stop_gradient(times) - t)
        near = (ahead >= -0.5 * units) & (ahead <= 2 * _BEFORE * units)
        # Of several at one time the last: behind it they are all passed.
        last = numbers.shape[0] - 1 - jnp.argmax(near[::-1])
        found = jnp.where(jnp.any(near), numbers[last] * len(jumps) + place, found)
    return found


def over(
    stepper: Stepper, t: Scalar, y: Vector, jumps: tuple[Source, ...], index: Count, direction, *, moving: bool = True
) -> Point:
    """The point behind the jump `index`, from a state `y` at a time `t` just before it; where that is NONE, the point.

    Its derivative in the jump's time is that of a step with the field before the jump as far as the jump, wherever that
    is: dy/dtau = f(tau-, y) - f(tau+, y) in the end. It is left out where nothing is `moving`, neither jumps nor `t`.
    """

    def jump(t, y):
        number, place = index // len(jumps), index % len(jumps)
        tau = jnp.stack([source.at(number) for source in jumps])[place]
        constant = lax.stop_gradient(tau)
        units = jumps[0].units(constant)
        before, after = constant - direction * _BEFORE * units, direction * _AFTER * units
        if moving:
            start = stepper.point(before + (t - lax.stop_gradient(t)), y)
            delay = tau - t
            end, _ = stepper._replace(written_out=False).step(start, delay - lax.stop_gradient(delay))
            y = end.y
        return constant + after + (tau - constant), y

    t, y = lax.cond(index != NONE, jump, lambda t, y: (t, y), t, y)
    return stepper.point(t, y)


def before_jump(here: Point, jumps: tuple[Source, ...], index: Count, direction) -> Point:
    """The point with the state of `here` before the jump `index` at its time; where that is NONE, `here` itself."""
    tau = jnp.stack([source.at(index // len(jumps)) for source in jumps])[index % len(jumps)]
    t = jnp.where(index != NONE, tau - direction * _BEFORE * jumps[0].units(tau), here.t)
    return here._replace(t=t)


def step_over(
    stepper: Stepper, end: Point, jumps: tuple[Source, ...], index: Count, direction, *, moving: bool
) -> Point:
    """The point behind the jump `index` that the step to `end` stopped before, with what the state does on the way."""
    behind = over(stepper, end.t, end.y, jumps, index, direction, moving=moving)
    way = lax.stop_gradient((behind.t - end.t) * 0.5 * (end.slope + behind.slope))
    return behind._replace(y=jnp.where(index != NONE, behind.y + way, behind.y))
