"""The normal posterior of fitted parameters: standard deviations, credible intervals and bands, flat directions."""

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
    """One number of a model: its value, unit, standard deviation, credible interval, and a remark."""

    path: str
    value: float
    unit: str
    std: float
    low: float
    high: float
    remark: str


class CredibleBand(NamedTuple):
    """A prediction with its standard deviation and the ends of its credible interval, all of the prediction's shape.

    Examples:
        >>> residuals = lambda slope, seen: slope * jnp.ones(4) - seen
        >>> posterior = ds.posterior(residuals, jnp.array(2.0), 2.0 * jnp.ones(4), noise=0.2)
        >>> band = posterior.credible_band(lambda slope: 3.0 * slope, level=0.95)
        >>> print(f"{band.value:.3f} {band.std:.3f} {band.low:.3f} {band.high:.3f}")
        6.000 0.300 5.412 6.588
    """

    value: Array
    std: Array
    low: Array
    high: Array


class Posterior(eqx.Module):
    """A normal distribution of a model's trained parameters about their fitted values, in physical units.

    Attributes:
        trained: The trained parameters, n numbers.
        fixed: The rest of the model.
        covariance: The covariance of what the data determine. It is zero in the rows of parameters on a bound, which
            are taken as known, and along the flat directions.
        scale: The change of each parameter that changes the prediction by one; zero on a bound.
        directions: The principal directions of change in units of `scale`, one in each row.
        flat: Which directions the data do not determine.
        at_bound: Which parameters are on a bound.
        noise: The standard deviation of a residual.
        degrees_of_freedom: With which the noise was estimated: the number of measurements, without missing ones, less
            that of free parameters. Infinite if the noise was given.

    Examples:
        >>> residuals = lambda model, seen: model["mean"] * jnp.ones(4) - seen
        >>> posterior = ds.posterior(residuals, {"mean": jnp.array(2.0)}, 2.0 * jnp.ones(4), noise=0.2)
        >>> print(posterior)
        mean = 2.00 +- 0.10
        noise = 0.2 (given); +- is one standard deviation
        >>> low, high = posterior.credible_intervals(0.9)
        >>> print(f"{low[0]:.3f} {high[0]:.3f}")
        1.836 2.164
    """

    trained: Model
    fixed: Model
    covariance: Float[Array, "n n"]
    scale: Vector
    directions: Float[Array, "n n"]
    flat: Bool[Array, " n"]
    at_bound: Bool[Array, " n"]
    noise: Scalar
    degrees_of_freedom: Scalar

    def __repr__(self) -> str:
        """A line for each number, as `slope = 2.01 +- 0.04 m/s`, and one for the noise; within `vmap` the shapes."""
        numbers = (self.covariance, self.directions, self.flat, self.at_bound, self.noise, self.degrees_of_freedom)
        if not all(eqx.is_array(x) and not is_tracer(x) for x in numbers) or self.flat.ndim != 1:
            return super().__repr__()
        rows = self.summary()
        width = max(len(row.path) for row in rows)
        lines = [f"{row.path:{width}} = {_value_and_std(row)} {row.unit}".rstrip() for row in rows]
        lines = [line + (f"  ({row.remark})" if row.remark else "") for line, row in zip(lines, rows, strict=True)]
        degrees = float(self.degrees_of_freedom)
        origin = "given" if np.isinf(degrees) else f"{degrees:g} degrees of freedom"
        return "\n".join([*lines, f"noise = {float(self.noise):.3g} ({origin}); +- is one standard deviation"])

    def std(self) -> Vector:
        """Standard deviations: infinite where a flat direction takes part, NaN on a bound."""
        std = jnp.sqrt(jnp.diagonal(self.covariance))
        in_flat = jnp.any(self.flat[:, None] & (jnp.abs(self.directions) > 1e-3), axis=0)
        return jnp.where(self.at_bound, jnp.nan, jnp.where(in_flat, jnp.inf, std))

    def correlation(self) -> Float[Array, "n n"]:
        """The correlation matrix of the parameters; NaN in the rows of those on a bound."""
        std = jnp.sqrt(jnp.diagonal(self.covariance))
        return self.covariance / (std[:, None] * std[None])

    def critical_value(self, level: float) -> np.ndarray:
        """Half the width of a two-sided interval of this level, in standard deviations.

        That is a quantile of Student's distribution, of the normal one if the noise was given.
        """
        if not 0 < level < 1:
            raise InputError(f"level={level:g}: give a share between 0 and 1, such as 0.9")
        if is_tracer(self.degrees_of_freedom):
            raise InputError(
                "the quantile of Student's distribution needs a known number of degrees of freedom: take std() within "
                "jit and vmap, and intervals and bands outside"
            )
        from scipy.special import ndtri, stdtrit

        degrees = np.asarray(self.degrees_of_freedom)
        finite = np.where(np.isinf(degrees), 1.0, np.maximum(degrees, 1.0))
        return np.where(np.isinf(degrees), ndtri((1 + level) / 2), stdtrit(finite, (1 + level) / 2))

    def credible_intervals(self, level: float = 0.9) -> tuple[Vector, Vector]:
        """The lower and upper ends of each parameter's interval.

        The intervals are symmetric before the transform of the bounds, and so never reach beyond the bounds.

        Args:
            level: The probability of the interval.
        """
        x, unravel = ravel_pytree(self.trained)
        low, high = flat_bounds(self.trained)
        inside = jnp.where(self.at_bound, ravel_pytree(_within_bounds(self.trained))[0], x)
        z, unravel_z = ravel_pytree(unconstrain(unravel(inside)))
        bounded = lambda z: ravel_pytree(constrain(unravel_z(z)))[0]
        derivative = jax.jvp(bounded, (z,), (jnp.ones_like(z),))[1]
        half_width = self.critical_value(level) * self.std() / derivative
        is_open = jnp.isinf(half_width)
        lower, upper = (bounded(z + side * jnp.where(is_open, 0.0, half_width)) for side in (-1, 1))
        return jnp.where(is_open, low, lower), jnp.where(is_open, high, upper)

    def flat_directions(self) -> list[dict[str, float]]:
        """The directions that the data do not determine: relative changes by path, in as few parameters as possible.

        The change of a parameter that is zero is in its unit.
        """
        basis = np.array(self.directions)[np.asarray(self.flat)]
        x = np.asarray(ravel_pytree(self.trained)[0])
        relative = np.asarray(self.scale) / np.where(x == 0, 1.0, np.abs(x))
        for number, direction in enumerate(basis):
            pivot = int(np.argmax(np.abs(direction)))
            direction /= direction[pivot]
            for other in range(len(basis)):
                if other != number:
                    basis[other] -= basis[other, pivot] * direction
        names = entry_names(self.trained)
        taking_part = [np.flatnonzero(np.abs(row) > 1e-3) for row in basis]
        changes = [row * relative / np.max(np.abs(row * relative)) for row in basis]
        return [{names[i]: float(row[i]) for i in some} for row, some in zip(changes, taking_part, strict=True)]

    def summary(self, level: float = 0.9) -> list[ParameterSummary]:
        """A row for each trained number, for tables.

        Args:
            level: The probability of the credible intervals.
        """
        x = ravel_pytree(self.trained)[0]
        columns = [np.asarray(column, float) for column in (x, self.std(), *self.credible_intervals(level))]
        units = [entry.unit for entry in parameters(self.trained).values() for _ in range(entry.value.size)]
        remarks = np.where(self.at_bound, "at its bound", np.where(np.isinf(columns[1]), "not determined", ""))
        rows = zip(entry_names(self.trained), units, remarks, *columns, strict=True)
        return [
            ParameterSummary(path, float(value), unit, float(std), float(low), float(high), str(remark))
            for path, unit, remark, value, std, low, high in rows
        ]

    def delta_method(self, function: Callable[[Model], Array]) -> tuple[Array, Array]:
        """The value of `function(model)` and its standard deviation to first order.

        The standard deviation is infinite where the value changes along a flat direction. Works under `jit` and `vmap`.

        Args:
            function: A prediction of a model, of any shape.
        """
        x, unravel = ravel_pytree(self.trained)
        predict = lambda x: function(eqx.combine(unravel(x), self.fixed))
        value, jacobian = value_and_jacobian(predict, x)
        variance = jnp.sum((jacobian @ self.covariance) * jacobian, axis=-1)
        scaled = jacobian @ jnp.diag(self.scale)
        along_flat = jnp.max(jnp.abs(scaled @ (self.directions.T * self.flat[None])), axis=-1)
        is_open = along_flat > 1e-6 * jnp.linalg.norm(scaled, axis=-1)
        return value, jnp.where(is_open, jnp.inf, jnp.sqrt(variance))

    def credible_band(
        self, function: Callable[[Model], Array], level: float = 0.9, *, include_noise: bool = False
    ) -> CredibleBand:
        """The pointwise credible band of `function(model)`, by the delta method.

        Args:
            function: A prediction of a model, of any shape.
            level: The probability of each interval.
            include_noise: Whether the band is that of a new observation, whose noise it then includes.
        """
        value, std = self.delta_method(function)
        std = jnp.sqrt(std**2 + self.noise**2) if include_noise else std
        half_width = self.critical_value(level) * std
        return CredibleBand(value, std, value - half_width, value + half_width)


def _value_and_std(row: ParameterSummary) -> str:
    """A value with its standard deviation, to two digits of the latter."""
    if not 0 < row.std < np.inf:
        return f"{row.value:.6g}"
    digits = 1 - int(np.floor(np.log10(row.std)))
    if 0 <= digits <= 8:
        return f"{row.value:.{digits}f} +- {row.std:.{digits}f}"
    return f"{row.value:.6g} +- {row.std:.2g}"


def entry_names(trained: Model) -> list[str]:
    """A name for each number of a model, in the order of `ravel_pytree`: its path, with an index in an array."""
    return [
        path + (str(list(index)) if index else "")
        for path, entry in parameters(trained).items()
        for index in np.ndindex(entry.value.shape)
    ]


def _within_bounds(trained: Model) -> Model:
    """A model within the bounds, whose values replace those of parameters on a bound."""
    return constrain(jax.tree.map(jnp.zeros_like, trained))
