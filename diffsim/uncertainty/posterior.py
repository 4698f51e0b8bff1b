"""From a fit to what one may believe of it: covariances, intervals, prediction bands, and directions left open."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._types import Model, Scalar, Vector
from ..autodiff.jacobian import value_and_jacobian
from ..parameters import constrain, parameters, unconstrain
from ..train.bounds import flat_bounds


class ParameterSummary(NamedTuple):
    """What is believed of one number of a model: value, unit, standard deviation, interval, and a remark."""

    path: str
    value: float
    unit: str
    std: float
    low: float
    high: float
    remark: str


class CredibleBand(NamedTuple):
    """A prediction with its standard deviation and the ends of its band, all of the prediction's shape."""

    value: Array
    std: Array
    low: Array
    high: Array


class Posterior(eqx.Module):
    """A normal distribution of a model's trained parameters about their fitted values, in physical units.

    `covariance` (n, n) holds for what the data determine: it is zero in the rows of parameters on a bound (`held`),
    which are taken for known, and along the `flat` of the scaled directions (its rows; `flat` tells which). `noise`
    is the standard deviation of a residual, `freedom` the degrees of freedom it was estimated with (measurements less
    free parameters; missing measurements do not count), infinite if it was given.
    """

    trained: Model
    fixed: Model
    covariance: Float[Array, "n n"]
    directions: Float[Array, "n n"]
    flat: Bool[Array, " n"]
    at_bound: Bool[Array, " n"]
    noise: Scalar
    degrees_of_freedom: Scalar

    def __repr__(self) -> str:
        """A line for each number, as `slope = 2.01 +- 0.04 m/s`, and one for the noise; of many beliefs the shapes."""
        numbers = (self.covariance, self.directions, self.flat, self.at_bound, self.noise, self.degrees_of_freedom)
        if not all(eqx.is_array(x) and not is_tracer(x) for x in numbers) or self.flat.ndim != 1:
            return super().__repr__()
        rows = self.summary()
        width = max(len(row.path) for row in rows)
        lines = [f"{row.path:{width}} = {_number(row)} {row.unit}".rstrip() for row in rows]
        lines = [line + (f"  ({row.remark})" if row.remark else "") for line, row in zip(lines, rows, strict=True)]
        known = bool(np.isinf(self.degrees_of_freedom))
        return "\n".join([*lines, f"noise = {float(self.noise):.3g}" + _origin(known, self.degrees_of_freedom)])

    def std(self) -> Vector:
        """Standard deviations, infinite where a flat direction takes part, NaN on a bound."""
        spread = jnp.sqrt(jnp.diagonal(self.covariance))
        part = jnp.any(self.flat[:, None] & (jnp.abs(self.directions) > 1e-3), axis=0)
        return jnp.where(self.at_bound, jnp.nan, jnp.where(part, jnp.inf, spread))

    def correlation(self) -> Float[Array, "n n"]:
        """Correlations of the parameters; NaN in the rows of those on a bound."""
        spread = jnp.sqrt(jnp.diagonal(self.covariance))
        return self.covariance / (spread[:, None] * spread[None])

    def critical_value(self, level: float) -> np.ndarray:
        """How many standard deviations a two-sided interval of this level reaches: Student's, for its freedom."""
        if not 0 < level < 1:
            raise InputError(f"level={level:g}: give a share between 0 and 1, such as 0.9")
        from scipy.special import ndtri, stdtrit

        freedom = np.asarray(self.degrees_of_freedom)
        finite = np.where(np.isinf(freedom), 1.0, np.maximum(freedom, 1.0))
        return np.where(np.isinf(freedom), ndtri((1 + level) / 2), stdtrit(finite, (1 + level) / 2))

    def credible_intervals(self, level: float = 0.9) -> tuple[Vector, Vector]:
        """The ends of each parameter's interval, symmetric before the bounds' transform and so never beyond them."""
        x, unravel = ravel_pytree(self.trained)
        low, high = flat_bounds(self.trained)
        middle = jnp.where(self.at_bound, ravel_pytree(_middle(self.trained))[0], x)
        z, flat = ravel_pytree(unconstrain(unravel(middle)))
        bounded = lambda z: ravel_pytree(constrain(flat(z)))[0]
        slope = jax.jvp(bounded, (z,), (jnp.ones_like(z),))[1]
        reach = self.critical_value(level) * self.std() / slope
        down, up = (bounded(z + side * jnp.where(jnp.isinf(reach), 0.0, reach)) for side in (-1, 1))
        return jnp.where(jnp.isinf(reach), low, down), jnp.where(jnp.isinf(reach), high, up)

    def flat_directions(self) -> list[dict[str, float]]:
        """The directions in which the data say nothing: relative changes by path, in as few parameters as can be."""
        basis = np.array(self.directions)[np.asarray(self.flat)]
        for number, direction in enumerate(basis):
            pivot = int(np.argmax(np.abs(direction)))
            direction /= direction[pivot]
            for other in range(len(basis)):
                if other != number:
                    basis[other] -= basis[other, pivot] * direction
        every = names(self.trained)
        return [{n: float(w) for n, w in zip(every, row, strict=True) if abs(w) > 1e-3} for row in basis]

    def summary(self, level: float = 0.9) -> list[ParameterSummary]:
        """A row for each trained number, for tables."""
        x = ravel_pytree(self.trained)[0]
        columns = [np.asarray(c, float) for c in (x, self.std(), *self.credible_intervals(level))]
        units = [entry.unit for entry in parameters(self.trained).values() for _ in range(entry.value.size)]
        remarks = np.where(self.at_bound, "at its bound", np.where(np.isinf(columns[1]), "not determined", ""))
        every = zip(names(self.trained), units, remarks, *columns, strict=True)
        return [
            ParameterSummary(name, float(x), unit, float(s), float(a), float(b), str(r))
            for name, unit, r, x, s, a, b in every
        ]

    def delta_method(self, function: Callable[[Model], Array]) -> tuple[Array, Array]:
        """The value of `function(model)` and its standard deviation, to first order (the delta method).

        It is infinite where the value changes along a flat direction. Works under `jit` and `vmap`.
        """
        x, unravel = ravel_pytree(self.trained)
        predict = lambda x: function(eqx.combine(unravel(x), self.fixed))
        value, slopes = value_and_jacobian(predict, x)
        variance = jnp.sum((slopes @ self.covariance) * slopes, axis=-1)
        scaled = slopes @ jnp.diag(scale_of(x))
        open_ = jnp.max(jnp.abs(scaled @ (self.directions.T * self.flat[None])), axis=-1)
        return value, jnp.where(open_ > 1e-6 * jnp.linalg.norm(scaled, axis=-1), jnp.inf, jnp.sqrt(variance))

    def credible_band(
        self, function: Callable[[Model], Array], level: float = 0.9, *, include_noise: bool = False
    ) -> CredibleBand:
        """The band of `function(model)`, of any shape, at this level; `include_noise` adds the noise of one observation."""
        value, std = self.delta_method(function)
        std = jnp.sqrt(std**2 + self.noise**2) if include_noise else std
        reach = self.critical_value(level) * std
        return CredibleBand(value, std, value - reach, value + reach)


def _number(row: ParameterSummary) -> str:
    """A value with its standard deviation, to two digits of that."""
    if not 0 < row.std < np.inf:
        return f"{row.value:.6g}"
    digits = 1 - int(np.floor(np.log10(row.std)))
    if 0 <= digits <= 8:
        return f"{row.value:.{digits}f} +- {row.std:.{digits}f}"
    return f"{row.value:.6g} +- {row.std:.2g}"


def _origin(known: bool, freedom) -> str:
    return " (given)" if known else f" ({float(freedom):g} degrees of freedom)"


def names(trained: Model) -> list[str]:
    """A name for each number of a model, in the order of `ravel_pytree`: its path, with an index in an array."""
    found = []
    for path, entry in parameters(trained).items():
        found += [path + (str(list(index)) if index else "") for index in np.ndindex(entry.value.shape)]
    return found


def scale_of(x: Vector) -> Vector:
    """The size by which a parameter's changes are measured: its own, or 1 at zero."""
    return jnp.where(x == 0, 1.0, jnp.abs(x))


def _middle(trained: Model) -> Model:
    """A model within the bounds, to stand for parameters on them."""
    return constrain(jax.tree.map(jnp.zeros_like, trained))
