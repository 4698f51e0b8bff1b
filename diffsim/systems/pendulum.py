"""A pendulum of a point mass on a rod, with friction and a torque; and Gymnasium's uniform rod, in its steps."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import Scalar
from ..parameters import param

DT = 0.05  # s, between two decisions in Pendulum-v1
STEPS = 200  # an episode of Pendulum-v1
TORQUE = 2.0  # N m to either side, the most in Pendulum-v1
RATE = 8.0  # rad/s to either side, the most in Pendulum-v1
START = (np.pi, 1.0)  # rad, rad/s: a first state is uniform between minus and plus this


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


class Rod(eqx.Module):
    """A uniform rod that turns about its end; the angle is zero where it stands upright, and grows as it falls.

    The defaults are those of Gymnasium's Pendulum-v1. Good values: any. Breaks when: nothing.
    """

    length: Scalar = param(1.0, "m", (1e-6, np.inf))
    mass: Scalar = param(1.0, "kg", (1e-9, np.inf))
    g: Scalar = param(10.0, "m/s^2")


def rod(p: Rod, s: State, torque: float | Scalar = 0.0) -> State:
    """Time derivative of the state: m l^2 / 3 angle'' = m g l / 2 sin(angle) + torque (N m)."""
    return State(s.rate, 1.5 * p.g / p.length * jnp.sin(s.angle) + 3.0 / (p.mass * p.length**2) * torque)


def rod_step(p: Rod, s: State, torque: float | Scalar = 0.0, dt: float | Scalar = DT) -> State:
    """The state `dt` (s) later as Gymnasium's Pendulum-v1 steps: first the rate, limited, then the angle with it.

    The torque is limited to +-2 N m, the rate to +-8 rad/s; beyond, neither limit passes a derivative. A torque in
    float32, as the environment takes its actions, is multiplied in float32, as it does. Compiled or not, the result is
    the environment's to the last bit.
    """
    torque = jnp.asarray(torque)
    # The limits are the machine's: a derivative across them would be that of another one.
    limited = jnp.clip(torque, -TORQUE, TORQUE)
    gain = (3.0 / (p.mass * p.length**2)).astype(torque.dtype)
    turn = _rounded(3 * p.g / (2 * p.length) * jnp.sin(s.angle)) + _rounded(gain * limited)
    rate = jnp.clip(s.rate + _rounded(turn * dt), -RATE, RATE)
    return State(s.angle + _rounded(rate * dt), rate)


def _rounded(product: Scalar) -> Scalar:
    """The product, rounded before it is added to something.

    Compilers make one operation of a product and a sum and round once, where the environment rounds twice; an episode
    amplifies the difference to 1e-9. A choice between the two keeps them apart, which a barrier does not in every
    version of XLA.
    """
    return jnp.where(jnp.isnan(product), jnp.nan, product)


def rod_cost(s: State, torque: float | Scalar) -> Scalar:
    """Cost of a step of Pendulum-v1: the square of the angle, from -pi to pi, 0.1 rate^2 and 0.001 torque^2.

    The state is that before the step. Its derivative jumps where the rod hangs.
    """
    torque = jnp.asarray(torque)
    limited = jnp.clip(torque, -TORQUE, TORQUE)
    angle = (s.angle + np.pi) % (2 * np.pi) - np.pi
    return angle**2 + 0.1 * s.rate**2 + 0.001 * limited**2


def rod_energy(p: Rod, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy of a rod, J; the potential is zero where it is level."""
    return p.mass * (p.length * s.rate) ** 2 / 6, 0.5 * p.mass * p.g * p.length * jnp.cos(s.angle)
