"""A pole hinged on a cart that a force pushes along a track: its vector field, and the steps of Gymnasium's version."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import Flag, Scalar
from ..parameters import param

DT = 0.02  # s, the time between two decisions in CartPole-v1
FORCE = 10.0  # N, which CartPole-v1 applies to the left or to the right
STEPS = 500  # an episode of CartPole-v1 at most
START = 0.05  # m, m/s, rad, rad/s: each component of its initial state is uniform between minus and plus this
TRACK = 2.4  # m to either side, where an episode ends
TILT = 12 * 2 * math.pi / 360  # rad to either side, where an episode ends


class CartPole(eqx.Module):
    """A cart on a track without friction, and on it a uniform pole of length 2 `half_length`.

    The position grows to the right; the angle is zero where the pole stands upright, and grows as it falls to the
    right. The defaults are those of Gymnasium's CartPole-v1. Good values: any. Breaks when: never; with the defaults
    the distance from the upright position grows as exp(t / 0.25 s).
    """

    cart: Scalar = param(1.0, "kg", (1e-9, np.inf))
    pole: Scalar = param(0.1, "kg", (1e-9, np.inf))
    half_length: Scalar = param(0.5, "m", (1e-6, np.inf))
    g: Scalar = param(9.8, "m/s^2")


class State(NamedTuple):
    """Position (m) and velocity (m/s) of the cart, angle (rad) and rate (rad/s) of the pole."""

    position: Scalar
    velocity: Scalar
    angle: Scalar
    rate: Scalar


def cartpole(p: CartPole, s: State, force: float | Scalar = 0.0) -> State:
    """Time derivative of the state under a force (N) on the cart.

    With M = cart + pole, the mass m of the pole and its half length h:

        h (4/3 - m cos(angle)^2 / M) angle'' = g sin(angle) - cos(angle) (force + m h angle'^2 sin(angle)) / M
        M position'' = force + m h (angle'^2 sin(angle) - angle'' cos(angle))

    Source: R. V. Florian, Correct equations for the dynamics of the cart-pole system (2007), eqs. 23 and 24 without
    friction.
    """
    total, moment = p.cart + p.pole, p.pole * p.half_length
    sine, cosine = jnp.sin(s.angle), jnp.cos(s.angle)
    push = (force + moment * s.rate**2 * sine) / total
    angular = (p.g * sine - cosine * push) / (p.half_length * (4.0 / 3.0 - p.pole * cosine**2 / total))
    return State(s.velocity, push - moment * angular * cosine / total, s.rate, angular)


def step(p: CartPole, s: State, force: float | Scalar = 0.0, dt: float | Scalar = DT) -> State:
    """The state `dt` (s) later by explicit Euler, as Gymnasium's CartPole-v1 steps under a force of +-10 N.

    All components change by the derivative at the old state. This is the environment's rule and not an accurate
    integrator: the energy grows. For the continuous motion use `integrate` with `cartpole`.
    """
    slope = cartpole(p, s, force)
    return State(*(x + dt * rate for x, rate in zip(s, slope, strict=True)))


def fallen(s: State) -> Flag:
    """Whether an episode of CartPole-v1 ends in this state: off the track or tilted too far, or not a number."""
    return ~((jnp.abs(s.position) <= TRACK) & (jnp.abs(s.angle) <= TILT))


def energy(p: CartPole, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J); the potential energy is zero where the pole is level with its hinge."""
    moment = p.pole * p.half_length
    sliding = 0.5 * (p.cart + p.pole) * s.velocity**2
    turning = 2 / 3 * moment * p.half_length * s.rate**2
    kinetic = sliding + turning + moment * jnp.cos(s.angle) * s.velocity * s.rate
    return kinetic, moment * p.g * jnp.cos(s.angle)
