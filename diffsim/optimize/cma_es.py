"""Fits without derivatives: CMA-ES, for losses that jump, or to find a start for the methods that need slopes."""

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
from ..train.fit import FitError, History, check_on_host
from ..train.progress import ProgressBar
from .iterations import as_it_is


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
    """The best model that CMA-ES meets, and the least loss of each generation; needs the extra `cmaes`.

    A generation of `population` models (by default 4 + 3 log(parameters)) is drawn about the one given, evaluated side
    by side in one compiled call, and moves the distribution. `sigma` is its first standard deviation: of the logit or
    logarithm of a bounded parameter, and in units of its value (of 1 if that is zero) of one without bounds. A loss
    that is not finite counts as the greatest. No derivative is taken.

    Raises InputError if the package is missing or nothing trains, FitError if no model of the first generation has a
    finite loss.

    Good values: up to some dozens of parameters; then `fit_least_squares` or `minimize` from what it finds.

    Source: N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
    """
    if generations < 1 or sigma <= 0:
        raise InputError(f"generations={generations}, sigma={sigma:g}: give at least 1, and more than 0")
    check_on_host("fit_cma_es", model, data)
    trained, fixed = partition(model, filter_spec)
    low, high = flat_bounds(trained)
    start, unravel = ravel_pytree(unconstrain(trained))
    middle, kind = np.asarray(start, float), start.dtype
    scale = np.where(np.isinf(low) & np.isinf(high) & (middle != 0), np.abs(middle), 1.0)
    options = {"mean": middle / scale, "sigma": sigma, "seed": seed, "population_size": population}
    search = extra("cmaes", "cmaes").CMA(**options)
    began, losses, best = time.perf_counter(), [], (np.inf, middle)
    loss = as_it_is(loss, model, data)
    with ProgressBar(generations, progress) as bar:
        for generation in range(generations):
            drawn = np.stack([search.ask() for _ in range(search.population_size)])
            found = np.asarray(_losses(loss, unravel, fixed, data, (drawn * scale).astype(kind)), float)
            found = np.where(np.isfinite(found), found, np.inf)
            least = int(np.argmin(found))
            best = min(best, (found[least], drawn[least] * scale), key=lambda pair: pair[0])
            losses.append(found[least])
            bar.show(generation + 1, found[least])
            if not np.isfinite(best[0]):
                break
            search.tell(list(zip(drawn, found, strict=True)))
            if search.should_stop():
                break
    found = constrain(unravel(jnp.asarray(best[1], kind)))
    history = History(np.array(losses), time.perf_counter() - began, 0.0, at_bound=tuple(at_bound(found, width=0.0)))
    if not np.isfinite(best[0]):
        cause = blame_data(loss, model, data, "data") or "start elsewhere"
        raise FitError(f"no model of the first generation has a finite loss: {cause}", model, history)
    return eqx.combine(found, fixed), history


@eqx.filter_jit
def _losses(loss, unravel, fixed, data, drawn):
    """The loss of each model drawn, (population,)."""
    one = lambda z: loss(eqx.combine(constrain(unravel(z)), fixed), data)
    return jax.vmap(one)(drawn)
