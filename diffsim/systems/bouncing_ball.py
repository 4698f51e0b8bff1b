"""A ball that falls and bounces: the smallest hybrid system, whose bounce times have a closed form."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar
from ..ode.events import Event, Phase
from ..parameters import param


class BouncingBall(eqx.Module):
    """A ball over flat ground, dropped from rest.

    Good values: `restitution` from 0.5 to 1. Breaks when: the bounces accumulate, at the time
    sqrt(2 height / g) (1 + restitution) / (1 - restitution). Simulate a limited number of them.
    """

    g: Scalar = param(9.80665, "m/s^2", (1e-6, np.inf))
    restitution: Scalar = param(0.9, "", (0.0, 1.0))
    height: Scalar = param(1.0, "m", (0.0, np.inf))


class State(NamedTuple):
    """Height of the ball over the ground (m) and its velocity upwards (m/s)."""

    height: Scalar
    velocity: Scalar


def fall(t, s: State, p: BouncingBall) -> State:
    """Time derivative of the state in the air: height'' = -g."""
    return State(s.velocity, -p.g)


def bounce(t, s: State, p: BouncingBall) -> State:
    """The state just after an impact: the velocity is multiplied by -restitution."""
    return State(s.height, -p.restitution * s.velocity)


def start(p: BouncingBall) -> State:
    """The initial state: the ball at rest at its height."""
    return State(p.height, jnp.zeros_like(p.height))


FALLING = Phase(fall, (Event(lambda t, s, p: s.height, "falling", bounce, to=0),))


def bounce_times(p: BouncingBall, count: int) -> Float[Array, " count"]:
    """The times (s) of the first `count` impacts, in closed form.

    t[0] = sqrt(2 height / g),    t[k] = t[k - 1] + 2 t[0] restitution^k
    """
    first = jnp.sqrt(2 * p.height / p.g)
    flights = 2 * first * p.restitution ** jnp.arange(1, count)
    return first + jnp.concatenate([jnp.zeros(1), jnp.cumsum(flights)])
