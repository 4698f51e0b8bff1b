"""The compiled part of a fit by optimistix: iterations within bounds, up to an end that has a name."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Count, Flag, Model, Vector
from ..parameters import constrain, unconstrain
from .bounds import limits
from .settle import Place, Problem, distances, near, settle

Solver = optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser

LEVEL = 1e-6  # of the loss: the change that a slope may make, per unit or share of its parameter, where all is over


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


class _Loop(NamedTuple):
    place: Place
    state: Any
    number: Count
    losses: Float[Array, " steps"]
    over: Flag


@eqx.filter_jit
def iterate(function, solver: Solver, trained: Model, fixed: Model, data, steps: int, active) -> End:
    """The end of a fit of `function(model, data)` from free parameters; with `active` false nothing but its start."""
    problem, start = _problem(function, solver, trained, fixed, data)
    options: dict = {}
    begin = lambda place: solver.init(problem.function, place.z, place, options, shape, None, frozenset())
    shape = jax.eval_shape(problem.function, start.z, start)[0]
    _, static = eqx.partition(begin(start), eqx.is_array)
    dynamic = lambda state: eqx.filter(state, eqx.is_array)
    gaps = distances(problem, problem.bounded(start.z))

    def settled(loop: _Loop) -> _Loop:
        place, anew = settle(problem, loop.place, gaps, loop.over)
        state = jax.tree.map(lambda a, b: jnp.where(anew, a, b), dynamic(begin(place)), loop.state)
        return loop._replace(place=place, state=state, over=loop.over & ~anew)

    def step(loop: _Loop) -> _Loop:
        place, state = loop.place, eqx.combine(loop.state, static)
        arguments = (problem.function, place.z, place, options, state, frozenset())
        z, state, _ = solver.step(*arguments)
        over, _ = solver.terminate(problem.function, z, place, options, state, frozenset())
        loss = state.f_info.as_min()
        over, state = _stalled(problem, solver, place, z, over, state, begin)
        moved = jnp.isfinite(loss) & ~place.held
        after = loop._replace(place=place._replace(z=jnp.where(moved, z, place.z)), state=dynamic(state), over=over)
        after = after._replace(number=loop.number + 1, losses=loop.losses.at[loop.number].set(loss))
        if not problem.bounds:
            return after
        due = over | jnp.any(near(problem, after.place, gaps))
        return lax.cond(due, settled, lambda loop: loop, after)

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
    start = Place(z, jnp.zeros(z.shape, bool), z, *(2 * [jnp.zeros(z.shape, int)]))
    return Problem(value, bounded, free, squares, low.astype(z.dtype), high.astype(z.dtype)), start


def _stalled(problem: Problem, solver: Solver, place: Place, z: Vector, over: Flag, state, begin: Callable):
    """Whether all is over, and the solver's state, when a step was refused and the next is below the tolerances.

    Near a minimum roundings refuse every step. Damped least squares go down the slope at last, so that this is the end;
    a minimiser whose memory has led it astray forgets it and begins anew, unless its slope is as good as zero.
    """
    tolerance = solver.atol + solver.rtol * jnp.abs(z)
    refused = jnp.all(z == place.z) & jnp.all(jnp.abs(state.y_eval - z) <= tolerance) & ~state.first_step
    if problem.squares:
        return over | refused, state
    slope, value = jnp.abs(state.f_info.grad), jnp.abs(state.f_info.f)
    level = (slope * jnp.maximum(jnp.abs(z), 1.0) <= LEVEL * value) | (slope <= tolerance)
    astray = refused & ~jnp.all(level)
    arrays, static = eqx.partition(state, eqx.is_array)
    fresh = eqx.filter(begin(place._replace(z=z)), eqx.is_array)
    state = eqx.combine(jax.tree.map(lambda a, b: jnp.where(astray, a, b), fresh, arrays), static)
    return over | (refused & jnp.all(level)), state
