"""A rocket in the vertical plane with a gimballed engine, and the vertical landing that takes least fuel."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar
from ..ode.events import Event
from ..parameters import param

GIMBAL = 0.15  # rad, the most that the engine turns to either side


class Rocket(eqx.Module):
    """A rigid body with one engine, a distance `arm` below its centre of mass, that throttles and turns.

    x grows to the right and the height upwards, both of the centre of mass, from where it rests on the ground; the tilt
    is zero upright and grows as the rocket leans to the right. Burning fuel changes neither the centre of mass nor the
    radius of gyration, and carries its own angular momentum away, so that there is no jet damping. There is no drag of
    air. The defaults are of the size of an orbital rocket's first stage. Good values: a thrust of at least 1.5 times
    the weight. Breaks when: the mass falls below `dry`, which is not checked here.
    """

    dry: Scalar = param(25_000.0, "kg", (1e-6, np.inf))
    thrust: Scalar = param(800_000.0, "N", (1e-6, np.inf))
    exhaust: Scalar = param(2_800.0, "m/s", (1e-6, np.inf))
    arm: Scalar = param(15.0, "m", (0.0, np.inf))
    gyration: Scalar = param(12.0, "m", (1e-6, np.inf))
    g: Scalar = param(9.80665, "m/s^2", (0.0, np.inf))


class State(NamedTuple):
    """Position (m), tilt (rad), velocity (m/s), rate of the tilt (rad/s) and mass (kg)."""

    x: Scalar
    height: Scalar
    tilt: Scalar
    vx: Scalar
    vz: Scalar
    rate: Scalar
    mass: Scalar


def rocket(p: Rocket, s: State, throttle: float | Scalar = 0.0, gimbal: float | Scalar = 0.0) -> State:
    """Time derivative of the state under a throttle from 0 to 1 and a gimbal angle (rad) of the thrust to the right.

    With the thrust F = throttle thrust along the unit vector n = (sin(tilt + gimbal), cos(tilt + gimbal)):

        mass v' = F n - mass g e_z,    mass gyration^2 tilt'' = -F arm sin(gimbal),    mass' = -F / exhaust

    Source: G. P. Sutton, O. Biblarz, Rocket Propulsion Elements, 8th ed. (2010), chapter 4, without drag and lift.
    """
    force = throttle * p.thrust
    along, upwards = force * jnp.sin(s.tilt + gimbal) / s.mass, force * jnp.cos(s.tilt + gimbal) / s.mass - p.g
    angular = -force * p.arm * jnp.sin(gimbal) / (s.mass * p.gyration**2)
    return State(s.vx, s.vz, s.rate, along, upwards, angular, -force / p.exhaust)


# Touchdown: the height falls to zero.
GROUND = Event(lambda t, s, args: s.height, "falling")


def energy(p: Rocket, s: State) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J); the potential energy is zero at height zero."""
    kinetic = 0.5 * s.mass * (s.vx**2 + s.vz**2 + (p.gyration * s.rate) ** 2)
    return kinetic, s.mass * p.g * s.height


def vertical_burn(p: Rocket, s: State, t: float | Scalar) -> State:
    """The state after a time `t` (s) at full throttle from an upright state without rotation: the rocket equation.

        v = v0 + exhaust ln(m0 / m) - g t,    m = m0 - t thrust / exhaust

    Source: K. E. Tsiolkovsky (1903); the height is its integral over time.
    """
    flow = p.thrust / p.exhaust
    mass = s.mass - flow * t
    gain = jnp.log(s.mass / mass)
    rise = p.exhaust * (t - mass / flow * gain) - p.g * t**2 / 2
    return s._replace(
        x=s.x + s.vx * t,
        height=s.height + s.vz * t + rise,
        vz=s.vz + p.exhaust * gain - p.g * t,
        mass=mass,
    )


class Ignition(NamedTuple):
    """Height (m) and upward velocity (m/s) at which a burn at full throttle begins, and its duration `time` (s)."""

    height: Scalar
    velocity: Scalar
    time: Scalar


def best_ignition(p: Rocket, s: State, touchdown: float | Scalar = 0.0) -> Ignition:
    """The ignition of the vertical landing that takes least fuel; NaN if there is none.

    The rocket falls freely, then burns at full throttle until it meets the ground. The fuel is `thrust / exhaust` times
    the duration of the burn. That is the root, by bisection, of the difference between the energy per mass that a burn
    of this duration needs at ignition and the energy that the free fall has.

    Source: J. S. Meditch, On the problem of optimal thrust programming for a lunar soft landing (1964): with a bounded
    thrust no landing takes less.

    Args:
        p: The rocket.
        s: The state; only its height, vertical velocity and mass count.
        touchdown: The downward velocity (m/s) at the ground.
    """
    zero = jnp.zeros_like(s.mass)
    rest = State(zero, zero, zero, zero, zero, zero, s.mass)

    def ignition(time):
        after_burn = vertical_burn(p, rest, time)
        velocity = -touchdown - after_burn.vz
        return Ignition(-velocity * time - after_burn.height, velocity, time)

    def missing_energy(time):
        height, velocity, _ = ignition(time)
        return velocity**2 / 2 + p.g * height - s.vz**2 / 2 - p.g * s.height

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        too_long = missing_energy(middle) > 0
        return jnp.where(too_long, ends[0], middle), jnp.where(too_long, middle, ends[1])

    longest = (s.mass - p.dry) * p.exhaust / p.thrust
    # Bisection has no derivative; a step of Newton's method after it has that of the root.
    root = jax.lax.stop_gradient(jax.lax.fori_loop(0, 60, halve, (zero, longest))[0])
    residual, slope = jax.jvp(missing_energy, (root,), (jnp.ones_like(root),))
    best = ignition(root - residual / jax.lax.stop_gradient(slope))
    bracketed = (missing_energy(zero) <= 0) & (missing_energy(longest) > 0)
    possible = bracketed & ((best.height <= s.height) | (s.vz > 0))
    return jax.tree.map(lambda x: jnp.where(possible, x, jnp.nan), best)


def outline(p: Rocket, s: State, throttle: float | Scalar, gimbal: float | Scalar) -> Float[Array, "2 2 2"]:
    """The ends (m) of two lines to draw: the body from the nozzle to the top, and the flame.

    The body is drawn 1.5 times as far above the centre of mass as below it; the flame at full thrust is as long as the
    body.

    Returns:
        Shape (2, 2, 2): the line, its end, and the coordinate.
    """
    unit = lambda angle: jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    nozzle = jnp.stack([s.x, s.height]) - p.arm * unit(s.tilt)
    body = jnp.stack([nozzle, nozzle + 2.5 * p.arm * unit(s.tilt)])
    return jnp.stack([body, jnp.stack([nozzle, nozzle - 2.5 * p.arm * throttle * unit(s.tilt + gimbal)])])
