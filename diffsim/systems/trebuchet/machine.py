"""The trebuchet: its parameters, and the equations of motion while the ball slides, swings and flies."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..._types import Scalar
from ...mechanics import solve_arrow
from ...parameters import param

_POSITIVE = (0.0, np.inf)
_LENGTH = (1e-6, np.inf)


class Trebuchet(eqx.Module):
    """A counterweight trebuchet with a hinged weight and a sling, and the release angle of its throw.

    x points forward from the pivot, y up from the ground; the pivot is at (0, h_pivot). Directions are measured from
    the horizontal: `arm` from the pivot to the weight's hinge, `hanger` from the hinge to the weight, `sling` from the
    sling's end on the long arm to the ball. The machine starts at rest with that end and the ball on the ground.

    Good values: the defaults, a machine of 2 m that throws a baseball 64 m. Breaks when: the pivot is as high as
    the long arm is long; a very heavy weight lets the sling go slack (see `Throw.status`).
    """

    l_short: Scalar = param(0.5334, "m", _LENGTH)  # pivot to the weight's hinge
    l_long: Scalar = param(2.0702016, "m", _LENGTH)  # pivot to the sling's end
    l_sling: Scalar = param(2.0826984, "m", _LENGTH)
    l_weight: Scalar = param(0.6096, "m", _LENGTH)  # hinge to the weight
    h_pivot: Scalar = param(1.524, "m", _POSITIVE)
    m_arm: Scalar = param(4.8307587405, "kg", _POSITIVE)
    I_arm: Scalar = param(2.7288719786342397, "kg m^2", _POSITIVE)  # about the arm's centre of gravity
    d_cg: Scalar = param(0.7684008, "m")  # pivot to the arm's centre of gravity, towards the sling
    m_weight: Scalar = param(44.492875573300005, "kg", (1e-6, np.inf))
    I_weight: Scalar = param(0.0, "kg m^2", _POSITIVE)  # about the weight's own centre
    m_proj: Scalar = param(0.14877829736, "kg", (1e-9, np.inf))
    diameter: Scalar = param(0.0758952, "m", _POSITIVE)
    Cd: Scalar = param(1.0, "", _POSITIVE)
    rho: Scalar = param(1.0, "kg/m^3", _POSITIVE)
    g: Scalar = param(9.80665, "m/s^2", (1e-6, np.inf))
    wind: Scalar = param(0.0, "m/s")  # along the throw
    angle: Scalar = param(np.pi / 4, "rad")  # of the ball's velocity when it leaves the sling


class Direction(NamedTuple):
    """An angle as its cosine and sine, which are continuous and save the motion all trigonometric functions."""

    cos: Scalar
    sin: Scalar

    def turning(self, rate: Scalar) -> "Direction":
        """Its time derivative while it turns at `rate` (rad/s)."""
        return Direction(-self.sin * rate, self.cos * rate)


class Slide(NamedTuple):
    """State while the ball slides on the ground: directions and their rates of turning (rad/s)."""

    arm: Direction
    hanger: Direction
    arm_rate: Scalar
    hanger_rate: Scalar


class Swing(NamedTuple):
    """State while the ball swings in the sling: directions and their rates of turning (rad/s)."""

    arm: Direction
    hanger: Direction
    sling: Direction
    arm_rate: Scalar
    hanger_rate: Scalar
    sling_rate: Scalar


class Flight(NamedTuple):
    """State of the flying ball: position (m) and velocity (m/s)."""

    x: Scalar
    y: Scalar
    vx: Scalar
    vy: Scalar


class _Inertia(NamedTuple):
    """Moments of inertia and couplings (kg m^2), and the mass moment about the pivot on which gravity acts (kg m)."""

    I0: Scalar
    I1: Scalar
    I2: Scalar
    K1: Scalar
    K2: Scalar
    moment: Scalar


def _inertia(p: Trebuchet) -> _Inertia:
    """The constants of the equations of motion."""
    return _Inertia(
        I0=p.m_weight * p.l_short**2 + p.m_proj * p.l_long**2 + p.m_arm * p.d_cg**2 + p.I_arm,
        I1=p.m_weight * p.l_weight**2 + p.I_weight,
        I2=p.m_proj * p.l_sling**2,
        K1=p.m_weight * p.l_short * p.l_weight,
        K2=p.m_proj * p.l_long * p.l_sling,
        moment=p.m_weight * p.l_short - p.m_proj * p.l_long - p.m_arm * p.d_cg,
    )


class _Terms(NamedTuple):
    """The mass matrix [[I0, a1, a2], [a1, I1, 0], [a2, 0, I2]] and right-hand side b of the swing."""

    I0: Scalar
    I1: Scalar
    I2: Scalar
    a1: Scalar
    a2: Scalar
    b0: Scalar
    b1: Scalar
    b2: Scalar


def _terms(p: Trebuchet, s: Swing) -> _Terms:
    """The equations of arm, hanger and sling, which are those of Lagrange for `energy`."""
    I0, I1, I2, K1, K2, moment = _inertia(p)
    cos_ah, sin_ah = _difference(s.arm, s.hanger)
    cos_as, sin_as = _difference(s.arm, s.sling)
    arm2 = s.arm_rate**2
    return _Terms(
        I0=I0,
        I1=I1,
        I2=I2,
        a1=K1 * cos_ah,
        a2=-K2 * cos_as,
        b0=-K1 * s.hanger_rate**2 * sin_ah + K2 * s.sling_rate**2 * sin_as - moment * p.g * s.arm.cos,
        b1=K1 * arm2 * sin_ah - p.m_weight * p.l_weight * p.g * s.hanger.cos,
        b2=-K2 * arm2 * sin_as - p.m_proj * p.l_sling * p.g * s.sling.cos,
    )


def _difference(a: Direction, b: Direction) -> Direction:
    """The direction of the angle a - b."""
    return Direction(a.cos * b.cos + a.sin * b.sin, a.sin * b.cos - a.cos * b.sin)


def swing(t, s: Swing, p: Trebuchet) -> Swing:
    """Time derivative of the swing's state: the three equations solved by elimination of hanger and sling."""
    m = _terms(p, s)
    arm, hanger, sling = solve_arrow(m.I0, (m.a1, m.a2), (m.I1, m.I2), (m.b0, m.b1, m.b2))
    return Swing(
        s.arm.turning(s.arm_rate),
        s.hanger.turning(s.hanger_rate),
        s.sling.turning(s.sling_rate),
        arm,
        hanger,
        sling,
    )


