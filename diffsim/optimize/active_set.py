"""Parameters that settle on a bound in the course of a fit.

The transform behind a bound loses its slope as a parameter comes near, so that a solver creeps and may never arrive, or
leaps so far that it cannot come back. A parameter that has come close while the loss still falls towards the bound is
therefore set on it and held, and the others go on; where they end, the loss's derivative tells whether it stays
(the conditions of Karush, Kuhn and Tucker).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from .._types import Flag, Vector
from ..autodiff.jacobian import value_and_jacobian

NEAR = 0.1  # of its first distance from a bound: from here a parameter may settle on it
RELEASED = 1e-3  # of that distance: where it goes on if it turns out to belong inside
STUCK = 1e-6  # of its range: from here the transform's slope is too small to come back by itself
AGAIN = 0.01  # of its range: where a parameter begins anew that was stuck
HOLDS = 2  # times that a parameter is set on a bound; then it is left to the transform
MOVES = 4  # times that it is set on a bound or begins anew


class Place(NamedTuple):
    """Free numbers of all parameters, which are held on which bound, how often they were, and were moved."""

    z: Vector
    held: Bool[Array, " n"]
    bound: Vector
    holds: Int[Array, " n"]
    moves: Int[Array, " n"]


class Problem(NamedTuple):
    """A fit in flat numbers: what it minimizes at bounded parameters `x`, and how to come by them."""

    value: Callable[[Vector], Any]
    bounded: Callable[[Vector], Vector]
    free: Callable[[Vector], Vector]
    squares: bool
    low: np.ndarray
    high: np.ndarray

    def at(self, place: Place) -> Vector:
        """The parameters at a place."""
        return jnp.where(place.held, place.bound, self.bounded(place.z))

    def function(self, z: Vector, place: Place) -> tuple[Any, Any]:
        """What the solver sees: the residuals or the loss, in which a held number is kept where it is."""
        value = self.value(self.at(place._replace(z=z)))
        if not self.bounds:
            return value, None
        kept = jnp.where(place.held, z - place.z, 0.0)
        return ((value, kept) if self.squares else value + 0.5 * jnp.sum(kept**2)), None

    @property
    def bounds(self) -> bool:
        """Whether any parameter has a bound."""
        return bool(np.any(np.isfinite(self.low) | np.isfinite(self.high)))

    def slope(self, x: Vector) -> Vector:
        """The derivative of the loss; of residuals in forward mode, as the solvers take it."""
        if not self.squares:
            return jax.grad(self.value)(x)
        flat = lambda x: ravel_pytree(self.value(x))[0]
        value, jacobian = value_and_jacobian(flat, x)
        return value @ jacobian


def distances(problem: Problem, x: Vector) -> Float[Array, "2 n"]:
    """How far parameters are from their lower, and from their upper bound."""
    return jnp.stack([x - problem.low, problem.high - x])


def near(problem: Problem, place: Place, gaps: Array) -> Bool[Array, "2 n"]:
    """Which parameters are near their lower, or their upper bound, and may be set on it; `gaps` were their first."""
    able = ~place.held & (place.holds < HOLDS)
    return (distances(problem, problem.at(place)) <= NEAR * gaps) & jnp.isfinite(gaps) & able[None]


def settle(problem: Problem, place: Place, gaps: Array, over: Flag) -> tuple[Place, Flag]:
    """The place with parameters set on their bound where the loss falls towards it, and whether anything changed.

    When all is `over`, those held are let go where the loss falls inwards, and those stuck near a bound are sent back.
    """
    slope = problem.slope(problem.at(place))
    outward = jnp.stack([slope > 0, slope < 0])
    low, high = near(problem, place, gaps) & outward
    on = jnp.stack([place.bound == problem.low, place.bound != problem.low]) & place.held[None]
    leave = on & ~outward & over
    wide = problem.high - problem.low
    ranges = jnp.where(jnp.isfinite(wide)[None], wide[None], gaps)
    stuck = (distances(problem, problem.at(place)) <= STUCK * ranges) & jnp.isfinite(gaps) & ~outward & over
    stuck &= ~place.held[None] & (place.moves < MOVES)[None]
    inside = jnp.where(stuck, AGAIN * ranges, RELEASED * gaps)
    back = leave | stuck
    moved = jnp.any(back, axis=0)
    x = jnp.where(back[0], problem.low + inside[0], problem.high - inside[1])
    x = jnp.where(moved, x, problem.bounded(jnp.zeros_like(place.z)))
    new = Place(
        z=jnp.where(moved, problem.free(x), place.z),
        held=(place.held & ~moved) | low | high,
        bound=jnp.where(low, problem.low, jnp.where(high, problem.high, place.bound)),
        holds=place.holds + (low | high),
        moves=place.moves + (low | high | moved),
    )
    return new, jnp.any(low | high | moved)
