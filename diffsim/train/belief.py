"""From a fit to what one may believe of it: covariances, intervals, prediction bands, and directions left open."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .._errors import InputError, WorkFailed
from .._types import Model, Scalar, Vector
from ..parameters import constrain, limits, on_bound, parameters, unconstrain
from .least_squares import parts


class Row(NamedTuple):
    """What is believed of one number of a model: value, unit, standard deviation, interval, and a remark."""

    path: str
    value: float
    unit: str
    std: float
    low: float
    high: float
    remark: str


class Band(NamedTuple):
    """A prediction with its standard deviation and the ends of its band, all of the prediction's shape."""

    value: Array
    std: Array
    low: Array
    high: Array


class Belief(eqx.Module):
    """A normal distribution of a model's trained parameters about their fitted values, in physical units.

    `covariance` (n, n) holds for what the data determine: it is zero in the rows of parameters on a bound (`held`),
    which are taken for known, and along the `flat` of the scaled directions (its rows; `flat` tells which). `noise`
    is the standard deviation of a residual, `freedom` the degrees of freedom it was estimated with, infinite if it
    was given.
    """

    trained: Model
    fixed: Model
    covariance: Float[Array, "n n"]
    directions: Float[Array, "n n"]
    flat: Bool[Array, " n"]
    held: Bool[Array, " n"]
    noise: Scalar
    freedom: Scalar

    def std(self) -> Vector:
        """Standard deviations, infinite where a flat direction takes part, NaN on a bound."""
        spread = jnp.sqrt(jnp.diagonal(self.covariance))
        part = jnp.any(self.flat[:, None] & (jnp.abs(self.directions) > 1e-3), axis=0)
        return jnp.where(self.held, jnp.nan, jnp.where(part, jnp.inf, spread))

    def correlation(self) -> Float[Array, "n n"]:
        """Correlations of the parameters; NaN in the rows of those on a bound."""
        spread = jnp.sqrt(jnp.diagonal(self.covariance))
        return self.covariance / (spread[:, None] * spread[None])

    def quantile(self, level: float) -> np.ndarray:
        """How many standard deviations a two-sided interval of this level reaches: Student's, for its freedom."""
        if not 0 < level < 1:
            raise InputError(f"level={level:g}: give a share between 0 and 1, such as 0.9")
        from scipy.special import ndtri, stdtrit

        freedom = np.asarray(self.freedom)
        finite = np.where(np.isinf(freedom), 1.0, np.maximum(freedom, 1.0))
        return np.where(np.isinf(freedom), ndtri((1 + level) / 2), stdtrit(finite, (1 + level) / 2))

    def intervals(self, level: float = 0.9) -> tuple[Vector, Vector]:
        """The ends of each parameter's interval, symmetric before the bounds' transform and so never beyond them."""
        x, unravel = ravel_pytree(self.trained)
        low, high = limits(self.trained)
        middle = jnp.where(self.held, ravel_pytree(_middle(self.trained))[0], x)
        z, flat = ravel_pytree(unconstrain(unravel(middle)))
        bounded = lambda z: ravel_pytree(constrain(flat(z)))[0]
        slope = jax.jvp(bounded, (z,), (jnp.ones_like(z),))[1]
        reach = self.quantile(level) * self.std() / slope
        ends = (jnp.where(jnp.isinf(reach), end, bounded(z + s * reach)) for s, end in ((-1, low), (1, high)))
        return tuple(ends)

    def flat_directions(self) -> list[dict[str, float]]:
        """The directions in which the data say nothing: relative changes by path, the greatest 1."""
        found = []
        for direction in np.asarray(self.directions)[np.asarray(self.flat)]:
            weights = direction / direction[np.argmax(np.abs(direction))]
            found.append({n: float(w) for n, w in zip(names(self.trained), weights, strict=True) if abs(w) > 1e-3})
        return found

    def rows(self, level: float = 0.9) -> list[Row]:
        """A row for each trained number, for tables."""
        x = ravel_pytree(self.trained)[0]
        columns = [np.asarray(c, float) for c in (x, self.std(), *self.intervals(level))]
        units = [entry.unit for entry in parameters(self.trained).values() for _ in range(entry.value.size)]
        remarks = np.where(self.held, "at its bound", np.where(np.isinf(columns[1]), "not determined", ""))
        every = zip(names(self.trained), units, remarks, *columns, strict=True)
        return [Row(name, float(x), unit, *map(float, ends), str(remark)) for name, unit, remark, x, *ends in every]

    def spread(self, function: Callable[[Model], Array]) -> tuple[Array, Array]:
        """The value of `function(model)` and its standard deviation, to first order (the delta method).

        It is infinite where the value changes along a flat direction. Works under `jit` and `vmap`.
        """
        x, unravel = ravel_pytree(self.trained)
        predict = lambda x: function(eqx.combine(unravel(x), self.fixed))
        value, slopes = predict(x), jax.jacfwd(predict)(x)
        variance = jnp.sum((slopes @ self.covariance) * slopes, axis=-1)
        scaled = slopes @ jnp.diag(_scale(x))
        open_ = jnp.max(jnp.abs(scaled @ (self.directions.T * self.flat[None])), axis=-1)
        return value, jnp.where(open_ > 1e-6 * jnp.linalg.norm(scaled, axis=-1), jnp.inf, jnp.sqrt(variance))

    def band(self, function: Callable[[Model], Array], level: float = 0.9, *, observed: bool = False) -> Band:
        """The band of `function(model)`, of any shape, at this level; `observed` adds the noise of one observation."""
        value, std = self.spread(function)
        std = jnp.sqrt(std**2 + self.noise**2) if observed else std
        reach = self.quantile(level) * std
        return Band(value, std, value - reach, value + reach)


