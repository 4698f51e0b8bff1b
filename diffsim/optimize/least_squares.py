"""Least squares and minimization by second-order methods: Levenberg-Marquardt, Gauss-Newton, BFGS and variants."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._types import Model, Scalar
from ..parameters import at_bound, parameters, partition, unconstrain
from ..train.data import non_finite_in
from ..train.diagnosis import Finding, blame_data, diagnose_stuck
from ..train.history import FitError, History
from ..train.progress import ProgressBar
from ..train.validate import check_on_host
from .iterations import FitResult, Solver, run_iterations, traced_now, with_rtol
from .status import FitStatus

# The trust region grows after steps that achieve three quarters of what the linear model predicts (Nocedal and Wright,
# Numerical Optimization, Springer 2006, algorithm 4.1), not 99 hundredths: near a bound that is several times faster.
LEVENBERG_MARQUARDT = eqx.tree_at(
    lambda solver: solver.search,
    optx.LevenbergMarquardt(rtol=1e-9, atol=1e-12),
    optx.ClassicalTrustRegion(high_cutoff=0.75),
)
"""The default solver of `fit_least_squares`."""
LBFGS = optx.LBFGS(rtol=1e-9, atol=1e-12)
"""The default solver of `minimize`."""


def fit_least_squares(
    residuals: Callable[[Model, Any], PyTree[Float[Array, "..."]]],
    model: Model,
    data: PyTree = None,
    *,
    solver: Solver = LEVENBERG_MARQUARDT,
    steps: int = 100,
    rtol: float | None = None,
    filter_spec: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model that minimizes `sum(residuals(model, data)**2) / 2`, and the history of that loss.

    A fit has converged when a step changes parameters and residuals by less than the tolerances of `solver`, or when
    two steps in a row lower the loss by a share of less than `rtol / 1000`. A parameter whose optimum lies on its bound
    ends there exactly, and `history.at_bound` names it. If no step lowers the loss, the status is "no_progress" and the
    message names a likely cause: data that are not finite, or a derivative that finite differences contradict. All
    iterations run in one compiled call, which is cached for the same `residuals`, `solver` and shapes.

    Args:
        residuals: `residuals(model, data)`, an array or a tree of arrays.
        model: The model to start from.
        data: The second argument of `residuals`.
        solver: An optimistix least-squares solver or minimizer.
        steps: The greatest number of iterations.
        rtol: The relative tolerance in place of that of `solver` (1e-9 by default); the absolute tolerance changes by
            the same factor. Good values: 1e-6 for residuals of an adaptive solve.
        filter_spec: The parameters that train, as `trainable` and `frozen` return them; by default all.
        progress: Whether to show progress on stderr.

    Returns:
        The fitted model, and a history with the loss after each iteration (NaN after convergence) and a message.

    Raises:
        InputError: If nothing trains, for an `rtol` outside (0, 1), and within `jit`, `vmap` or `grad`.
        FitError: If the residuals of the first model are not finite. A later step to such residuals is rejected by the
            solver.

    Examples:
        >>> ts = jnp.linspace(0.0, 2.0, 9)
        >>> residuals = lambda model, seen: model["size"] * jnp.exp(-model["rate"] * ts) - seen
        >>> start = {"size": jnp.array(1.0), "rate": jnp.array(1.0)}
        >>> fitted, history = ds.fit_least_squares(residuals, start, 3.0 * jnp.exp(-0.5 * ts))
        >>> print(f"{fitted['size']:.4f} {fitted['rate']:.4f} {history.status}")
        3.0000 0.5000 converged
    """
    objective = objective_for(residuals, solver)
    return _fit(objective, model, data, with_rtol(solver, rtol), steps, filter_spec, progress)


