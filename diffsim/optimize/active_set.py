"""Parameters on their bounds in the course of a fit: an active set within the transform of the bounds.

The derivative of the transform vanishes near a bound, so that a solver slows down and may never arrive, or jumps so far
that it cannot return. A parameter that has come close to a bound while the loss still decreases towards it is therefore
set on the bound (made active) and the others continue. When they have converged, the sign of the loss's derivative
decides whether it stays there: the conditions of Karush, Kuhn and Tucker.
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

# Shares of a parameter's first distance from a bound:
NEAR = 0.1  # within it a parameter may become active
RELEASED = 1e-3  # where an active parameter continues if it belongs inside
# Shares of a parameter's range:
STUCK = 1e-6  # within it the transform's derivative is too small for a parameter to return by itself
RESTARTED = 0.01  # where a stuck parameter starts again
MAX_ACTIVATIONS = 2  # times that a parameter becomes active; then the transform alone keeps it within the bounds
MAX_MOVES = 4  # times that a parameter becomes active or starts again


class Iterate(NamedTuple):
    """The parameters in the course of a fit, all in flat vectors.

    Attributes:
        z: The parameters without bounds, as `unconstrain` maps them.
        active: Which of them are set on a bound.
        bound: The bound that each active one is set on.
        activations: How often each has become active.
        moves: How often each has become active, was released or started again.
    """

    z: Vector
    active: Bool[Array, " n"]
    bound: Vector
    activations: Int[Array, " n"]
    moves: Int[Array, " n"]


class FlatProblem(NamedTuple):
    """A fit in flat vectors.

    Attributes:
        value: The residuals or the loss of the parameters `x` within their bounds.
        bounded: `x` of the parameters `z` without bounds.
        free: The inverse of `bounded`.
        squares: Whether `value` returns residuals, whose sum of squares is minimized.
        low, high: The bounds.
    """

    value: Callable[[Vector], Any]
    bounded: Callable[[Vector], Vector]
    free: Callable[[Vector], Vector]
    squares: bool
    low: np.ndarray
    high: np.ndarray

    def parameters(self, iterate: Iterate) -> Vector:
        """The parameters within their bounds."""
        return jnp.where(iterate.active, iterate.bound, self.bounded(iterate.z))

    def objective(self, z: Vector, iterate: Iterate) -> tuple[Any, Any]:
        """The function that the solver minimizes; a penalty keeps the active entries of `z` where they are."""
        value = self.value(self.parameters(iterate._replace(z=z)))
        if not self.has_bounds:
            return value, None
        penalty = jnp.where(iterate.active, z - iterate.z, 0.0)
        return ((value, penalty) if self.squares else value + 0.5 * jnp.sum(penalty**2)), None

    @property
    def has_bounds(self) -> bool:
        """Whether any parameter has a bound."""
        return bool(np.any(np.isfinite(self.low) | np.isfinite(self.high)))

    def gradient(self, x: Vector) -> Vector:
        """The gradient of the loss; of residuals in forward mode, as the solvers differentiate them."""
        if not self.squares:
            return jax.grad(self.value)(x)
        flat = lambda x: ravel_pytree(self.value(x))[0]
        value, jacobian = value_and_jacobian(flat, x)
        return value @ jacobian


def bound_distances(problem: FlatProblem, x: Vector) -> Float[Array, "2 n"]:
    """The distances of the parameters from their lower and from their upper bounds."""
    return jnp.stack([x - problem.low, problem.high - x])


def near_bound(problem: FlatProblem, iterate: Iterate, first_distances: Array) -> Bool[Array, "2 n"]:
    """Which parameters are near their lower or upper bound, compared with the start, and may become active."""
    may = ~iterate.active & (iterate.activations < MAX_ACTIVATIONS)
    distances = bound_distances(problem, problem.parameters(iterate))
    return (distances <= NEAR * first_distances) & jnp.isfinite(first_distances) & may[None]


def update_active_set(
    problem: FlatProblem, iterate: Iterate, first_distances: Array, converged: Flag
) -> tuple[Iterate, Flag]:
    """The iterate with parameters active where the loss decreases towards a near bound, and whether anything changed.

    If the others have `converged`, active parameters are released where the loss decreases inwards, and those stuck
    near a bound start again further inside.
    """
    gradient = problem.gradient(problem.parameters(iterate))
    outward = jnp.stack([gradient > 0, gradient < 0])
    low, high = near_bound(problem, iterate, first_distances) & outward
    on_side = jnp.stack([iterate.bound == problem.low, iterate.bound != problem.low]) & iterate.active[None]
    released = on_side & ~outward & converged
    width = problem.high - problem.low
    ranges = jnp.where(jnp.isfinite(width)[None], width[None], first_distances)
    is_stuck = bound_distances(problem, problem.parameters(iterate)) <= STUCK * ranges
    stuck = is_stuck & jnp.isfinite(first_distances) & ~outward & converged
    stuck &= ~iterate.active[None] & (iterate.moves < MAX_MOVES)[None]
    inside = jnp.where(stuck, RESTARTED * ranges, RELEASED * first_distances)
    side = released | stuck
    moved = jnp.any(side, axis=0)
    x = jnp.where(side[0], problem.low + inside[0], problem.high - inside[1])
    x = jnp.where(moved, x, problem.bounded(jnp.zeros_like(iterate.z)))
    new = Iterate(
        z=jnp.where(moved, problem.free(x), iterate.z),
        active=(iterate.active & ~moved) | low | high,
        bound=jnp.where(low, problem.low, jnp.where(high, problem.high, iterate.bound)),
        activations=iterate.activations + (low | high),
        moves=iterate.moves + (low | high | moved),
    )
    return new, jnp.any(low | high | moved)