def belief(
    residuals: Callable,
    model: Model,
    data: PyTree = None,
    *,
    noise: float | None = None,
    train: PyTree[bool] | None = None,
) -> Belief:
    """What a least-squares fit says of its parameters: covariance = noise^2 (J^T J)^-1, J the residuals' Jacobian.

    `model` is the fitted one, `train` what was fitted. Residuals are taken for independent, with standard deviation
    `noise`; without it that is estimated as sqrt(sum(residuals^2) / (residuals - free parameters)). Parameters on a
    bound are taken for known. Directions of relative change whose singular value is below about 1e-6 of the greatest
    are flat. Works under `jit` and `vmap` (`eqx.filter_vmap`).

    Raises InputError if the noise is to be estimated and there are no more residuals than parameters.

    Source: G. A. F. Seber, C. J. Wild, Nonlinear Regression, Wiley 1989, sections 2.1 and 5.1.
    """
    trained, fixed = parts(model, train)
    x, unravel = ravel_pytree(trained)
    flat = lambda x: ravel_pytree(residuals(eqx.combine(unravel(x), fixed), data))[0]
    r, jacobian = flat(x), jax.jacfwd(flat)(x)
    if noise is None and r.size <= x.size:
        cure = "give noise=, measure more, or train less"
        raise InputError(f"{r.size} residuals cannot tell the noise beside {x.size} parameters: {cure}")
    held = ravel_pytree(on_bound(trained))[0]
    scaled = jacobian @ jnp.diag(jnp.where(held, 0.0, _scale(x)))
    # Rows of zeros, for there to be as many directions as parameters.
    rows = jnp.concatenate([scaled, jnp.zeros((x.size, x.size), x.dtype)])
    _, singular, directions = jnp.linalg.svd(rows, full_matrices=False)
    open_ = _flat(singular, directions, held, _narrow(x))
    freedom = r.size - x.size + jnp.sum(held) + jnp.sum(open_) if noise is None else jnp.inf
    spread = jnp.sqrt(jnp.sum(r**2) / freedom) if noise is None else jnp.asarray(noise, x.dtype)
    return _assemble(trained, fixed, directions, singular / spread, open_, held, spread, freedom)


def laplace(loss: Callable, model: Model, data: PyTree = None, *, train: PyTree[bool] | None = None) -> Belief:
    """What a minimum of a negative log-likelihood says of its parameters: covariance = the inverse of its Hessian.

    `loss(model, data)` is the negative logarithm of a likelihood or posterior density at its minimum; `noise` is then
    1 and means nothing. All else is as in `belief`.

    Raises WorkFailed if the loss falls along some direction of second order: the model is then not at its minimum.
    """
    trained, fixed = parts(model, train)
    x, unravel = ravel_pytree(trained)
    held = ravel_pytree(on_bound(trained))[0]
    scale = jnp.diag(jnp.where(held, 0.0, _scale(x)))
    hessian = jax.hessian(lambda x: loss(eqx.combine(unravel(x), fixed), data))(x)
    values, directions = jnp.linalg.eigh(scale @ hessian @ scale)
    if not isinstance(values, Tracer) and float(values[0]) < -1e-6 * float(values[-1]):
        raise WorkFailed("the loss curves downwards at this model: it is no minimum; fit it first, to tight tolerances")
    singular = jnp.sqrt(jnp.maximum(values, 0.0))
    open_ = _flat(singular, directions.T, held, _narrow(x))
    one, freedom = jnp.ones((), x.dtype), jnp.asarray(jnp.inf, x.dtype)
    return _assemble(trained, fixed, directions.T, singular, open_, held, one, freedom)


def names(trained: Model) -> list[str]:
    """A name for each number of a model, in the order of `ravel_pytree`: its path, with an index in an array."""
    found = []
    for path, entry in parameters(trained).items():
        found += [path + (str(list(index)) if index else "") for index in np.ndindex(entry.value.shape)]
    return found


def _assemble(trained, fixed, directions, singular, flat, held, noise, freedom) -> Belief:
    weights = jnp.where(flat | (singular == 0), 0.0, 1 / jnp.where(singular == 0, 1.0, singular))
    scale = jnp.where(held, 0.0, _scale(ravel_pytree(trained)[0]))
    root = jnp.diag(scale) @ directions.T @ jnp.diag(weights)
    return Belief(trained, fixed, root @ root.T, directions, flat, held, noise, jnp.asarray(freedom))


def _flat(singular, directions, held, narrow: float) -> Bool[Array, " n"]:
    """Which directions, of those not held, the data say next to nothing about."""
    free = directions**2 @ held.astype(directions.dtype) < 0.5
    return (singular <= narrow * jnp.max(singular)) & free


def _narrow(x: Vector) -> float:
    """The ratio of singular values that roundings of the Jacobian leave in doubt."""
    return float(jnp.finfo(x.dtype).eps) ** 0.4


def _scale(x: Vector) -> Vector:
    """The size by which a parameter's changes are measured: its own, or 1 at zero."""
    return jnp.where(x == 0, 1.0, jnp.abs(x))


def _middle(trained: Model) -> Model:
    """A model within the bounds, to stand for parameters on them."""
    return constrain(jax.tree.map(jnp.zeros_like, trained))
