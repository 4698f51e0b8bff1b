"""The compiled loop of a fit by optimistix: iterations within bounds, and a status that says how they ended."""

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
from ..autodiff.forward_mode import forward_mode
from ..parameters import constrain, unconstrain
from ..train.bounds import flat_bounds
from .active_set import FlatProblem, Iterate, bound_distances, near_bound, update_active_set
from .status import FitStatus

Solver = optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser

FEW_PARAMETERS = 10  # up to here the tangents of all parameters are computed along with the residuals
MIN_ITERATIONS_WITHOUT_PROGRESS = 10  # so many iterations without a lower loss are reported as no progress
MAX_STAGNANT = 2  # so many accepted steps in a row that leave a sum of squares as it is end a fit
STAGNATION = 1e-3  # of a solver's rtol: a smaller relative change of the sum of squares counts as none
# A minimizer ends where each derivative times max(parameter, 1) is below this share of the loss.
FLAT = 1e-6


class FitResult(NamedTuple):
    """The trained parameters within their bounds, the loss of each iteration (NaN after the last), and the status."""

    trained: Model
    losses: Float[Array, " steps"]
    status: Count


class _LoopState(NamedTuple):
    """What an iteration changes.

    Attributes:
        iterate: The parameters.
        solver_state: The arrays of the solver's state.
        number: The number of iterations made.
        losses: Their losses.
        ended: Whether the fit has ended.
        stagnant: The number of accepted steps in a row, up to now, that have not changed a sum of squares.
    """

    iterate: Iterate
    solver_state: Any
    number: Count
    losses: Float[Array, " steps"]
    ended: Flag
    stagnant: Count

    def is_healthy(self) -> Flag:
        """Whether the last loss is finite."""
        return (self.number == 0) | jnp.isfinite(self.losses[self.number - 1])


class _Iteration(NamedTuple):
    """An iteration of a solver within bounds.

    Attributes:
        problem: The problem that is solved.
        solver: The optimistix solver.
        first_state: The solver's state before the first iteration.
        first_distances: The distances from the bounds then.
    """

    problem: FlatProblem
    solver: Any
    first_state: Any
    first_distances: Array

    def restarted_at(self, z: Vector):
        """The arrays of the solver's state for a start at `z`: nothing else in it depends on the start."""
        return _arrays(eqx.tree_at(lambda state: state.y_eval, self.first_state, z))

    def step(self, loop: _LoopState) -> _LoopState:
        """The loop's state after one iteration."""
        iterate, problem = loop.iterate, self.problem
        state = eqx.combine(loop.solver_state, eqx.filter(self.first_state, eqx.is_array, inverse=True))
        z, state, _ = self.solver.step(problem.objective, iterate.z, iterate, {}, state, frozenset())
        converged, _ = self.solver.terminate(problem.objective, z, iterate, {}, state, frozenset())
        loss = state.f_info.as_min()
        stalled, misled = _stalled(problem, self.solver, iterate, z, state)
        state = _choose(misled, self.restarted_at(z), _arrays(state))
        iterate = iterate._replace(z=jnp.where(jnp.isfinite(loss) & ~iterate.active, z, iterate.z))
        losses = loop.losses.at[loop.number].set(loss)
        stagnant = _count_stagnant(problem, self.solver, loop, z, loss)
        ended = converged | stalled | (stagnant >= MAX_STAGNANT)
        after = _LoopState(iterate, state, loop.number + 1, losses, ended, stagnant)
        if not problem.has_bounds:
            return after
        is_due = after.ended | jnp.any(near_bound(problem, iterate, self.first_distances))
        return lax.cond(is_due, self.with_active_set, lambda loop: loop, after)

    def with_active_set(self, loop: _LoopState) -> _LoopState:
        """The loop's state with the active set updated, and the solver restarted if it has changed."""
        iterate, changed = update_active_set(self.problem, loop.iterate, self.first_distances, loop.ended)
        state = _choose(changed, self.restarted_at(iterate.z), loop.solver_state)
        stagnant = jnp.where(changed, 0, loop.stagnant)
        return loop._replace(iterate=iterate, solver_state=state, ended=loop.ended & ~changed, stagnant=stagnant)


@eqx.filter_jit
def run_iterations(function, solver: Solver, trained: Model, fixed: Model, data, steps: int, active) -> FitResult:
    """The result of a fit of `function(model, data)`.

    Args:
        function: Residuals for a least-squares solver, a loss for a minimizer.
        solver: An optimistix solver.
        trained: The parameters that train, without bounds.
        fixed: The rest of the model.
        data: The second argument of `function`.
        steps: The greatest number of iterations.
        active: Whether to iterate at all: a call with False compiles and returns the start.
    """
    problem, start = _flat_problem(function, solver, trained, fixed, data)
    shape = jax.eval_shape(problem.objective, start.z, start)[0]
    first = solver.init(problem.objective, start.z, start, {}, shape, None, frozenset())
    iteration = _Iteration(problem, solver, first, bound_distances(problem, problem.bounded(start.z)))
    losses = jnp.full(steps, jnp.nan, jax.eval_shape(first.f_info.as_min).dtype)
    is_running = lambda loop: (loop.number < steps) & ~loop.ended & loop.is_healthy()
    loop = _LoopState(start, _arrays(first), jnp.array(0), losses, ~active, jnp.array(0))
    loop = lax.while_loop(is_running, iteration.step, loop)
    result = ravel_pytree(trained)[1](problem.parameters(loop.iterate))
    return FitResult(result, loop.losses, _status(problem, loop))


