"""A pendulum of a point mass on a rod, with friction and a torque."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import Scalar
from ..parameters import param


class Pendulum(eqx.Module):
    """A pendulum; the angle is zero where it hangs, and grows anticlockwise.

    Good values: any. Breaks when: nothing; for small swings the period is 2 pi sqrt(length / g).
    """

    length: Scalar = param(1.0, "m", (1e-6, np.inf))
    mass: Scalar = param(1.0, "kg", (1e-9, np.inf))
    friction: Scalar = param(0.0, "N m s", (0.0, np.inf))
    g: Scalar = param(9.80665, "m/s^2")


class State(NamedTuple):
    """Angle (rad) and its rate (rad/s)."""

    angle: Scalar
    rate: Scalar


def pendulum(p: Pendulum, s: State, torque=0.0) -> State:
    """Time derivative of the state: m l^2 angle'' = -m g l sin(angle) - friction angle' + torque (N m)."""
    inertia = p.mass * p.length**2
    turning = -p.mass * p.g * p.length * jnp.sin(s.angle) - p.friction * s.rate + torque
    return State(s.rate, turning / inertia)


def energy(p: Pendulum, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy, J; the potential is zero where it hangs."""
    kinetic = 0.5 * p.mass * (p.length * s.rate) ** 2
    return kinetic, p.mass * p.g * p.length * (1 - jnp.cos(s.angle))
