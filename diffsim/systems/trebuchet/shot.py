"""A throw of the trebuchet: slide, swing and flight joined by their events."""

import enum
from itertools import pairwise
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..._types import Count, Scalar
from ...autodiff.forward_mode import forward_mode
from ...autodiff.nan_unless import defined
from ...discrete.rollout import rollout
from ...discrete.zero_order_hold import zero_order_hold
from ...ode.events import Event, Phase
from ...ode.phase import integrate_phase
from ...ode.solve_phase import Mode, PhaseResult
from ...ode.status import Status
from ...parameters import replace
from . import machine as m
from .machine import Direction, Flight, Slide, Swing, Trebuchet

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
    """What one throw did. Times in s from rest, positions in m from the pivot's foot, speeds in m/s.

    Numbers of what was never reached are NaN. `tension` and `clearance` are the least sling tension (N) and the
    least height of the weight over the ground (m) on the way; they are not differentiated.
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


class _Chain(NamedTuple):
    slide: PhaseResult
    swing: PhaseResult
    flight: PhaseResult


def start(p: Trebuchet) -> Slide:
    """The machine at rest with the sling's end on the ground; level if the pivot is too high for that."""
    sine = p.h_pivot / p.l_long
    # The inner choice keeps the derivative finite where the machine is impossible.
    sine = jnp.where(sine < 1, sine, 0.0)
    zero = jnp.zeros_like(sine)
    arm, down = Direction(jnp.sqrt(1 - sine**2), sine), Direction(zero, zero - 1)
    return Slide(arm, down, zero, zero)


def _chain(p: Trebuchet, check=False, mode: Mode = "auto", **options) -> _Chain:
    """The three phases one after the other; a phase whose start is undefined is NaN throughout."""
    bare = lambda phase: phase if check else Phase(phase.field, phase.events)
    longest = 10 * jnp.sqrt(lax.stop_gradient(p.l_long / p.g))
    # A first step of the machine's own scale: none has to be found.
    options = {"dt0": longest / 200, **options, "mode": mode}
    # In forward mode each phase carries the tangents of only those parameters that matter up to its end.
    serve = forward_mode if mode == "forward" else lambda function: function

    @serve
    def lift_off(p):
        return integrate_phase(bare(_SLIDING), 0.0, start(p), p, t1=longest, **options)

    @serve
    def release(p):
        sliding = lift_off(_held(p, "angle"))
        return sliding, integrate_phase(bare(_SWINGING), sliding.t, sliding.next_y, p, t1=2 * longest, **options)

    sliding, swinging = release(_held(p, "wind", "rho", "Cd", "diameter"))
    landing = lax.stop_gradient(swinging.t) + 1e4
    flying = integrate_phase(_FLYING, swinging.t, swinging.next_y, p, t1=landing, **options)
    return _Chain(sliding, swinging, flying)


def _held(p: Trebuchet, *names: str) -> Trebuchet:
    """The machine with some parameters held constant."""
    return replace(p, {name: lax.stop_gradient(getattr(p, name)) for name in names})


def throw(
    p: Trebuchet, *, check: bool = True, stepsize_controller=EXACT, solver: dfx.AbstractSolver = SOLVER, **options
) -> Throw:
    """One throw: range, times, release and impact, and how it went.

    `check=False` leaves out tension and clearance (NaN then, and no SLACK or GROUNDED), which halves the work.
    `options` are those of `integrate_phase` (`mode="forward"` for the fastest derivatives). With the default controller
    ranges are accurate to 1e-9 relative, with `FAST` to 1e-6.
    """
    c = _chain(p, check=check, stepsize_controller=stepsize_controller, solver=solver, **options)
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
    return defined(possible & (phase.status == Status.FINISHED), phase.t)


def _status(p: Trebuchet, c: _Chain, tension, clearance) -> Count:
    """The first thing that went wrong, else whether the throw was physical."""
    begun = start(p)
    missed = lambda phase: phase.status == Status.EVENT_NOT_FOUND
    failed = lambda phase: phase.status != Status.FINISHED
    cases = [
        (p.h_pivot >= p.l_long, ThrowStatus.STARTS_TOO_HIGH),
        (m.ground_push(0.0, begun, p) <= 0, ThrowStatus.LIFTS_AT_START),
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


class Drawing(NamedTuple):
    """Times (s) and points to draw then, each of shape (frames, 2): m from the pivot's foot."""

    t: Float[Array, " frames"]
    pivot: Float[Array, "frames 2"]
    hinge: Float[Array, "frames 2"]
    weight: Float[Array, "frames 2"]
    tip: Float[Array, "frames 2"]
    ball: Float[Array, "frames 2"]


def drawing(p: Trebuchet, result: Throw, frames: int = 40) -> Drawing:
    """Where the parts of the machine and the ball are during a throw that landed; the arm rests after the release.

    One frame at the start, then as many as `frames` for each phase, evenly: 0 is rest, `frames` lift-off, twice and
    three times `frames` release and impact. Each phase is followed by equal steps of Tsit5 from one frame to the next:
    with 40 of them that is good to a millimetre.
    """
    phases = jnp.stack([jnp.zeros_like(result.range), result.t_liftoff, result.t_release, result.t_impact])
    ts = [jnp.linspace(t0, t1, frames + 1) for t0, t1 in pairwise(phases)]

    def follow(field, state, t0, t1):
        step = lambda state, _: zero_order_hold(field, state, p, (t1 - t0) / frames)
        return rollout(step, state, length=frames)

    begun, as_swing = start(p), jax.vmap(lambda s: m.sliding_as_swing(0.0, s, p))
    lifting, slides = follow(m.slide, begun, *phases[:2])
    released, swings = follow(m.swing, m.sliding_as_swing(0.0, lifting, p), *phases[1:3])
    _, flights = follow(m.flight, result.release, *phases[2:])
    rest = jax.tree.map(lambda x: jnp.broadcast_to(x, (frames, *x.shape)), released)
    first = jax.tree.map(lambda x: x[None], begun)
    machine = [as_swing(first), as_swing(slides), swings, rest]
    machine = jax.tree.map(lambda *parts: jnp.concatenate(parts), *machine)
    carried = jax.vmap(lambda s: m.ball(0.0, s, p))(machine)
    balls = jax.tree.map(lambda a, b: jnp.concatenate([a[: 2 * frames + 1], b]), carried, flights)
    return _points(p, jnp.concatenate([ts[0], ts[1][1:], ts[2][1:]]), machine, balls)


def _points(p: Trebuchet, ts, swings: Swing, balls: Flight) -> Drawing:
    along = lambda direction, length: length * jnp.stack(direction, axis=-1)
    pivot = jnp.broadcast_to(jnp.stack([jnp.zeros_like(p.h_pivot), p.h_pivot]), (ts.shape[0], 2))
    hinge = pivot + along(swings.arm, p.l_short)
    weight = hinge + along(swings.hanger, p.l_weight)
    tip = pivot - along(swings.arm, p.l_long)
    return Drawing(ts, pivot, hinge, weight, tip, jnp.stack([balls.x, balls.y], axis=-1))
