"""Fits without derivatives by CMA-ES: for losses that jump, or to find a start for the methods that use gradients."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .._errors import InputError
from .._extras import extra
from .._types import Model, Scalar
from ..parameters import at_bound, constrain, partition, unconstrain
from ..train.bounds import flat_bounds
from ..train.diagnosis import blame_data
from ..train.history import FitError, History
from ..train.progress import ProgressBar
from ..train.validate import check_on_host
from .iterations import traced_now


def fit_cma_es(
    loss: Callable[[Model, Any], Scalar],
    model: Model,
    data: PyTree = None,
    *,
    generations: int = 100,
    population: int | None = None,
    sigma: float = 0.5,
    seed: int = 0,
    filter_spec: PyTree[bool] | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """The best model that CMA-ES evaluates, and the least loss of each generation; needs the extra `cmaes`.

    The models of a generation are drawn from a normal distribution about the current mean and evaluated side by side
    in one compiled call. A loss that is not finite counts as the greatest. No derivative is taken.

    Good values: up to some dozens of parameters, then `fit_least_squares` or `minimize` from its result.

    Args:
        loss: `loss(model, data)`, a scalar.
        model: The model to start from, the first mean.
        data: The second argument of `loss`.
        generations: The greatest number of generations.
        population: The number of models of a generation; by default 4 + 3 log(number of parameters), as in the
            tutorial.
        sigma: The first standard deviation: of the logit or logarithm of a bounded parameter; of one without bounds in
            units of its value, or of 1 if that is zero.
        seed: The seed of the random numbers.
        filter_spec: The parameters that train; by default all.
        progress: Whether to show progress on stderr.

    Returns:
        The model, and its history with the least loss of each generation.

    Raises:
        InputError: If the package is missing or nothing trains.
        FitError: If no model of the first generation has a finite loss.

    Source: N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.

    Examples:
        >>> sphere = lambda x, center: jnp.sum((x - center) ** 2)
        >>> x, _ = ds.optimize.fit_cma_es(sphere, jnp.zeros(2), jnp.array([1.0, 2.0]), generations=60)
        >>> print(x.round(2))
        [1. 2.]
    """
    if generations < 1 or sigma <= 0:
        raise InputError(f"generations={generations}, sigma={sigma:g}: give at least 1, and more than 0")
    check_on_host("fit_cma_es", model, data)
    trained, fixed = partition(model, filter_spec)
    low, high = flat_bounds(trained)
    start, unravel = ravel_pytree(unconstrain(trained))
    mean, dtype = np.asarray(start, float), start.dtype
    scale = np.where(np.isinf(low) & np.isinf(high) & (mean != 0), np.abs(mean), 1.0)
    options = {"mean": mean / scale, "sigma": sigma, "seed": seed, "population_size": population}
    strategy = extra("cmaes", "cmaes").CMA(**options)
    began, least_losses, best_loss, best = time.perf_counter(), [], np.inf, mean
    loss = traced_now(loss, model, data)
    with ProgressBar(generations, progress) as bar:
        for generation in range(generations):
            samples = np.stack([strategy.ask() for _ in range(strategy.population_size)])
            losses = np.asarray(_losses(loss, unravel, fixed, data, (samples * scale).astype(dtype)), float)
            losses = np.where(np.isfinite(losses), losses, np.inf)
            least = int(np.argmin(losses))
            if losses[least] < best_loss:
                best_loss, best = losses[least], samples[least] * scale
            least_losses.append(losses[least])
            bar.show(generation + 1, losses[least])
            if not np.isfinite(best_loss):
                break
            strategy.tell(list(zip(samples, losses, strict=True)))
            if strategy.should_stop():
                break
    fitted = constrain(unravel(jnp.asarray(best, dtype)))
    seconds = time.perf_counter() - began
    history = History(np.array(least_losses), seconds, 0.0, at_bound=tuple(at_bound(fitted, width=0.0)))
    if not np.isfinite(best_loss):
        cause = blame_data(loss, model, data, "data") or "start elsewhere"
        raise FitError(f"no model of the first generation has a finite loss: {cause}", model, history)
    return eqx.combine(fitted, fixed), history


@eqx.filter_jit
def _losses(loss, unravel, fixed, data, samples):
    """The loss of each model of a generation, shape (population,)."""
    sample_loss = lambda z: loss(eqx.combine(constrain(unravel(z)), fixed), data)
    return jax.vmap(sample_loss)(samples)
