"""The positions of machine and ball at the frames of a throw, for drawings."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...discrete.rollout import rollout
from ...discrete.zero_order_hold import zero_order_hold
from . import machine as m
from .machine import Flight, Swing, Trebuchet
from .shot import Throw, start


class Drawing(NamedTuple):
    """Times (s), and the points to draw at each of them, in m from the foot of the pivot."""

    t: Float[Array, " frames"]
    pivot: Float[Array, "frames 2"]
    hinge: Float[Array, "frames 2"]
    weight: Float[Array, "frames 2"]
    tip: Float[Array, "frames 2"]
    ball: Float[Array, "frames 2"]


def drawing(p: Trebuchet, result: Throw, frames: int = 40) -> Drawing:
    """The positions of the machine's parts and of the ball during a throw that landed; the arm rests after the release.

    Frame 0 is the start, frame `frames` the lift-off, `2 * frames` the release and `3 * frames` the impact, and the
    frames of a phase are evenly spaced in time. From one frame to the next the motion is one step of Tsit5.

    Args:
        p: The machine.
        result: Its throw.
        frames: The number of frames of each phase. With 40 the error is below a millimetre.
    """
    phases = jnp.stack([jnp.zeros_like(result.range), result.t_liftoff, result.t_release, result.t_impact])
    ts = [jnp.linspace(t0, t1, frames + 1) for t0, t1 in pairwise(phases)]

    def simulate(field, state, t0, t1):
        step = lambda state, _: zero_order_hold(field, state, p, (t1 - t0) / frames)
        return rollout(step, state, length=frames)

    initial, as_swing = start(p), jax.vmap(lambda s: m.sliding_as_swing(0.0, s, p))
    at_liftoff, slides = simulate(m.slide, initial, *phases[:2])
    at_release, swings = simulate(m.swing, m.sliding_as_swing(0.0, at_liftoff, p), *phases[1:3])
    _, flights = simulate(m.flight, result.release, *phases[2:])
    rest = jax.tree.map(lambda x: jnp.broadcast_to(x, (frames, *x.shape)), at_release)
    first = jax.tree.map(lambda x: x[None], initial)
    machine = [as_swing(first), as_swing(slides), swings, rest]
    machine = jax.tree.map(lambda *parts: jnp.concatenate(parts), *machine)
    in_sling = jax.vmap(lambda s: m.ball(0.0, s, p))(machine)
    balls = jax.tree.map(lambda a, b: jnp.concatenate([a[: 2 * frames + 1], b]), in_sling, flights)
    return _points(p, jnp.concatenate([ts[0], ts[1][1:], ts[2][1:]]), machine, balls)


def _points(p: Trebuchet, ts, swings: Swing, balls: Flight) -> Drawing:
    """The points to draw, from the states of machine and ball."""
    along = lambda direction, length: length * jnp.stack(direction, axis=-1)
    pivot = jnp.broadcast_to(jnp.stack([jnp.zeros_like(p.h_pivot), p.h_pivot]), (ts.shape[0], 2))
    hinge = pivot + along(swings.arm, p.l_short)
    weight = hinge + along(swings.hanger, p.l_weight)
    tip = pivot - along(swings.arm, p.l_long)
    return Drawing(ts, pivot, hinge, weight, tip, jnp.stack([balls.x, balls.y], axis=-1))
