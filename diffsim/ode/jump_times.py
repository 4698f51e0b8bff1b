"""Times at which a vector field jumps: steps end just before each and start again after it."""

from typing import Any, NamedTuple

import diffrax as dfx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .._types import Count, Scalar, Vector
from .runge_kutta import Point, Stepper

_BEFORE = 2  # units of eps * |t| between the end of a step and the jump: no rounding of t + h reaches it


class Landings(NamedTuple):
    """Times that no step may go beyond: those of jumps, and others that are only to be stepped to."""

    jumps: Float[Array, " jumps"] | None
    stops: Float[Array, " stops"] | None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.jumps is not None or self.stops is not None


def unwrapped(controller, dtype) -> tuple[Any, Landings]:
    """A step size controller without diffrax's wrappers that clip its steps, and the times these name."""
    jumps, stops = [], []
    while isinstance(controller, dfx.ClipStepSizeController):
        jumps += [] if controller.jump_ts is None else [jnp.asarray(controller.jump_ts, dtype)]
        stops += [] if controller.step_ts is None else [jnp.asarray(controller.step_ts, dtype)]
        controller = controller.controller
    together = lambda times: jnp.concatenate(times) if times and sum(x.size for x in times) else None
    return controller, Landings(together(jumps), together(stops))


def largest_step(landings: Landings, t: Scalar, direction) -> Scalar:
    """Returns how far a step from `t` may go: to the next landing or just before the next jump, else infinitely."""
    largest = jnp.full_like(t, jnp.inf)
    for times, margin in ((landings.jumps, _BEFORE), (landings.stops, 0)):
        if times is not None:
            left = direction * (lax.stop_gradient(times) - t) - margin * _unit(times)
            # What is nearer than that has been reached.
            largest = jnp.minimum(largest, jnp.min(jnp.where(left > 2 * _unit(times), left, jnp.inf)))
    return largest


def jump_at(jumps: Float[Array, " jumps"], t: Scalar, direction) -> Int[Array, ""]:
    """The index of the jump that a step to `t` has ended before, or that `t` is at; -1 for none."""
    ahead = direction * (lax.stop_gradient(jumps) - t)
    near = (ahead >= -0.5 * _unit(jumps)) & (ahead <= 2 * _BEFORE * _unit(jumps))
    # Of several at one time the last: behind it they are all passed.
    last = jumps.shape[0] - 1 - jnp.argmax(near[::-1])
    return jnp.where(jnp.any(near), last, -1)


def over(
    stepper: Stepper, t: Scalar, y: Vector, jumps: Float[Array, " jumps"] | None, index: Count, direction
) -> Point:
    """The point behind the jump `index`, from a state `y` at a time `t` just before it; where that is -1, the point.

    Its value is `y`. Its derivative in the jump's time is that of a step with the field before the jump as far as the
    jump, wherever that is: dy/dtau = f(tau-, y) - f(tau+, y) in the end.
    """

    assert jumps is not None

    def jump(t, y):
        tau = jumps[index]
        constant = lax.stop_gradient(tau)
        before = constant - direction * _BEFORE * _unit(constant)
        start = stepper.point(before + (t - lax.stop_gradient(t)), y)
        delay = tau - t
        end, _ = stepper._replace(written_out=False).step(start, delay - lax.stop_gradient(delay))
        return constant + direction * _unit(constant) + (tau - constant), end.y

    t, y = lax.cond(index >= 0, jump, lambda t, y: (t, y), t, y)
    return stepper.point(t, y)


def _unit(t):
    """A distance in time that is at least one unit in the last place of `t`, and at most two."""
    t = lax.stop_gradient(t)
    return jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.finfo(t.dtype).tiny)
