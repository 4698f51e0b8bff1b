"""A throw of the trebuchet: slide, swing and flight, joined by their events."""

import enum
from typing import NamedTuple

import diffrax as dfx
import jax.numpy as jnp
from jax import lax

from ..._types import Count, Scalar
from ...autodiff.forward_mode import forward_mode
from ...autodiff.nan_unless import defined
from ...ode.events import Event, Phase
from ...ode.phase import integrate_phase
from ...ode.solve_phase import Mode, PhaseResult
from ...ode.status import Status
from ...ode.trial_step import all_finite
from ...parameters import replace
from . import machine as m
from .machine import Direction, Flight, Slide, Trebuchet

EXACT = dfx.PIDController(rtol=1e-10, atol=1e-12)
SOLVER = dfx.Dopri5()
FAST = dfx.PIDController(rtol=1e-6, atol=1e-8)

_SLIDING = Phase(
    m.slide,
    (Event(m.ground_push, "falling", m.sliding_as_swing),),
    (m.slide_tension, m.clearance),
)
_SWINGING = Phase(
    m.swing,
    (Event(m.release_event, "rising", m.ball),),
    (m.swing_tension, m.clearance),
)
_FLYING = Phase(m.flight, (Event(lambda t, s, p: s.y, "falling"),))


class ThrowStatus(enum.IntEnum):
    """How a throw ended. TAUT is a valid throw; after SLACK and GROUNDED the numbers are those of rigid rods."""

    TAUT = 0
    SLACK = 1
    GROUNDED = 2
    STARTS_TOO_HIGH = 3
    LIFTS_AT_START = 4
    NEVER_LIFTS = 5
    NEVER_RELEASES = 6
    NEVER_LANDS = 7
    FAILED = 8

    @property
    def explanation(self) -> str:
        """What happened, in a sentence."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = (
    "thrown with a taut sling",
    "the sling went slack on the way: the range is that of a rigid rod",
    "the weight went below the ground on the way",
    "the pivot is as high as the long arm is long: the sling's end cannot start on the ground",
    "the ground does not carry the ball at the start",
    "the ball never lifts off the ground",
    "the ball never moves in the release direction",
    "the ball does not come down to the ground",
    "the equations could not be solved to the tolerance asked for",
)


class Throw(NamedTuple):
    """The result of one throw. What belongs to an event that did not happen is NaN.

    Attributes:
        range: The distance of the impact from the foot of the pivot, in m.
        t_liftoff: The time from rest at which the ball lifts off the ground, in s.
        t_release: The time of the release, in s.
        t_impact: The time of the impact, in s.
        v_release: The speed of the ball at the release, in m/s.
        release: The state of the ball at the release.
        impact: The state of the ball at the impact.
        tension: The least tension of the sling, in N; without derivative.
        clearance: The least height of the weight over the ground, in m; without derivative.
        status: The ThrowStatus.
    """

    range: Scalar
    t_liftoff: Scalar
    t_release: Scalar
    t_impact: Scalar
    v_release: Scalar
    release: Flight
    impact: Flight
    tension: Scalar
    clearance: Scalar
    status: Count


class _Phases(NamedTuple):
    """The results of the three phases."""

    slide: PhaseResult
    swing: PhaseResult
    flight: PhaseResult


def start(p: Trebuchet) -> Slide:
    """The machine at rest with the sling's end on the ground; level if the pivot is too high for that."""
    sine = p.h_pivot / p.l_long
    # This keeps the derivative finite for a machine that cannot exist.
    sine = jnp.where(sine >= 1, 0.0, sine)
    zero = jnp.zeros_like(sine)
    arm, down = Direction(jnp.sqrt(1 - sine**2), sine), Direction(zero, zero - 1)
    return Slide(arm, down, zero, zero)


