"""Second-order fits on the same model and parameters: Levenberg-Marquardt, Gauss-Newton, BFGS and their kin."""

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
from ..parameters import at_bound, unconstrain
from .fit import FitFailed, History, parts
from .iterate import FitStatus, Solver, iterate
from .progress import Progress

# The trust region grows after steps that do three quarters of what the linear model says (Nocedal and Wright, Numerical
# Optimization, Springer 2006, algorithm 4.1), not 99 hundredths: near a bound that is several times faster.
LEVENBERG_MARQUARDT = eqx.tree_at(
    lambda solver: solver.search,
    optx.LevenbergMarquardt(rtol=1e-9, atol=1e-12),
    optx.ClassicalTrustRegion(high_cutoff=0.75),
)
LBFGS = optx.LBFGS(rtol=1e-9, atol=1e-12)


def fit_least_squares(
    residuals: Callable[[Model, Any], PyTree[Float[Array, "..."]]],
    model: Model,
    data: PyTree = None,
    *,
    solver: Solver = LEVENBERG_MARQUARDT,
    steps: int = 100,
    train: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model after at most `steps` iterations on `sum(residuals(model, data)**2) / 2`, and its history.

    `solver` is any optimistix least-squares solver or minimiser; `train` and bounds are as in `fit`. A parameter whose
    optimum lies on its bound ends there exactly, and `history.at_bound` names it. All iterations run in one compiled
    call, which is kept for the same `residuals`, `solver` and shapes. The history's loss is `sum(residuals**2) / 2`
    after each iteration, NaN after convergence.

    Raises InputError if nothing trains, FitFailed if the residuals of the first model are not finite; a later step
    that makes them so is rejected by the solver.
    """
    return _fit(as_needed(residuals, solver), model, data, solver, steps, train, progress)


def minimise(
    loss: Callable[[Model, Any], Scalar],
    model: Model,
    data: PyTree = None,
    *,
    solver: optx.AbstractMinimiser = LBFGS,
    steps: int = 200,
    train: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model after at most `steps` iterations on `loss(model, data)`, one number, and its history.

    `solver` is any quasi-Newton minimiser of optimistix, such as `optimistix.BFGS`; all else is as in
    `fit_least_squares`. The whole of `data` is used at each step: for batches drawn anew, see `fit`.
    """
    if isinstance(solver, optx.AbstractLeastSquaresSolver):
        raise InputError(f"{type(solver).__name__} needs residuals, not a loss: use fit_least_squares")
    return _fit(loss, model, data, solver, steps, train, progress)


class SumOfSquares(eqx.Module):
    """Half the sum of the squares of some residuals: what a minimiser needs of them."""

    residuals: Callable

    def __call__(self, model: Model, data: PyTree) -> Scalar:
        leaves = jax.tree.leaves(self.residuals(model, data))
        return jnp.sum(jnp.stack([0.5 * jnp.sum(r**2) for r in leaves]))


def as_needed(residuals: Callable, solver: Solver) -> Callable:
    """The residuals, or half the sum of their squares if the solver minimises."""
    return SumOfSquares(residuals) if isinstance(solver, optx.AbstractMinimiser) else residuals


def _fit(function, model, data, solver: Solver, steps: int, train, progress: bool) -> tuple[Model, History]:
    trained, fixed = parts(model, train)
    trained = unconstrain(trained)
    with Progress(steps, progress) as bar:
        began = time.perf_counter()
        # An idle call compiles and changes nothing, so that the two times can be told apart.
        with bar.compiling(getattr(function, "residuals", function)):
            jax.block_until_ready(iterate(function, solver, trained, fixed, data, steps, jnp.array(False)))
        compiled = time.perf_counter()
        end = iterate(function, solver, trained, fixed, data, steps, jnp.array(True))
        losses = np.asarray(end.losses)
        done = int(np.sum(np.isfinite(losses)))
        bar.show(steps, losses[max(done - 1, 0)])
    fitted = eqx.combine(end.trained, fixed)
    names = tuple(at_bound(end.trained, width=0.0))
    history = History(losses, time.perf_counter() - compiled, compiled - began, at_bound=names)
    what, are = ("loss", "is") if isinstance(solver, optx.AbstractMinimiser) else ("residuals", "are")
    if done == 0:
        raise FitFailed(f"the {what} of the starting model {are} not finite: start elsewhere", model, history)
    if end.status == FitStatus.NON_FINITE:
        where = f"the {what} {are} not finite after iteration {done} of {steps}"
        raise FitFailed(f"{where}. The last healthy model is kept; try a solver that damps its steps", fitted, history)
    return fitted, history
