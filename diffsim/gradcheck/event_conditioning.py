"""How well an event is conditioned: a trajectory that grazes its event has no usable event time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

GRAZING = 0.02
"""Below this sine of the angle between trajectory and event, an event's derivatives are warned of."""


class Crossing(NamedTuple):
    """How a trajectory crosses an event. `str()` gives a sentence.

    `rate` is the event's own change per second, `sine` that rate relative to the largest that this speed and
    this gradient allow (1 straight through, 0 grazing), `delay` the change of the event's time per unit change
    of the state (s per unit): by it every error of the state is multiplied.
    """

    rate: float
    sine: float
    delay: float

    @property
    def grazing(self) -> bool:
        """Whether the crossing is so flat that derivatives of the event's time are not to be trusted."""
        return not self.sine > GRAZING

    def __str__(self) -> str:
        advice = "grazing: derivatives by its time are not to be trusted" if self.grazing else "well conditioned"
        return f"crosses at {self.rate:.3g}/s, sine {self.sine:.3g}, {self.delay:.3g} s per unit of state; {advice}"


def crossing(field: Callable[..., Any], event: Callable[..., Any], t: Any, y: Any, args: Any = None) -> Crossing:
    """Returns how the trajectory of `field(t, y, args)` crosses `event(t, y, args)` at time `t` in state `y`.

    With n = dg/dy and f the field: rate = dg/dt + n . f, sine = |rate| / (|dg/dt| + |n| |f|), delay =
    |n| / |rate|. The saltation matrix of the event divides by the same rate.
    """
    flat, unravel = ravel_pytree(y)
    flow = ravel_pytree(field(t, y, args))[0]
    by_time, by_state = jax.grad(lambda t, v: event(t, unravel(v), args), (0, 1))(jnp.asarray(t, flat.dtype), flat)
    rate = by_time + by_state @ flow
    normal = jnp.linalg.norm(by_state)
    largest = jnp.abs(by_time) + normal * jnp.linalg.norm(flow)
    return Crossing(float(rate), float(jnp.abs(rate) / largest), float(normal / jnp.abs(rate)))
