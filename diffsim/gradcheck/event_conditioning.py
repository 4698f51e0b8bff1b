"""How well an event is conditioned: a trajectory that grazes its event has no usable event time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

GRAZING = 0.02
"""The sine of the angle between trajectory and event below which a crossing counts as grazing."""


class Crossing(NamedTuple):
    """How a trajectory crosses an event. `str()` gives a sentence.

    Attributes:
        rate: The change of the event function along the trajectory, per second.
        sine: The size of `rate` relative to the largest that this speed and this gradient of the event function allow:
            1 for a perpendicular crossing, 0 for a grazing one.
        delay: The change of the event time for a unit change of the state, in s per unit. An error of the state is
            multiplied by it.
    """

    rate: float
    sine: float
    delay: float

    @property
    def grazing(self) -> bool:
        """Whether the crossing is so flat that derivatives of the event time are not to be trusted."""
        return not self.sine > GRAZING

    def __str__(self) -> str:
        advice = "grazing: derivatives by its time are not to be trusted" if self.grazing else "well conditioned"
        return f"crosses at {self.rate:.3g}/s, sine {self.sine:.3g}, {self.delay:.3g} s per unit of state; {advice}"


def crossing(field: Callable[..., Any], event: Callable[..., Any], t: Any, y: Any, args: Any = None) -> Crossing:
    """How the trajectory of a vector field crosses an event.

    With the event function g, its gradient n = dg/dy and the vector field f:

        rate = dg/dt + n . f,    sine = |rate| / (|dg/dt| + |n| |f|),    delay = |n| / |rate|

    The saltation matrix of the event divides by the same rate.

        impact = crossing(fall, lambda t, s, ball: s.height, t, state, ball)
        ds.check_gradients(f, args, events={"impact": impact})

    Args:
        field: `field(t, y, args)`, the time derivative of the state.
        event: `event(t, y, args)`, the event function, a scalar that is zero at the event.
        t: The event time in s.
        y: The state at the event, a tree of arrays.
        args: Passed on to `field` and `event`.
    """
    flat, unravel = ravel_pytree(y)
    flow = ravel_pytree(field(t, y, args))[0]
    by_time, by_state = jax.grad(lambda t, v: event(t, unravel(v), args), (0, 1))(jnp.asarray(t, flat.dtype), flat)
    rate = by_time + by_state @ flow
    normal = jnp.linalg.norm(by_state)
    largest = jnp.abs(by_time) + normal * jnp.linalg.norm(flow)
    return Crossing(float(rate), float(jnp.abs(rate) / largest), float(normal / jnp.abs(rate)))
