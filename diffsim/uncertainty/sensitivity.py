"""Which parameters matter: local sensitivities at a model, and Sobol indices over ranges."""

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
from .posterior import entry_names


def sensitivities(
    outputs: Callable[[Model], Array],
    model: Model,
    *,
    filter_spec: PyTree[bool] | None = None,
    relative: bool = True,
) -> dict[str, Array]:
    """The derivatives of `outputs(model)` with respect to each trained number, by path.

    Args:
        outputs: `outputs(model)`, an array of any shape.
        model: The model.
        filter_spec: The parameters to differentiate by; by default all.
        relative: Whether to return (parameter / output) d(output)/d(parameter), the percent by which the output changes
            for one percent of the parameter. It is NaN or infinite where the output is zero, and zero where the
            parameter is.

    Returns:
        For each number an array of the output's shape.

    Examples:
        >>> period = lambda model: 2 * jnp.pi * jnp.sqrt(model["length"] / model["gravity"])
        >>> pendulum = {"length": jnp.array(0.4), "gravity": jnp.array(9.81)}
        >>> {path: round(float(x), 6) for path, x in ds.uncertainty.sensitivities(period, pendulum).items()}
        {'gravity': -0.5, 'length': 0.5}
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    predict = lambda x: jnp.asarray(outputs(eqx.combine(unravel(x), fixed)))
    value, jacobian = value_and_jacobian(predict, x)
    columns = {name: jacobian[..., number] for number, name in enumerate(entry_names(trained))}
    if not relative:
        return columns
    return {name: column * x[number] / value for number, (name, column) in enumerate(columns.items())}


class SobolIndices(NamedTuple):
    """Shares of an output's variance, by the path of the parameter.

    Attributes:
        first: Of the parameter alone.
        total: Of the parameter with all its interactions.

    Examples:
        >>> outputs = lambda model: model["a"] + 2.0 * model["b"]
        >>> ranges = {"a": (0.0, 1.0), "b": (0.0, 1.0)}
        >>> indices = ds.uncertainty.sobol_indices(outputs, {"a": jnp.array(0.5), "b": jnp.array(0.5)}, ranges=ranges)
        >>> print(f"{indices.first['a']:.1f} {indices.first['b']:.1f}")  # 1/5 and 4/5
        0.2 0.8
    """

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
    """The Sobol indices of `outputs(model)`, by `scipy.stats.sobol_indices`.

    Each trained number is uniform over its range and independent of the others. `outputs` is compiled and mapped over
    count (parameters + 2) models.

    Args:
        outputs: `outputs(model)`, a number or a vector.
        model: The model.
        count: The number of samples, a power of 2. Good values: 1024 for errors of about 0.03, four times as many for
            half of that.
        ranges: The least and greatest value of numbers by path; by default their bounds.
        filter_spec: The parameters to vary; by default all.
        seed: The seed of the random numbers.

    Raises:
        InputError: For a number without a range, a range outside the bounds, a count that is not a power of 2, and
            outputs that are not finite somewhere within the ranges.

    Source: A. Saltelli et al., Computer Physics Communications 181, 259 (2010).

    Examples:
        >>> product = lambda model: model["a"] * model["b"]
        >>> model = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
        >>> ranges = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
        >>> indices = ds.uncertainty.sobol_indices(product, model, ranges=ranges)
        >>> bool(abs(indices.first["a"]) < 0.1), bool(abs(indices.total["a"] - 1.0) < 0.1)  # all of it is interaction
        (True, True)
    """
    from scipy import stats

    trained, fixed = partition(model, filter_spec)
    if count < 2 or count & (count - 1):
        raise InputError(f"count={count}: give a power of 2, such as 1024")
    low, high = _ranges(trained, ranges or {})
    x, unravel = ravel_pytree(trained)
    dtype = x.dtype
    outputs_of_many = jax.jit(jax.vmap(lambda x: jnp.ravel(jnp.asarray(outputs(eqx.combine(unravel(x), fixed))))))

    def function(x: np.ndarray) -> np.ndarray:
        values = np.array(outputs_of_many(jnp.asarray(x.T, dtype))).T
        if not np.all(np.isfinite(values)):
            raise InputError("an output is not finite for some models within the ranges: narrow them")
        return values

    dists = [stats.uniform(a, b - a) for a, b in zip(low, high, strict=True)]
    indices = stats.sobol_indices(func=function, n=count, dists=dists, rng=np.random.default_rng(seed))
    names = entry_names(trained)
    first, total = (np.atleast_2d(index) for index in (indices.first_order, indices.total_order))
    shares = ({name: np.squeeze(index[:, i]) for i, name in enumerate(names)} for index in (first, total))
    return SobolIndices(*shares)


def _ranges(trained: Model, given: Mapping[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest value of each number; raises InputError if one has none, or one outside its bounds."""
    names, (low, high) = entry_names(trained), flat_bounds(trained)
    for name, (least, greatest) in given.items():
        if name not in names:
            raise InputError(f"unknown parameter {name!r}; known: {', '.join(names)}")
        position = names.index(name)
        if not low[position] <= least < greatest <= high[position]:
            raise InputError(f"ranges[{name!r}]=({least:g}, {greatest:g}): give two numbers that grow, within bounds")
        low[position], high[position] = least, greatest
    for name, least, greatest in zip(names, low, high, strict=True):
        if not np.isfinite(greatest - least):
            raise InputError(f"{name} has no range: give ranges={{{name!r}: (low, high)}}")
    return low, high