def slide(t, s: Slide, p: Trebuchet) -> Slide:
    """Time derivative of the slide's state: the swing with the ball constrained to the ground."""
    return _slide(s, p)[0]


def sliding_as_swing(t, s: Slide, p: Trebuchet) -> Swing:
    """The slide's state as one of the swing, with the direction and rate of the sling."""
    sine = (p.l_long * s.arm.sin - p.h_pivot) / p.l_sling
    sling = Direction(jnp.sqrt(1 - sine**2), sine)
    rate = _ratio(p, s.arm, sling) * s.arm_rate
    return Swing(s.arm, s.hanger, sling, s.arm_rate, s.hanger_rate, rate)


def _ratio(p: Trebuchet, arm: Direction, sling: Direction) -> Scalar:
    """The rate of the sling relative to that of the arm while the ball slides."""
    return p.l_long * arm.cos / (p.l_sling * sling.cos)


def _slide(s: Slide, p: Trebuchet) -> tuple[Slide, Scalar]:
    """The slide's derivative, and the force (N) of the ground on the ball."""
    as_swing = sliding_as_swing(0.0, s, p)
    ratio, reach = _ratio(p, s.arm, as_swing.sling), p.l_sling * as_swing.sling.cos
    m = _terms(p, as_swing)
    shift = (-p.l_long * s.arm.sin * s.arm_rate**2 + p.l_sling * as_swing.sling.sin * as_swing.sling_rate**2) / reach
    mass = m.I0 + 2 * m.a2 * ratio + ratio**2 * m.I2 - m.a1**2 / m.I1
    arm = (m.b0 + ratio * m.b2 - (m.a2 + ratio * m.I2) * shift - m.a1 * m.b1 / m.I1) / mass
    push = -(m.b2 - m.a2 * arm - m.I2 * (ratio * arm + shift)) / reach
    turning = s.arm.turning(s.arm_rate), s.hanger.turning(s.hanger_rate)
    return Slide(*turning, arm, (m.b1 - m.a1 * arm) / m.I1), push


