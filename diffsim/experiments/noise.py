"""Noise models: distributions of measurements about their predictions, as densities and as residuals."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float

from .._errors import InputError
from .._jax.tracers import is_tracer

Numbers = Float[ArrayLike, "..."]
HALF_LOG_TWO_PI = 0.5 * float(np.log(2 * np.pi))
SMALL = 0.01  # below which log(1 + x) / x is computed by its series, whose derivatives have no cancellation
TERMS = 10  # of that series


@runtime_checkable
class NoiseModel(Protocol):
    """What a noise model has: any object with these methods, such as an `eqx.Module`, is one.

    `prediction`, `data` and `weights` are arrays of one shape, whose last axis counts the columns of an experiment if
    it has any. A weight w stands for a standard deviation that is smaller by a factor sqrt(w).

    Examples:
        >>> isinstance(ds.experiments.Normal(0.1), ds.experiments.NoiseModel)
        True
    """

    def residuals(self, prediction: Array, data: Array, weights: Array) -> Array:
        """Residuals, half the sum of whose squares is the negative log-likelihood up to a constant.

        Their shape is that of the data, or has one axis more if a measurement has several residuals.
        """
        ...

    def log_density(self, prediction: Array, data: Array, weights: Array) -> Array:
        """The logarithm of the density of each measurement."""
        ...

    def information(self, prediction: Array, weights: Array) -> Array:
        """The Fisher information of each measurement on its prediction, for the design of experiments."""
        ...


def _as_array(value: Any) -> Array:
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))


class Normal(eqx.Module):
    """Normal noise of a known standard deviation.

    Its residual is (prediction - data) / std.

    Args:
        std: The standard deviation, one number or one for each column, in the unit of the data.

    Raises:
        InputError: For a standard deviation that is not positive.

    Examples:
        >>> noise = ds.experiments.Normal(0.5)
        >>> print(noise.residuals(jnp.array(2.0), jnp.array(1.0)))
        2.0
        >>> print(f"{noise.log_density(jnp.array(2.0), jnp.array(1.0)):.4f}")  # -2 - log(0.5) - log(2 pi) / 2
        -2.2258
    """

    std: Float[Array, "..."] = eqx.field(converter=_as_array)

    def __check_init__(self):
        _check("std", self.std, self.std <= 0, "give positive numbers")

    def residuals(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The weighted differences in standard deviations, of the shape of the data."""
        return _standardized(prediction, data, _like(self.std, prediction), weights)

    def log_density(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The logarithm of the density of each measurement."""
        r = self.residuals(prediction, data, weights)
        return 0.5 * jnp.log(weights) - 0.5 * r**2 - jnp.log(_like(self.std, prediction)) - HALF_LOG_TWO_PI

    def information(self, prediction: Numbers, weights: Numbers = 1.0) -> Array:
        """The Fisher information on the prediction, weight / std^2."""
        return jnp.asarray(weights) * _like(self.std, prediction) ** -2.0


class Proportional(eqx.Module):
    """Normal noise that grows with the prediction: variance = floor^2 + (share * prediction)^2.

    A measurement has two residuals, (prediction - data) / std and sqrt(2 log(std / floor)): since the standard
    deviation depends on the prediction, its logarithm is part of the likelihood. `posterior` counts what the noise
    itself says about the parameters approximately, good for shares up to about 0.2;
    `laplace_posterior(problem.loss, model)` has the exact curvature.

    Args:
        share: The standard deviation of a large prediction as a share of it; one number or one for each column.
        floor: The standard deviation at a prediction of zero, in the unit of the data; likewise.

    Raises:
        InputError: For a `floor` that is not positive, and a negative `share`.

    Examples:
        >>> noise = ds.experiments.Proportional(share=0.1, floor=0.3)
        >>> print(noise.residuals(jnp.array(4.0), jnp.array(3.0)).round(3))  # std = 0.5; sqrt(2 log(0.5 / 0.3))
        [2.    1.011]
    """

    share: Float[Array, "..."] = eqx.field(converter=_as_array)
    floor: Float[Array, "..."] = eqx.field(converter=_as_array)

    def __check_init__(self):
        _check("share", self.share, self.share < 0, "give numbers from 0 up, such as 0.1")
        _check("floor", self.floor, self.floor <= 0, "give positive numbers, so that the noise never vanishes")

    def residuals(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The two residuals of each measurement, along a last axis."""
        u, std = self._growth(prediction)
        return jnp.stack([_standardized(prediction, data, std, weights), u * _root_of_log_ratio(u**2)], axis=-1)

    def log_density(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The logarithm of the density of each measurement."""
        std = self._growth(prediction)[1]
        r = _standardized(prediction, data, std, weights)
        return 0.5 * jnp.log(weights) - 0.5 * r**2 - jnp.log(std) - HALF_LOG_TWO_PI

    def information(self, prediction: Numbers, weights: Numbers = 1.0) -> Array:
        """The Fisher information on the prediction, (weight + 2 (d std / d prediction)^2) / std^2."""
        u, std = self._growth(prediction)
        growth = _like(self.share, prediction) * u / jnp.sqrt(1 + u**2)
        return (jnp.asarray(weights) + 2 * growth**2) / std**2

    def _growth(self, prediction: Numbers) -> tuple[Array, Array]:
        """The two parts of the standard deviation as their ratio, and the standard deviation."""
        floor = _like(self.floor, prediction)
        u = _like(self.share, prediction) * jnp.asarray(prediction) / floor
        return u, floor * jnp.sqrt(1 + u**2)


class Student(eqx.Module):
    """Noise by Student's distribution, whose heavy tails leave single outliers little influence.

    Its residual is sign(e) sqrt((degrees + 1) log(1 + e^2 / degrees)) with e = (prediction - data) / std, which is
    smooth at zero.

    Good values: 3 to 5 degrees of freedom where outliers are expected; with 30 it is almost normal noise.

    Args:
        std: The scale of the distribution, for many degrees of freedom its standard deviation; one number or one for
            each column, in the unit of the data.
        degrees: The degrees of freedom; likewise.

    Raises:
        InputError: For numbers that are not positive.

    Examples:
        >>> noise = ds.experiments.Student(0.1, degrees=3.0)
        >>> print(noise.residuals(jnp.array([0.1, 10.0]), jnp.zeros(2)).round(2))  # 1 and 100 standard deviations
        [1.07 5.7 ]
    """

    std: Float[Array, "..."] = eqx.field(converter=_as_array)
    degrees: Float[Array, "..."] = eqx.field(converter=_as_array)

    def __check_init__(self):
        for name, value in (("std", self.std), ("degrees", self.degrees)):
            _check(name, value, value <= 0, "give positive numbers")

    def residuals(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The residuals, of the shape of the data."""
        degrees = _like(self.degrees, prediction)
        e = _standardized(prediction, data, _like(self.std, prediction), weights)
        return e * jnp.sqrt((degrees + 1) / degrees) * _root_of_log_ratio(e**2 / degrees)

    def log_density(self, prediction: Numbers, data: Numbers, weights: Numbers = 1.0) -> Array:
        """The logarithm of the density of each measurement."""
        degrees, std = _like(self.degrees, prediction), _like(self.std, prediction)
        e = _standardized(prediction, data, std, weights)
        log_norm = gammaln((degrees + 1) / 2) - gammaln(degrees / 2) - 0.5 * jnp.log(degrees * np.pi) - jnp.log(std)
        return 0.5 * jnp.log(weights) + log_norm - (degrees + 1) / 2 * jnp.log1p(e**2 / degrees)

    def information(self, prediction: Numbers, weights: Numbers = 1.0) -> Array:
        """The Fisher information on the prediction, weight (degrees + 1) / (degrees + 3) / std^2."""
        degrees = _like(self.degrees, prediction)
        return jnp.asarray(weights) * (degrees + 1) / (degrees + 3) / _like(self.std, prediction) ** 2


def check_noise_shape(noise: NoiseModel, shape: tuple[int, ...]) -> None:
    """Raises InputError if an array of a noise model is neither a number nor one number for each column.

    Args:
        noise: The noise model.
        shape: The shape of the columns: (columns,), or () for measurements of one number.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(noise):
        if eqx.is_inexact_array(leaf) and leaf.shape not in ((), shape):
            name = f"noise{jax.tree_util.keystr(path)}"
            allowed = f"() or {shape}, one for each column" if shape else "()"
            cure = "for a standard deviation of each measurement, give noise=1.0 and weights = 1 / std**2"
            raise InputError(f"{name} has shape {leaf.shape}, expected {allowed}; {cure}")


def _check(name: str, value: Array, is_bad: Array, cure: str) -> None:
    """Raises InputError for a known value that is bad or not finite."""
    if is_tracer(value):
        return
    bad = np.asarray(is_bad) | ~np.isfinite(value)
    if bad.any():
        raise InputError(f"{name}={np.asarray(value)[bad].flat[0]:g}: {cure}")


def _like(parameter: Array, prediction: Numbers) -> Array:
    """A number, or one for each column, for every prediction."""
    return jnp.broadcast_to(parameter.astype(jnp.result_type(prediction)), jnp.shape(prediction))


def _standardized(prediction: Numbers, data: Numbers, std: Array, weights: Numbers) -> Array:
    return (jnp.asarray(prediction) - jnp.asarray(data)) / std * jnp.sqrt(weights)


def _root_of_log_ratio(x: Array) -> Array:
    """sqrt(log(1 + x) / x) for x >= 0, with its derivatives at zero."""
    is_small = x < SMALL
    series = jnp.zeros_like(x)
    near = jnp.where(is_small, x, 0.0)
    for k in reversed(range(TERMS)):
        series = 1 / (k + 1) - near * series
    far = jnp.where(is_small, 1.0, x)
    return jnp.sqrt(jnp.where(is_small, series, jnp.log1p(far) / far))
