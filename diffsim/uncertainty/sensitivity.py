"""Which parameters matter: local sensitivities at a model, and Sobol's shares of the variance over ranges."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._types import Model
from ..autodiff.jacobian import value_and_jacobian
from ..parameters import partition
from ..train.bounds import flat_bounds
from .posterior import names


def sensitivities(
    outputs: Callable[[Model], Array], model: Model, *, filter_spec: PyTree[bool] | None = None, relative: bool = True
) -> dict[str, Array]:
    """The derivative of `outputs(model)` by each trained number, by path, each of the output's shape.

    With `relative` it is (parameter / output) d(output)/d(parameter): the percent by which the output changes for one
    percent of the parameter; NaN or infinite where the output is zero, and zero where the parameter is.
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    predict = lambda x: jnp.asarray(outputs(eqx.combine(unravel(x), fixed)))
    value, slopes = value_and_jacobian(predict, x)
    columns = {name: slopes[..., number] for number, name in enumerate(names(trained))}
    if not relative:
        return columns
    return {name: column * x[number] / value for number, (name, column) in enumerate(columns.items())}


class SobolIndices(NamedTuple):
    """Shares of an output's variance by path of the parameter: of it alone, and with all that it takes part in."""

    first: dict[str, Float[np.ndarray, "..."]]
    total: dict[str, Float[np.ndarray, "..."]]


def sobol_indices(
    outputs: Callable[[Model], Array],
    model: Model,
    *,
    count: int = 1024,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    filter_spec: PyTree[bool] | None = None,
    seed: int = 0,
) -> SobolIndices:
    """Sobol's indices of `outputs(model)`, a number or a vector, by `scipy.stats.sobol_indices`.

    Each trained number is uniform over its range in `ranges`, or between its bounds, independent of the others.
    `outputs` is compiled and mapped over count (parameters + 2) models; `count` is a power of 2. Good values: 1024 for
    errors of about 0.03, four times as many for half of that.

    Raises InputError for a number without a range, a range outside the bounds, and other counts; and where an output
    is not finite somewhere within the ranges.

    Source: A. Saltelli et al., Computer Physics Communications 181, 259 (2010).
    """
    from scipy import stats

    trained, fixed = partition(model, filter_spec)
    if count < 2 or count & (count - 1):
        raise InputError(f"count={count}: give a power of 2, such as 1024")
    low, high = _ranges(trained, ranges or {})
    x, unravel = ravel_pytree(trained)
    kind = x.dtype
    many = jax.jit(jax.vmap(lambda x: jnp.ravel(jnp.asarray(outputs(eqx.combine(unravel(x), fixed))))))

    def function(x: np.ndarray) -> np.ndarray:
        found = np.array(many(jnp.asarray(x.T, kind))).T
        if not np.all(np.isfinite(found)):
            raise InputError("an output is not finite for some models within the ranges: narrow them")
        return found

    dists = [stats.uniform(a, b - a) for a, b in zip(low, high, strict=True)]
    found = stats.sobol_indices(func=function, n=count, dists=dists, rng=np.random.default_rng(seed))
    every = names(trained)
    first, total = (np.atleast_2d(index) for index in (found.first_order, found.total_order))
    shares = ({name: np.squeeze(index[:, i]) for i, name in enumerate(every)} for index in (first, total))
    return SobolIndices(*shares)


def _ranges(trained: Model, given: Mapping[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest value of each number; raises InputError if one has none, or one outside its bounds."""
    every, (low, high) = names(trained), flat_bounds(trained)
    for name, (least, greatest) in given.items():
        if name not in every:
            raise InputError(f"unknown parameter {name!r}; known: {', '.join(every)}")
        at = every.index(name)
        if not low[at] <= least < greatest <= high[at]:
            raise InputError(f"ranges[{name!r}]=({least:g}, {greatest:g}): give two numbers that grow, within bounds")
        low[at], high[at] = least, greatest
    for name, least, greatest in zip(every, low, high, strict=True):
        if not np.isfinite(greatest - least):
            raise InputError(f"{name} has no range: give ranges={{{name!r}: (low, high)}}")
    return low, high
