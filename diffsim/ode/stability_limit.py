"""Step sizes that suit a trajectory's neighbours too, and so its derivatives, where its own error says nothing.

The error estimate of a component at rest is zero whatever the step, so that steps grow until the method is unstable for
every trajectory nearby: the value stays right and its derivative explodes. Where a component has moved by less than a
few tolerances, a step is therefore first tried from a state nearby. It takes place only if that error passes as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._jax.tangents import freeze
from .._types import Count, Flag, Scalar, Vector
from .runge_kutta import Point

_QUIET = 10  # tolerances that a component moves in a step: less, and the error estimate is not that of its neighbours
_DISTANCE = 1000.0  # tolerances from a state to its neighbour, at least
_FRESH = 1e6  # the same in a component that is at rest from the start, whose derivative is as accurate as its inverse
_CHANGE = 16.0  # the most by which a distance falls from one trial to the next
_NEAREST = 0.01  # of the state itself: its neighbour is no farther, at loose tolerances
_WAIT = 16  # steps for which the size that a trial allowed is not exceeded
_TRIES = 8


class Stability(NamedTuple):
    """The largest step that was good for a neighbour, and how far the trial of the next one is.

    A trial is an attempt of no length, which gives the slope at the neighbour, and then attempts at steps from there.
    """

    attempts: Count  # of the trial under way; 0 without one; below 0 less the steps for which no other is made
    slope: Vector  # at the neighbour, less that at the point
    largest: Scalar  # in a trial: the step that is tried
    distance: Vector  # of the neighbour, in tolerances


def watches(controller, solver) -> bool:
    """Whether steps are watched: of explicit methods, whose stability ends, by controllers with tolerances."""
    if not (isinstance(controller, dfx.PIDController) and isinstance(solver, dfx.AbstractERK)):
        return False
    return jnp.ndim(controller.rtol) == jnp.ndim(controller.atol) == 0


def at_start(controller, slope: Callable, here: Point, h: Scalar, largest: Scalar) -> Stability:
    """Before the first step `h`, with a trial of one up to `largest`."""
    resting = _resting(controller, here.y, here.y + h * here.slope)
    distance = jnp.where(resting, _FRESH, _DISTANCE).astype(here.y.dtype)
    slopes = slope(here.t, here.y + _away(controller, here.y, distance)) - here.slope
    due = jnp.any(resting) & jnp.all(jnp.isfinite(slopes))
    return Stability(jnp.where(due, 2, 0), slopes, jnp.where(due, largest, 0.0), distance)


def start_of_attempt(controller, stability: Stability, point: Point, time: Scalar) -> tuple[Point, Scalar]:
    """Where an attempt starts and how long it is: at the point, or in a trial at its neighbour.

    The tangents remain those of the point.
    """
    away = _away(controller, freeze(point.y), stability.distance)
    y = point.y + jnp.where(stability.attempts > 0, away, 0.0)
    slope = point.slope + jnp.where(stability.attempts > 1, stability.slope, 0.0)
    tried = jnp.where(stability.attempts == 1, 0.0, stability.largest)
    return point._replace(y=y, slope=slope), jnp.where(stability.attempts > 0, tried, time)


def _away(controller, y: Vector, distance: Vector) -> Vector:
    """From `y` to its neighbour: so many tolerances in every component, up or down."""
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], y.shape), y.dtype)
    distance = jnp.minimum(distance, _NEAREST / jnp.maximum(controller.rtol, 1e-30))
    return signs * (distance * _tolerance(controller, y)).astype(y.dtype)


def after_step(controller, stability: Stability, start: Vector, end: Vector, h: Scalar) -> tuple[Stability, Scalar]:
    """What is known after a step, and the next step, which the controller would make `h`."""
    attempts, _, largest, _ = stability
    quiet = jnp.any(_resting(controller, start, end))
    waiting = quiet & (attempts < 0)
    h = jnp.where(waiting, jnp.minimum(h, largest), h)
    due = quiet & ~waiting & (h > largest)
    attempts = jnp.where(waiting, attempts + 1, due.astype(attempts.dtype))
    return stability._replace(attempts=attempts, largest=jnp.where(due, h, largest)), h


def after_attempt(
    controller,
    stability: Stability,
    start: Vector,
    end: Vector,
    slopes: Vector,
    h: Scalar,
    accept: Flag,
    smaller: Scalar,
):
    """What is known after an attempt of a trial, and the step that is next, which would be `h`.

    The attempt of a step leads from the neighbour of `start` to `end`. `slopes` is by how much the slope there differs
    from that at the point, and `smaller` the step that the controller would make of one that was refused.
    """
    attempts, slope, largest, distance = stability
    first = attempts == 1
    # Where the field is not defined at the neighbour, nothing can be learnt there.
    blind = first & ~jnp.all(jnp.isfinite(slopes))
    over = blind | (~first & accept) | (attempts > _TRIES)
    largest = jnp.where(first | accept, largest, smaller)
    waits = attempts > 2
    after = jnp.where(over, jnp.where(waits, -_WAIT, 0), attempts + 1)
    # The neighbour is not carried along: what it loses in this step it does in each until the next trial.
    away = jnp.maximum(jnp.abs(_away(controller, start, distance)), jnp.finfo(end.dtype).tiny)
    fresh = distance > _DISTANCE
    kept = jnp.max(jnp.where(fresh, jnp.abs(end - start) / away, 0.0))
    kept = jnp.clip(kept ** jnp.where(waits, _WAIT, 1), 1 / _CHANGE, 1.0)
    nearer = jnp.where(fresh, jnp.maximum(distance * kept, _DISTANCE), distance)
    distance = jnp.where(~first & accept, nearer, distance)
    known = Stability(after, jnp.where(first, slopes, slope), largest, distance)
    return known, jnp.where(over, jnp.minimum(h, largest), h)


def _tolerance(controller, y: Vector) -> Vector:
    return controller.atol + controller.rtol * jnp.abs(y)


def _resting(controller, start: Vector, end: Vector) -> Bool[Array, " n"]:
    """Which components have moved by less than a few tolerances."""
    return jnp.abs(end - start) < _QUIET * _tolerance(controller, start)