def minimize(
    loss: Callable[[Model, Any], Scalar],
    model: Model,
    data: PyTree = None,
    *,
    solver: optx.AbstractMinimiser = LBFGS,
    steps: int = 200,
    rtol: float | None = None,
    filter_spec: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model that minimizes `loss(model, data)`, and the history of the loss.

    Every iteration uses all of `data`; for batches that change from step to step, see `fit`.

    Args:
        loss: `loss(model, data)`, a scalar.
        model: The model to start from.
        data: The second argument of `loss`.
        solver: A quasi-Newton minimizer of optimistix, such as `optimistix.BFGS`.
        steps, rtol, filter_spec, progress: As in `fit_least_squares`.

    Returns:
        As `fit_least_squares`.

    Raises:
        InputError: As in `fit_least_squares`, and for a least-squares solver.
        FitError: If the loss of the first model is not finite.

    Examples:
        >>> rosenbrock = lambda x, _: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        >>> x, history = ds.minimize(rosenbrock, jnp.array([-1.0, 1.0]))
        >>> print(x.round(4), history.status)
        [1. 1.] converged
    """
    if isinstance(solver, optx.AbstractLeastSquaresSolver):
        raise InputError(f"{type(solver).__name__} needs residuals, not a loss: use fit_least_squares")
    return _fit(loss, model, data, with_rtol(solver, rtol), steps, filter_spec, progress)


class SumOfSquares(eqx.Module):
    """Half the sum of the squares of residuals: the loss that a minimizer needs."""

    residuals: Callable

    def __call__(self, model: Model, data: PyTree) -> Scalar:
        leaves = jax.tree.leaves(self.residuals(model, data))
        return jnp.sum(jnp.stack([0.5 * jnp.sum(r**2) for r in leaves]))


def objective_for(residuals: Callable, solver: Solver) -> Callable:
    """The residuals for a least-squares solver, half the sum of their squares for a minimizer."""
    return SumOfSquares(residuals) if isinstance(solver, optx.AbstractMinimiser) else residuals


def _fit(given, model, data, solver: Solver, steps: int, filter_spec, progress: bool) -> tuple[Model, History]:
    check_on_host("a fit", model, data)
    start, fixed = partition(model, filter_spec)
    trained = unconstrain(start)
    function = traced_now(given, model, data)
    with ProgressBar(steps, progress) as bar:
        began = time.perf_counter()
        # A call without iterations compiles and changes nothing, so that the times of compiling and fitting are
        # separate.
        with bar.compiling(getattr(given, "residuals", given)):
            jax.block_until_ready(run_iterations(function, solver, trained, fixed, data, steps, jnp.array(False)))
        compiled = time.perf_counter()
        result = run_iterations(function, solver, trained, fixed, data, steps, jnp.array(True))
        losses = np.asarray(result.losses)
        seconds = time.perf_counter() - compiled
        done = int(np.sum(np.isfinite(losses)))
        if done:
            bar.show(done, losses[done - 1], last=True)
        names = tuple(at_bound(result.trained, width=0.0))
        history = History(losses, seconds, compiled - began, at_bound=names)
        if done == 0 or result.status == FitStatus.NON_FINITE:
            _raise_fit_error(function, model, eqx.combine(result.trained, fixed), data, solver, history, done)
        status, message = _ending(function, start, fixed, data, solver, result, done)
        bar.say(message)
    return eqx.combine(result.trained, fixed), history._replace(status=status.name.lower(), message=message)


def _ending(function, start, fixed, data, solver: Solver, result: FitResult, done: int) -> tuple[FitStatus, str]:
    """The status of a fit and a message about it, with a likely cause if no step lowered the loss."""
    status, count = FitStatus(int(result.status)), f"{done} of {len(result.losses)} iterations"
    squares = not isinstance(solver, optx.AbstractMinimiser)
    if status == FitStatus.NO_PROGRESS:
        finding, cause = diagnose_stuck(function, start, fixed, data, squares=squares)
        if finding == Finding.MINIMUM:
            return FitStatus.CONVERGED, f"converged after {count}: {cause}"
        cause = "; ".join([*non_finite_in(data, "data"), cause])
        return status, f"no progress: no step lowered the loss in {count}; {cause}"
    if status == FitStatus.STEP_LIMIT:
        return status, f"ended after {count}, before the tolerances were met; more steps may lower the loss further"
    active = at_bound(result.trained, width=0.0)
    message = f"converged after {count}" + (f", with {', '.join(active)} on a bound" if active else "")
    if stuck := [path for path in _unmoved(start, result.trained) if path not in active]:
        finding, cause = diagnose_stuck(function, result.trained, fixed, data, squares=squares, paths=stuck)
        if finding == Finding.DERIVATIVE:
            return FitStatus.NO_PROGRESS, f"no progress in {', '.join(stuck)} after {count}: {cause}"
        message += f"; {cause}" if finding == Finding.INDEPENDENT else ""
    return status, message


def _unmoved(start: Model, end: Model) -> list[str]:
    """Paths of the parameters that are, up to rounding, where they started."""
    before, after = parameters(start), parameters(end)
    same = lambda a, b: np.allclose(a, b, rtol=10 * float(jnp.finfo(a.dtype).eps), atol=0)
    return [path for path, entry in after.items() if same(np.asarray(before[path].value), np.asarray(entry.value))]


def _raise_fit_error(function, model: Model, fitted: Model, data, solver: Solver, history: History, done: int):
    """Raises FitError for a loss that is not finite; names data that make it so."""
    name, are = ("loss", "is") if isinstance(solver, optx.AbstractMinimiser) else ("residuals", "are")
    if done == 0:
        cure = "start elsewhere; if it solves an equation, `ds.solve(...).status` says whether and why that failed"
        cause = blame_data(function, model, data, "data") or cure
        raise FitError(f"the {name} of the starting model {are} not finite: {cause}", model, history)
    where = f"the {name} {are} not finite after iteration {done} of {len(history.loss)}"
    cure = "try a solver that damps its steps; the error's `model` is the last one"
    raise FitError(f"{where}: {cure}", fitted, history)
