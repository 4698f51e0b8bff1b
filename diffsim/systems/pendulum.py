"""A pendulum of a point mass with friction and a torque; and the uniform rod of Gymnasium, with its steps."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._types import Scalar, ScalarLike
from ..parameters import param

DT = 0.05  # s, between two decisions in Pendulum-v1
STEPS = 200  # an episode of Pendulum-v1
TORQUE = 2.0  # N m to either side, the most in Pendulum-v1
RATE = 8.0  # rad/s to either side, the most in Pendulum-v1
START = (np.pi, 1.0)  # rad, rad/s: an initial state is uniform between minus and plus this


class Pendulum(eqx.Module):
    """A pendulum; the angle is zero where it hangs, and grows anticlockwise.

    Good values: any. Breaks when: never; for small swings the period is 2 pi sqrt(length / g).
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
    """Time derivative of the state under a torque (N m).

    m l^2 angle'' = -m g l sin(angle) - friction angle' + torque
    """
    inertia = p.mass * p.length**2
    total_torque = -p.mass * p.g * p.length * jnp.sin(s.angle) - p.friction * s.rate + torque
    return State(s.rate, total_torque / inertia)


def energy(p: Pendulum, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J); the potential energy is zero where the pendulum hangs."""
    kinetic = 0.5 * p.mass * (p.length * s.rate) ** 2
    return kinetic, p.mass * p.g * p.length * (1 - jnp.cos(s.angle))


class Rod(eqx.Module):
    """A uniform rod that turns about its end; the angle is zero where it stands upright, and grows as it falls.

    The defaults are those of Gymnasium's Pendulum-v1. Good values: any. Breaks when: never.
    """

    length: Scalar = param(1.0, "m", (1e-6, np.inf))
    mass: Scalar = param(1.0, "kg", (1e-9, np.inf))
    g: Scalar = param(10.0, "m/s^2")


def rod(p: Rod, s: State, torque: ScalarLike = 0.0) -> State:
    """Time derivative of the state under a torque (N m).

    m l^2 / 3 angle'' = m g l / 2 sin(angle) + torque
    """
    return State(s.rate, 1.5 * p.g / p.length * jnp.sin(s.angle) + 3.0 / (p.mass * p.length**2) * torque)


def rod_step(p: Rod, s: State, torque: ScalarLike = 0.0, dt: ScalarLike = DT) -> State:
    """The state `dt` (s) later as in Gymnasium's Pendulum-v1, which updates the rate first, then the angle with it.

    The torque is limited to +-2 N m and the rate to +-8 rad/s; beyond a limit the derivative is zero. A torque in
    float32, the format of the environment's actions, is multiplied in float32 as there. Compiled or not, the result is
    bit for bit that of the environment.
    """
    torque = jnp.asarray(torque)
    # The limits belong to the machine: a derivative beyond them would be that of another machine.
    limited = jnp.clip(torque, -TORQUE, TORQUE)
    gain = (3.0 / (p.mass * p.length**2)).astype(torque.dtype)
    acceleration = _rounded(3 * p.g / (2 * p.length) * jnp.sin(s.angle)) + _rounded(gain * limited)
    rate = jnp.clip(s.rate + _rounded(acceleration * dt), -RATE, RATE)
    return State(s.angle + _rounded(rate * dt), rate)


def _rounded(product: Scalar) -> Scalar:
    """The product, rounded before it is added to something.

    A compiler may fuse a product and a sum into one operation, which rounds once where the environment rounds twice; in
    an episode the difference grows to 1e-9. `jnp.where` prevents the fusion; an optimization barrier does not in every
    version of the compiler.
    """
    return jnp.where(jnp.isnan(product), jnp.nan, product)


def rod_cost(s: State, torque: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Cost of a step of Pendulum-v1 from the state before it, with the angle from -pi to pi and the limited torque.

        cost = angle^2 + 0.1 rate^2 + 0.001 torque^2

    Its derivative jumps where the rod hangs.
    """
    torque = jnp.asarray(torque)
    limited = jnp.clip(torque, -TORQUE, TORQUE)
    angle = (s.angle + np.pi) % (2 * np.pi) - np.pi
    return angle**2 + 0.1 * s.rate**2 + 0.001 * limited**2


def rod_energy(p: Rod, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J) of a rod; the potential energy is zero where the rod is level."""
    return p.mass * (p.length * s.rate) ** 2 / 6, 0.5 * p.mass * p.g * p.length * jnp.cos(s.angle)