def _integrate_phases(p: Trebuchet, check=False, mode: Mode = "auto", **options) -> _Phases:
    """The three phases one after the other; a phase whose initial state is undefined is NaN."""
    checked = lambda phase: phase if check else Phase(phase.field, phase.events)
    longest = 10 * jnp.sqrt(lax.stop_gradient(p.l_long / p.g))
    # The machine's size gives the scale of the first step, which then need not be estimated.
    options = {"dt0": longest / 200, **options, "mode": mode}
    # In forward mode each phase carries only the tangents of the parameters that matter up to its end.
    differentiated = forward_mode if mode == "forward" else lambda function: function

    @differentiated
    def lift_off(p):
        return integrate_phase(checked(_SLIDING), 0.0, start(p), p, t1=longest, **options)

    @differentiated
    def release(p):
        sliding = lift_off(_with_constant(p, "angle"))
        return sliding, integrate_phase(checked(_SWINGING), sliding.t, sliding.next_y, p, t1=2 * longest, **options)

    sliding, swinging = release(_with_constant(p, "wind", "rho", "Cd", "diameter"))
    landing = lax.stop_gradient(swinging.t) + 1e4
    flying = integrate_phase(_FLYING, swinging.t, swinging.next_y, p, t1=landing, **options)
    return _Phases(sliding, swinging, flying)


def _with_constant(p: Trebuchet, *names: str) -> Trebuchet:
    """The machine without derivatives with respect to some of its parameters."""
    return replace(p, {name: lax.stop_gradient(getattr(p, name)) for name in names})


def throw(
    p: Trebuchet, *, check: bool = True, stepsize_controller=EXACT, solver: dfx.AbstractSolver = SOLVER, **options
) -> Throw:
    """One throw: range, times, release and impact, and how it ended.

        jax.grad(lambda p: throw(p).range)(Trebuchet())

    Args:
        p: The machine.
        check: Whether to compute tension and clearance. Without, they are NaN, SLACK and GROUNDED are not reported, and
            the work is halved.
        stepsize_controller: With the default the relative error of the range is 1e-9, with `FAST` 1e-6.
        solver: A solver of diffrax.
        options: Further options of `integrate_phase`; `mode="forward"` for the fastest derivatives.
    """
    c = _integrate_phases(p, check=check, stepsize_controller=stepsize_controller, solver=solver, **options)
    release, impact = c.swing.next_y, c.flight.y
    possible = p.h_pivot < p.l_long
    landed = possible & (c.flight.status == Status.FINISHED)
    t_impact, impact = defined(landed, (c.flight.t, impact))
    tension, clearance = jnp.minimum(c.slide.lowest, c.swing.lowest) if check else jnp.full(2, jnp.nan)
    return Throw(
        range=impact.x,
        t_liftoff=_reached(c.slide, possible),
        t_release=_reached(c.swing, possible),
        t_impact=t_impact,
        v_release=jnp.hypot(release.vx, release.vy),
        release=release,
        impact=impact,
        tension=tension,
        clearance=clearance,
        status=_status(p, c, tension, clearance),
    )


def _reached(phase: PhaseResult, possible) -> Scalar:
    """The time of the event that ends a phase; NaN if it did not happen."""
    return defined(possible & (phase.status == Status.FINISHED), phase.t)


def _status(p: Trebuchet, c: _Phases, tension, clearance) -> Count:
    """The first thing that went wrong, else whether the throw was physical."""
    initial = start(p)
    missed = lambda phase: phase.status == Status.EVENT_NOT_FOUND
    failed = lambda phase: phase.status != Status.FINISHED
    cases = [
        (~all_finite(p), ThrowStatus.FAILED),
        (p.h_pivot >= p.l_long, ThrowStatus.STARTS_TOO_HIGH),
        (m.ground_push(0.0, initial, p) <= 0, ThrowStatus.LIFTS_AT_START),
        (missed(c.slide) | (c.slide.status == Status.NON_FINITE), ThrowStatus.NEVER_LIFTS),
        (failed(c.slide), ThrowStatus.FAILED),
        (missed(c.swing), ThrowStatus.NEVER_RELEASES),
        (failed(c.swing), ThrowStatus.FAILED),
        (missed(c.flight), ThrowStatus.NEVER_LANDS),
        (failed(c.flight), ThrowStatus.FAILED),
        (tension < 0, ThrowStatus.SLACK),
        (clearance < 0, ThrowStatus.GROUNDED),
    ]
    status = jnp.asarray(ThrowStatus.TAUT)
    for happened, code in reversed(cases):
        status = jnp.where(happened, code, status)
    return status
