"""Least squares on the same model and parameters: Levenberg-Marquardt, Gauss-Newton and their kin."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Float, PyTree

from .._types import Model
from ..parameters import constrain, trainable, unconstrain
from .fit import FitFailed, History
from .progress import Progress

LEVENBERG_MARQUARDT = optx.LevenbergMarquardt(rtol=1e-9, atol=1e-12)


def fit_least_squares(
    residuals: Callable[[Model, Any], PyTree[Float[Array, "..."]]],
    model: Model,
    data: PyTree = None,
    *,
    solver: optx.AbstractLeastSquaresSolver = LEVENBERG_MARQUARDT,
    steps: int = 100,
    train: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model after at most `steps` iterations on `sum(residuals(model, data)**2) / 2`, and its history.

    `solver` is any optimistix least-squares solver; `train` and bounds are as in `fit`. All iterations run in one
    compiled call, which is kept for the same `residuals`, `solver` and shapes. The history's loss is
    `sum(residuals**2) / 2` after each iteration, NaN after convergence.

    Raises FitFailed if the residuals of the first model are not finite; a later step that makes them so is
    rejected by the solver.
    """
    trained, fixed = eqx.partition(model, trainable(model) if train is None else train)
    trained = unconstrain(trained)
    with Progress(steps, progress) as bar:
        began = time.perf_counter()
        # An idle call compiles and changes nothing, so that the two times can be told apart.
        jax.block_until_ready(_iterate(residuals, solver, trained, fixed, data, steps, jnp.array(False)))
        compiled = time.perf_counter()
        trained, losses = _iterate(residuals, solver, trained, fixed, data, steps, jnp.array(True))
        losses = np.asarray(losses)
        done = int(np.sum(np.isfinite(losses)))
        bar.show(steps, losses[max(done - 1, 0)])
    history = History(losses, time.perf_counter() - compiled, compiled - began)
    fitted = eqx.combine(constrain(trained), fixed)
    if done == 0:
        raise FitFailed("the residuals of the starting model are not finite: start elsewhere", model, history)
    return fitted, history


@eqx.filter_jit
def _iterate(residuals, solver, trained, fixed, data, steps: int, active):
    """The trained parameters and the loss after each iteration."""

    def function(trained, data):
        return residuals(eqx.combine(constrain(trained), fixed), data), None

    shape, aux = jax.eval_shape(function, trained, data)
    tags = frozenset()
    options: dict = {}
    state = solver.init(function, trained, data, options, shape, aux, tags)
    dynamic, static = eqx.partition(state, eqx.is_array)

    def iterate(carry):
        trained, dynamic, _ = carry
        state = eqx.combine(dynamic, static)
        trained, state, _ = solver.step(function, trained, data, options, state, tags)
        over, _ = solver.terminate(function, trained, data, options, state, tags)
        return (trained, eqx.filter(state, eqx.is_array), ~over), state.f_info.as_min()

    def idle(carry):
        return carry, jnp.full_like(state.f_info.as_min(), jnp.nan)

    def maybe(carry, _):
        return lax.cond(carry[2], iterate, idle, carry)

    (trained, _, _), losses = lax.scan(maybe, (trained, dynamic, active), length=steps)
    return trained, losses