def ground_push(t, s: Slide, p: Trebuchet) -> Scalar:
    """The force (N) of the ground on the sliding ball; the ball lifts off when it falls to zero."""
    return _slide(s, p)[1]


def ball(t, s: Swing, p: Trebuchet) -> Flight:
    """Position and velocity of the ball in the sling."""
    return Flight(
        -p.l_long * s.arm.cos + p.l_sling * s.sling.cos,
        p.h_pivot - p.l_long * s.arm.sin + p.l_sling * s.sling.sin,
        p.l_long * s.arm.sin * s.arm_rate - p.l_sling * s.sling.sin * s.sling_rate,
        -p.l_long * s.arm.cos * s.arm_rate + p.l_sling * s.sling.cos * s.sling_rate,
    )


def release_event(t, s: Swing, p: Trebuchet) -> Scalar:
    """The speed (m/s) of the ball across the release direction; it rises through zero at release."""
    b = ball(t, s, p)
    return b.vx * jnp.sin(p.angle) - b.vy * jnp.cos(p.angle)


def _pull(p: Trebuchet, s: Swing, arm: Scalar, push) -> Scalar:
    """The tension (N) of the sling by Newton's law, from the arm's angular acceleration and the ground's force."""
    ax = p.l_long * (s.arm.sin * arm + s.arm.cos * s.arm_rate**2)
    ay = p.l_long * (-s.arm.cos * arm + s.arm.sin * s.arm_rate**2)
    outward = ax * s.sling.cos + ay * s.sling.sin - p.l_sling * s.sling_rate**2
    return -p.m_proj * (outward + p.g * s.sling.sin) + push * s.sling.sin


def swing_tension(t, s: Swing, p: Trebuchet) -> Scalar:
    """The tension (N) of the sling while the ball swings; below zero a real sling is slack."""
    return _pull(p, s, swing(t, s, p).arm_rate, 0.0)


def slide_tension(t, s: Slide, p: Trebuchet) -> Scalar:
    """The tension (N) of the sling while the ball slides."""
    slope, push = _slide(s, p)
    return _pull(p, sliding_as_swing(t, s, p), slope.arm_rate, push)


def clearance(t, s: Slide | Swing, p: Trebuchet) -> Scalar:
    """The height (m) of the weight's centre over the ground."""
    return p.h_pivot + p.l_short * s.arm.sin + p.l_weight * s.hanger.sin


def flight(t, s: Flight, p: Trebuchet) -> Flight:
    """Time derivative of the flying ball: gravity, and quadratic drag in the moving air.

    v' = -g e_y - k |u| u,    u = v - wind e_x,    k = rho Cd pi diameter^2 / (8 m_proj)
    """
    k = p.rho * p.Cd * jnp.pi * p.diameter**2 / (8 * p.m_proj)
    ux = s.vx - p.wind
    drag = k * jnp.sqrt(ux**2 + s.vy**2)
    return Flight(s.vx, s.vy, -drag * ux, -p.g - drag * s.vy)


def energy(t, s: Swing, p: Trebuchet) -> tuple[Scalar, Scalar]:
    """Kinetic and potential energy (J) of arm, weight and ball while they swing; the latter is zero at the pivot."""
    I0, I1, I2, K1, K2, moment = _inertia(p)
    cos_ah, _ = _difference(s.arm, s.hanger)
    cos_as, _ = _difference(s.arm, s.sling)
    kinetic = (
        0.5 * (I0 * s.arm_rate**2 + I1 * s.hanger_rate**2 + I2 * s.sling_rate**2)
        + K1 * cos_ah * s.arm_rate * s.hanger_rate
        - K2 * cos_as * s.arm_rate * s.sling_rate
    )
    height = moment * s.arm.sin + p.m_weight * p.l_weight * s.hanger.sin + p.m_proj * p.l_sling * s.sling.sin
    return kinetic, p.g * height
