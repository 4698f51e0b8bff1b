"""The compiled part of a fit by optimistix: iterations within bounds, and parameters that settle on a bound.

The transform behind a bound loses its slope as a parameter comes near, so that a solver creeps and may never arrive, or
leaps so far that it cannot come back. A parameter that has come close while the loss still falls towards the bound is
therefore set on it and held, and the others go on; where they end, the loss's derivative tells whether it stays
(the conditions of Karush, Kuhn and Tucker).
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from .._errors import InputError
from .._types import Count, Flag, Model, Vector
from ..parameters import constrain, limits, unconstrain

Solver = optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser

NEAR = 0.1  # of its first distance from a bound: from here a parameter may settle on it
STUCK = 1e-6  # of that distance: from here the transform's slope is too small to come back by itself
AGAIN = 0.05  # of that distance: where a parameter begins anew that was stuck
LEVEL = 1e-6  # of the loss: the change that a slope may make, per unit or share of its parameter, where all is over
HOLDS = 2  # times that a parameter is set on a bound; then it is left to the transform


class FitStatus(enum.IntEnum):
    """How one fit ended. Up to AT_BOUND it is a minimum, as far as the solver's tolerances tell."""

    CONVERGED = 0
    AT_BOUND = 1
    STEP_LIMIT = 2
    NON_FINITE = 3

    @property
    def explanation(self) -> str:
        """What the status means and what to do about it."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = (
    "converged to the solver's tolerances, within the bounds",
    "converged, with a parameter on its bound, beyond which the loss would fall further",
    "step limit: the solver did not come to its tolerances; raise steps, or scale the residuals",
    "non-finite: the loss of the starting model, or of a step that the solver took, is not finite; start elsewhere",
)


class End(NamedTuple):
    """Where a fit came to: the trained parameters within their bounds, the loss of each iteration, and how it ended.

    The losses after the last iteration are NaN.
    """

    trained: Model
    losses: Float[Array, " steps"]
    status: Count


class Place(NamedTuple):
    """Free numbers of all parameters, which of them are held, on which bound, and how often they were so far."""

    z: Vector
    held: Bool[Array, " n"]
    bound: Vector
    holds: Array


class _Loop(NamedTuple):
    place: Place
    state: Any
    number: Count
    losses: Float[Array, " steps"]
    over: Flag


class Problem(NamedTuple):
    """A fit in flat numbers: what it minimises at bounded parameters `x`, and how to come by them."""

    value: Callable[[Vector], Any]
    bounded: Callable[[Vector], Vector]
    free: Callable[[Vector], Vector]
    squares: bool
    low: np.ndarray
    high: np.ndarray

    def at(self, place: Place) -> Vector:
        """The parameters at a place."""
        return jnp.where(place.held, place.bound, self.bounded(place.z))

    def function(self, z: Vector, place: Place):
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
        return flat(x) @ jax.jacfwd(flat)(x)


@eqx.filter_jit
def iterate(function, solver: Solver, trained: Model, fixed: Model, data, steps: int, active) -> End:
    """The end of a fit of `function(model, data)` from free parameters; with `active` false nothing but its start."""
    problem, start = _problem(function, solver, trained, fixed, data)
    options: dict = {}
    begin = lambda place: solver.init(problem.function, place.z, place, options, shape, None, frozenset())
    shape = jax.eval_shape(problem.function, start.z, start)[0]
    _, static = eqx.partition(begin(start), eqx.is_array)
    dynamic = lambda state: eqx.filter(state, eqx.is_array)
    gaps = jnp.stack([problem.bounded(start.z) - problem.low, problem.high - problem.bounded(start.z)])

    def step(loop: _Loop) -> _Loop:
        place, state = loop.place, eqx.combine(loop.state, static)
        arguments = (problem.function, place.z, place, options, state, frozenset())
        z, state, _ = solver.step(*arguments)
        over, _ = solver.terminate(problem.function, z, place, options, state, frozenset())
        over, state = _stalled(problem, solver, place, z, over, state, begin)
        loss = state.f_info.as_min()
        moved = jnp.isfinite(loss) & ~place.held
        after = loop._replace(place=place._replace(z=jnp.where(moved, z, place.z)), state=dynamic(state), over=over)
        after = after._replace(number=loop.number + 1, losses=loop.losses.at[loop.number].set(loss))
        if not problem.bounds:
            return after
        due = over | jnp.any(_close(problem, after.place, gaps, NEAR))
        return lax.cond(due, lambda loop: _settle(problem, loop, gaps, lambda p: dynamic(begin(p))), lambda x: x, after)

    healthy = lambda loop: (loop.number == 0) | jnp.isfinite(loop.losses[loop.number - 1])
    going = lambda loop: (loop.number < steps) & ~loop.over & healthy(loop)
    dtype = eqx.filter_eval_shape(lambda: begin(start).f_info.as_min()).dtype
    losses = jnp.full(steps, jnp.nan, dtype)
    loop = lax.while_loop(going, step, _Loop(start, dynamic(begin(start)), jnp.array(0), losses, ~active))
    done = jnp.where(jnp.any(loop.place.held), FitStatus.AT_BOUND, FitStatus.CONVERGED)
    status = jnp.where(healthy(loop), jnp.where(loop.over, done, FitStatus.STEP_LIMIT), FitStatus.NON_FINITE)
    return End(ravel_pytree(trained)[1](problem.at(loop.place)), loop.losses, status)


def _problem(function, solver: Solver, trained: Model, fixed: Model, data) -> tuple[Problem, Place]:
    """The fit in flat numbers, and where it starts."""
    z, unravel = ravel_pytree(trained)
    squares = isinstance(solver, optx.AbstractLeastSquaresSolver)
    value = lambda x: function(eqx.combine(unravel(x), fixed), data)
    shape = jax.eval_shape(value, z)
    if not isinstance(solver, (optx.AbstractGaussNewton, optx.AbstractQuasiNewton, optx.AbstractGradientDescent)):
        raise InputError(
            f"solver {type(solver).__name__}: give one of optimistix that follows slopes, as LBFGS or Dogleg"
        )
    if not squares and jax.tree.leaves(shape)[0].shape != ():
        raise InputError(f"the loss has shape {jax.tree.leaves(shape)[0].shape}; it must be one number")
    bounded = lambda z: ravel_pytree(constrain(unravel(z)))[0]
    free = lambda x: ravel_pytree(unconstrain(unravel(x)))[0]
    low, high = limits(trained)
    start = Place(z, jnp.zeros(z.shape, bool), z, jnp.zeros(z.shape, int))
    return Problem(value, bounded, free, squares, low.astype(z.dtype), high.astype(z.dtype)), start


def _stalled(problem: Problem, solver: Solver, place: Place, z: Vector, over: Flag, state, begin: Callable):
    """Whether all is over, and the solver's state, when a step was refused and the next is below the tolerances.

    Near a minimum roundings refuse every step. Damped least squares go down the slope at last, so that this is the end;
    a minimiser whose memory has led it astray forgets it and begins anew, unless its slope is as good as zero.
    """
    small = jnp.abs(state.y_eval - z) <= solver.atol + solver.rtol * jnp.abs(z)
    refused = jnp.all(z == place.z) & jnp.all(small) & ~state.first_step
    if problem.squares:
        return over | refused, state
    info = state.f_info
    level = jnp.abs(info.grad) * jnp.maximum(jnp.abs(z), 1.0) <= LEVEL * jnp.maximum(jnp.abs(info.f), solver.atol)
    astray = refused & ~jnp.all(level)
    arrays, static = eqx.partition(state, eqx.is_array)
    fresh = eqx.filter(begin(place._replace(z=z)), eqx.is_array)
    state = eqx.combine(jax.tree.map(lambda a, b: jnp.where(astray, a, b), fresh, arrays), static)
    return over | (refused & jnp.all(level)), state


def _close(problem: Problem, place: Place, gaps: Array, share: float) -> Bool[Array, "2 n"]:
    """Which parameters are close to their lower, and to their upper bound, and free to be held."""
    x = problem.at(place)
    distance = jnp.stack([x - problem.low, problem.high - x])
    able = ~place.held & (place.holds < HOLDS)
    return (distance <= share * gaps) & jnp.isfinite(gaps) & able[None]


def _settle(problem: Problem, loop: _Loop, gaps: Array, begin: Callable) -> _Loop:
    """The loop with parameters set on their bound where the loss falls towards it, and let go where it does not.

    They are let go, and those that are stuck near a bound they should leave are sent back, only when all is over.
    """
    place = loop.place
    slope = problem.slope(problem.at(place))
    outward = jnp.stack([slope > 0, slope < 0])
    low, high = _close(problem, place, gaps, NEAR) & outward
    leave = jnp.where(place.bound == problem.low, outward[1], outward[0]) & place.held & loop.over
    stuck = _close(problem, place, gaps, STUCK) & outward[::-1] & loop.over
    inside = jnp.where(stuck[0], problem.low + AGAIN * gaps[0], problem.high - AGAIN * gaps[1])
    back = jnp.any(stuck, axis=0)
    x = jnp.where(back, inside, problem.bounded(jnp.zeros_like(place.z)))
    changed = low | high | leave | back
    new = Place(
        z=jnp.where(back, problem.free(x), place.z),
        held=(place.held & ~leave) | low | high,
        bound=jnp.where(low, problem.low, jnp.where(high, problem.high, place.bound)),
        holds=place.holds + (low | high | back),
    )
    anew = jnp.any(changed)
    state = jax.tree.map(lambda a, b: jnp.where(anew, a, b), begin(new), loop.state)
    return loop._replace(place=new, state=state, over=loop.over & ~anew)
