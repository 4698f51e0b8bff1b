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
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._jax.traced_function import Traced
from .._types import Count, Flag, Model, Vector
from ..autodiff.forward_mode import few_inputs
from ..parameters import constrain, unconstrain
from ..train.bounds import flat_bounds
from .active_set import Place, Problem, distances, near, settle

Solver = optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser

FEW = 10  # parameters whose tangents travel along with the residuals
ENOUGH = 10  # iterations without a lower loss that tell of no progress, if the solver has not ended before
STILL = 2  # accepted steps in a row that leave a sum of squares as it is: then all is over
SHARE = 1e-3  # of a solver's rtol: a relative change of the sum of squares below it is none
LEVEL = 1e-6  # of the loss: the change that a slope may make, per unit or share of its parameter, where all is over


class FitStatus(enum.IntEnum):
    """How one fit ended. Up to AT_BOUND it is a minimum, as far as the solver's tolerances tell."""

    CONVERGED = 0
    AT_BOUND = 1
    STEP_LIMIT = 2
    NON_FINITE = 3
    NO_PROGRESS = 4

    @property
    def explanation(self) -> str:
        """What the status means and what to do about it."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = (
    "converged to the solver's tolerances, within the bounds",
    "converged, with a parameter on its bound, beyond which the loss would fall further",
    "step limit: the solver did not come to its tolerances; raise steps, or scale the residuals",
    "non-finite: the loss of the starting model, or of a step that the solver took, is not finite; start elsewhere",
    "no progress: no step lowered the loss; the start is a minimum, or the derivatives there are wrong",
)


class End(NamedTuple):
    """Where a fit came to: the trained parameters within their bounds, the loss of each iteration, and how it ended.

    The losses after the last iteration are NaN.
    """

    trained: Model
    losses: Float[Array, " steps"]
    status: Count


class _Loop(NamedTuple):
    """What an iteration changes: the place, the arrays of the solver's state, iterations made and their losses.

    `still` counts the accepted steps, up to now, that have not changed a sum of squares.
    """

    place: Place
    state: Any
    number: Count
    losses: Float[Array, " steps"]
    over: Flag
    still: Count

    def healthy(self) -> Flag:
        """Whether the last loss is finite."""
        return (self.number == 0) | jnp.isfinite(self.losses[self.number - 1])


class _Engine(NamedTuple):
    """What an iteration is made with: `first` is the solver's state before all, `gaps` the bounds' distances then."""

    problem: Problem
    solver: Any
    first: Any
    gaps: Array

    def fresh(self, z: Vector):
        """The solver's state, arrays only, for a beginning at `z`: all else in it is empty."""
        return _arrays(eqx.tree_at(lambda state: state.y_eval, self.first, z))

    def step(self, loop: _Loop) -> _Loop:
        """The loop after one iteration."""
        place, problem = loop.place, self.problem
        state = eqx.combine(loop.state, eqx.filter(self.first, eqx.is_array, inverse=True))
        z, state, _ = self.solver.step(problem.function, place.z, place, {}, state, frozenset())
        over, _ = self.solver.terminate(problem.function, z, place, {}, state, frozenset())
        loss = state.f_info.as_min()
        refused, astray = _stalled(problem, self.solver, place, z, state)
        state = _choose(astray, self.fresh(z), _arrays(state))
        place = place._replace(z=jnp.where(jnp.isfinite(loss) & ~place.held, z, place.z))
        losses = loop.losses.at[loop.number].set(loss)
        still = _standing_still(problem, self.solver, loop, z, loss)
        after = _Loop(place, state, loop.number + 1, losses, over | refused | (still >= STILL), still)
        if not problem.bounds:
            return after
        due = after.over | jnp.any(near(problem, place, self.gaps))
        return lax.cond(due, self.settled, lambda loop: loop, after)

    def settled(self, loop: _Loop) -> _Loop:
        """The loop with parameters set on their bounds, or let go, and the solver begun anew if there are any."""
        place, anew = settle(self.problem, loop.place, self.gaps, loop.over)
        state = _choose(anew, self.fresh(place.z), loop.state)
        still = jnp.where(anew, 0, loop.still)
        return loop._replace(place=place, state=state, over=loop.over & ~anew, still=still)


@eqx.filter_jit
def iterate(function, solver: Solver, trained: Model, fixed: Model, data, steps: int, active) -> End:
    """The end of a fit of `function(model, data)` from free parameters; with `active` false nothing but its start."""
    problem, start = _problem(function, solver, trained, fixed, data)
    shape = jax.eval_shape(problem.function, start.z, start)[0]
    first = solver.init(problem.function, start.z, start, {}, shape, None, frozenset())
    engine = _Engine(problem, solver, first, distances(problem, problem.bounded(start.z)))
    losses = jnp.full(steps, jnp.nan, jax.eval_shape(first.f_info.as_min).dtype)
    going = lambda loop: (loop.number < steps) & ~loop.over & loop.healthy()
    loop = lax.while_loop(going, engine.step, _Loop(start, _arrays(first), jnp.array(0), losses, ~active, jnp.array(0)))
    done = jnp.where(jnp.any(loop.place.held), FitStatus.AT_BOUND, FitStatus.CONVERGED)
    status = jnp.where(loop.healthy(), jnp.where(loop.over, done, FitStatus.STEP_LIMIT), FitStatus.NON_FINITE)
    status = jnp.where(_no_progress(problem, loop) & loop.healthy(), FitStatus.NO_PROGRESS, status)
    return End(ravel_pytree(trained)[1](problem.at(loop.place)), loop.losses, status)


