"""A quadrotor in the vertical plane with two thrusts, in wind that gusts."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar
from ..discrete.rollout import rollout
from ..parameters import param

THRUST = 10.0  # N, the most of each of the two rotors


class Quadrotor(eqx.Module):
    """A rigid body carried by two rotors, a distance `arm` to either side of its centre.

    x grows to the right and the height upwards; the tilt is zero where it is level and grows as it leans to the right.
    The drag is linear in the velocity through the air, as that of rotors is. Good values: two full thrusts of at least
    1.5 times the weight. Breaks when: never.
    """

    mass: Scalar = param(1.0, "kg", (1e-6, np.inf))
    inertia: Scalar = param(0.01, "kg m^2", (1e-9, np.inf))
    arm: Scalar = param(0.15, "m", (0.0, np.inf))
    drag: Scalar = param(0.3, "N s/m", (0.0, np.inf))
    g: Scalar = param(9.80665, "m/s^2")


class State(NamedTuple):
    """Position (m), tilt (rad), velocity (m/s) over the ground and rate of the tilt (rad/s)."""

    x: Scalar
    height: Scalar
    tilt: Scalar
    vx: Scalar
    vz: Scalar
    rate: Scalar


class Wind(eqx.Module):
    """Gusts about a mean wind: each component has the standard deviation `gust` and the correlation time `time`."""

    gust: Scalar = param(2.0, "m/s", (0.0, np.inf))
    time: Scalar = param(1.0, "s", (1e-6, np.inf))


def quadrotor(p: Quadrotor, s: State, thrusts: Float[Array, " 2"], wind: Float[Array, " 2"]) -> State:
    """Time derivative of the state under the thrusts (N) of the left and the right rotor, in a wind (m/s).

    With the air's velocity w and the unit vector n = (sin(tilt), cos(tilt)):

        mass v' = (left + right) n - mass g e_z - drag (v - w),    inertia tilt'' = arm (left - right)

    Source: M. Faessler, A. Franchi, D. Scaramuzza, Differential flatness of quadrotor dynamics subject to rotor drag
    (2018), eqs. 1 to 4, in the plane and with equal drag in both directions.
    """
    lift = (thrusts[0] + thrusts[1]) / p.mass
    drag = p.drag / p.mass
    along = lift * jnp.sin(s.tilt) - drag * (s.vx - wind[0])
    upwards = lift * jnp.cos(s.tilt) - p.g - drag * (s.vz - wind[1])
    return State(s.vx, s.vz, s.rate, along, upwards, p.arm * (thrusts[0] - thrusts[1]) / p.inertia)


def energy(p: Quadrotor, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J); the potential energy is zero at height zero."""
    kinetic = 0.5 * p.mass * (s.vx**2 + s.vz**2) + 0.5 * p.inertia * s.rate**2
    return kinetic, p.mass * p.g * s.height


def gusts(
    p: Wind, mean: Float[Array, " 2"], noise: Float[Array, "steps 2"], dt: float | Scalar
) -> Float[Array, "steps 2"]:
    """The wind (m/s) at times `dt` (s) apart: a Gauss-Markov process.

        w[k+1] = mean + a (w[k] - mean) + gust sqrt(1 - a^2) noise[k+1],    a = exp(-dt / time)

    It begins in its stationary distribution, so that every w[k] has the standard deviation `gust` about the mean.
    Source: the longitudinal spectrum of Dryden's model, MIL-F-8785C (1980), section 3.7.2.

    Args:
        p: The parameters of the gusts.
        mean: The mean wind (m/s), shape (2,).
        noise: Independent standard normal numbers, shape (steps, 2).
        dt: The time between two values.
    """
    correlation = jnp.exp(-jnp.asarray(dt) / p.time)
    step = lambda w, n: correlation * w + p.gust * jnp.sqrt(1 - correlation**2) * n
    first = p.gust * noise[0]
    later = rollout(step, first, noise[1:])[1] if noise.shape[0] > 1 else noise[1:]
    return mean[None] + jnp.concatenate([first[None], later])