def _status(problem: FlatProblem, loop: _LoopState) -> Count:
    """The FitStatus at the end of the loop."""
    converged = jnp.where(jnp.any(loop.iterate.active), FitStatus.AT_BOUND, FitStatus.CONVERGED)
    healthy = loop.is_healthy()
    status = jnp.where(healthy, jnp.where(loop.ended, converged, FitStatus.STEP_LIMIT), FitStatus.NON_FINITE)
    return jnp.where(_no_progress(problem, loop) & healthy, FitStatus.NO_PROGRESS, status)


def _flat_problem(function, solver: Solver, trained: Model, fixed: Model, data) -> tuple[FlatProblem, Iterate]:
    """The fit in flat vectors, and the iterate that it starts from."""
    z, unravel = ravel_pytree(trained)
    squares = isinstance(solver, optx.AbstractLeastSquaresSolver)
    arrays, static = eqx.partition((function, fixed, data), eqx.is_array)

    def of_arrays(x, arrays):
        function, fixed, data = eqx.combine(arrays, static)
        return function(eqx.combine(unravel(x), fixed), data)

    # The solver asks for values in several places; a jit, even one that is inlined, lets them share one trace.
    traced = jax.jit(of_arrays, inline=True)
    value = lambda x: traced(x, arrays)
    if squares and z.size <= FEW_PARAMETERS:
        # Otherwise the solver linearizes the simulation, which compiles several more copies of it.
        value = forward_mode(value)
    if not isinstance(solver, (optx.AbstractGaussNewton, optx.AbstractQuasiNewton, optx.AbstractGradientDescent)):
        raise InputError(
            f"solver {type(solver).__name__}: give one of optimistix that follows slopes, as LBFGS or Dogleg"
        )
    if not squares and (shape := jax.tree.leaves(jax.eval_shape(value, z))[0].shape) != ():
        raise InputError(f"the loss has shape {shape}; it must be one number")
    bounded = lambda z: ravel_pytree(constrain(unravel(z)))[0]
    free = lambda x: ravel_pytree(unconstrain(unravel(x)))[0]
    low, high = flat_bounds(trained)
    start = Iterate(z, jnp.zeros(z.shape, bool), z, *(2 * [jnp.zeros(z.shape, int)]))
    return FlatProblem(value, bounded, free, squares, low.astype(z.dtype), high.astype(z.dtype)), start


def _stalled(problem: FlatProblem, solver, iterate: Iterate, z: Vector, state) -> tuple[Flag, Flag]:
    """Whether the fit has ended, and whether the solver is misled, by a refused step with the next one negligible.

    Near a minimum rounding makes every step be refused. Damped least squares end up in steepest descent, so that a
    refused step is the end. A minimizer may be misled by its approximate Hessian: it discards that and restarts, unless
    its gradient is negligible too.
    """
    tolerance = solver.atol + solver.rtol * jnp.abs(z)
    refused = jnp.all(z == iterate.z) & jnp.all(jnp.abs(state.y_eval - z) <= tolerance) & ~state.first_step
    if problem.squares:
        return refused, jnp.array(False)
    gradient, value = jnp.abs(state.f_info.grad), jnp.abs(state.f_info.f)
    is_flat = (gradient * jnp.maximum(jnp.abs(z), 1.0) <= FLAT * value) | (gradient <= tolerance)
    return refused & jnp.all(is_flat), refused & ~jnp.all(is_flat)


def _count_stagnant(problem: FlatProblem, solver, loop: _LoopState, z: Vector, loss) -> Count:
    """The number of accepted steps in a row, this one included, that have not lowered a sum of squares noticeably."""
    if not problem.squares:
        return loop.stagnant
    before = loop.losses[jnp.maximum(loop.number - 1, 0)]
    rtol = max(STAGNATION * solver.rtol, 4 * float(jnp.finfo(loss.dtype).eps))
    accepted = jnp.any(z != loop.iterate.z) & (loop.number > 0)
    return jnp.where(accepted, jnp.where(before - loss <= rtol * loss, loop.stagnant + 1, 0), loop.stagnant)


def _no_progress(problem: FlatProblem, loop: _LoopState) -> Flag:
    """Whether no iteration was below the first loss, that of the start, and that was not zero."""
    lowered = jnp.any(loop.losses < loop.losses[0]) | jnp.any(loop.iterate.active)
    is_least = problem.squares & (loop.losses[0] == 0)
    return ~lowered & ~is_least & (loop.ended | (loop.number >= MIN_ITERATIONS_WITHOUT_PROGRESS))


def traced_now(function: Callable, model: Model, data: PyTree) -> Callable:
    """`function(model, data)` as a traced program with the present values of what it closes over.

    Otherwise a compiled fit is found in the cache by the function's identity, with the values of the first call.
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