def _problem(function, solver: Solver, trained: Model, fixed: Model, data) -> tuple[Problem, Place]:
    """The fit in flat numbers, and where it starts."""
    z, unravel = ravel_pytree(trained)
    squares = isinstance(solver, optx.AbstractLeastSquaresSolver)
    arrays, static = eqx.partition((function, fixed, data), eqx.is_array)

    def once(x, arrays):
        function, fixed, data = eqx.combine(arrays, static)
        return function(eqx.combine(unravel(x), fixed), data)

    # The solver asks for values in several places; a jit, even one that is inlined, lets them share one trace.
    traced = jax.jit(once, inline=True)
    value = lambda x: traced(x, arrays)
    if squares and z.size <= FEW:
        # The solver linearises; through a simulation that takes several copies of it, and this one.
        value = few_inputs(value)
    if not isinstance(solver, (optx.AbstractGaussNewton, optx.AbstractQuasiNewton, optx.AbstractGradientDescent)):
        raise InputError(
            f"solver {type(solver).__name__}: give one of optimistix that follows slopes, as LBFGS or Dogleg"
        )
    if not squares and (shape := jax.tree.leaves(jax.eval_shape(value, z))[0].shape) != ():
        raise InputError(f"the loss has shape {shape}; it must be one number")
    bounded = lambda z: ravel_pytree(constrain(unravel(z)))[0]
    free = lambda x: ravel_pytree(unconstrain(unravel(x)))[0]
    low, high = flat_bounds(trained)
    start = Place(z, jnp.zeros(z.shape, bool), z, *(2 * [jnp.zeros(z.shape, int)]))
    return Problem(value, bounded, free, squares, low.astype(z.dtype), high.astype(z.dtype)), start


def _stalled(problem: Problem, solver, place: Place, z: Vector, state) -> tuple[Flag, Flag]:
    """Whether all is over, and whether the solver is astray, its step refused and the next below the tolerances.

    Near a minimum roundings refuse every step. Damped least squares go down the slope at last, so that this is the end;
    a minimizer whose memory has led it astray is to forget it and begin anew, unless its slope is as good as zero.
    """
    tolerance = solver.atol + solver.rtol * jnp.abs(z)
    refused = jnp.all(z == place.z) & jnp.all(jnp.abs(state.y_eval - z) <= tolerance) & ~state.first_step
    if problem.squares:
        return refused, jnp.array(False)
    slope, value = jnp.abs(state.f_info.grad), jnp.abs(state.f_info.f)
    level = (slope * jnp.maximum(jnp.abs(z), 1.0) <= LEVEL * value) | (slope <= tolerance)
    return refused & jnp.all(level), refused & ~jnp.all(level)


def _standing_still(problem: Problem, solver, loop: _Loop, z: Vector, loss) -> Count:
    """How many accepted steps in a row, this one included, have lowered a sum of squares by next to nothing."""
    if not problem.squares:
        return loop.still
    before = loop.losses[jnp.maximum(loop.number - 1, 0)]
    rtol = max(SHARE * solver.rtol, 4 * float(jnp.finfo(loss.dtype).eps))
    accepted = jnp.any(z != loop.place.z) & (loop.number > 0)
    return jnp.where(accepted, jnp.where(before - loss <= rtol * loss, loop.still + 1, 0), loop.still)


def _no_progress(problem: Problem, loop: _Loop) -> Flag:
    """Whether no iteration came below the first loss, which is that of the start, though it was not zero."""
    lowered = jnp.any(loop.losses < loop.losses[0]) | jnp.any(loop.place.held)
    least = problem.squares & (loop.losses[0] == 0)
    return ~lowered & ~least & (loop.over | (loop.number >= ENOUGH))


def as_it_is(function: Callable, model: Model, data: PyTree) -> Callable:
    """`function(model, data)` as a traced program, with what it closes over now.

    A compiled fit is otherwise found again by the function's identity, with the values of the first call.
    """
    return Traced.of(function, model, data)


def with_rtol(solver: Solver, rtol: float | None) -> Solver:
    """The solver with another relative tolerance and an absolute one changed by the same factor; itself for None."""
    if rtol is None:
        return solver
    if not 0 < rtol < 1:
        raise InputError(f"rtol={rtol:g}: give a relative tolerance between 0 and 1, such as 1e-6")
    if not (hasattr(solver, "rtol") and hasattr(solver, "atol")):
        raise InputError(f"rtol={rtol:g}: {type(solver).__name__} has no tolerances of its own")
    atol = solver.atol * rtol / solver.rtol if solver.rtol else solver.atol
    return eqx.tree_at(lambda solver: (solver.rtol, solver.atol), solver, (float(rtol), float(atol)))


def _arrays(tree):
    return eqx.filter(tree, eqx.is_array)


def _choose(which: Flag, new, old):
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)
