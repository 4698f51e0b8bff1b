"""Covariances of fitted parameters: by Gauss-Newton of a least-squares fit, by Laplace of any likelihood."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .._errors import InputError, RunError
from .._jax.tracers import is_tracer
from .._types import Model, Vector
from ..autodiff.jacobian import value_and_jacobian
from ..parameters import partition
from ..train.bounds import is_at_bound
from ..train.data import non_finite_in
from .posterior import Posterior, scale_of


def posterior(
    residuals: Callable,
    model: Model,
    data: PyTree = None,
    *,
    noise: float | None = None,
    measurements: int | None = None,
    filter_spec: PyTree[bool] | None = None,
) -> Posterior:
    """What a least-squares fit says of its parameters: covariance = noise^2 (J^T J)^-1, J the residuals' Jacobian.

    `model` is the fitted one, `filter_spec` what was fitted. Residuals are taken for independent, with standard deviation
    `noise`; without it that is estimated as sqrt(sum(residuals^2) / (measurements - free parameters)). Parameters on
    a bound are taken for known. Directions of relative change whose singular value is below about 1e-6 of the greatest
    are flat. Works under `jit` and `vmap` (`eqx.filter_vmap`); too few measurements then give a noise of NaN.

    A residual counts as missing, and not as a measurement, if it is exactly zero and so is its derivative by every
    trained parameter. That is what a mask leaves, as `jnp.where(jnp.isnan(seen), 0.0, predicted - seen)` or a weight
    of zero. A residual that is zero by chance has a derivative and counts. If a measurement equals its prediction
    exactly and depends on no trained parameter, give the number of `measurements` yourself. It matters for the estimate
    of the noise alone.

    Raises InputError if the noise is to be estimated and there are no more measurements than free parameters, and for
    residuals that are not finite.

    Source: G. A. F. Seber, C. J. Wild, Nonlinear Regression, Wiley 1989, sections 2.1 and 5.1.
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    flat = lambda x: ravel_pytree(residuals(eqx.combine(unravel(x), fixed), data))[0]
    r, jacobian = value_and_jacobian(flat, x)
    _check_finite(r, data)
    counted = jnp.sum(measured(r, jacobian)) if measurements is None else measurements
    held = ravel_pytree(is_at_bound(trained))[0]
    scaled = jacobian @ jnp.diag(jnp.where(held, 0.0, scale_of(x)))
    # Rows of zeros, for there to be as many directions as parameters; those held are directions of their own.
    rows = jnp.concatenate([scaled, jnp.diag(held * jnp.linalg.norm(scaled))])
    _, singular, directions = jnp.linalg.svd(rows, full_matrices=False)
    open_ = singular <= _narrow(x) * jnp.max(singular)
    free = x.size - jnp.sum(held) - jnp.sum(open_)
    if noise is None:
        _check_count(counted, free, r.size, x.size)
        freedom = counted - free
        spread = jnp.where(freedom > 0, jnp.sqrt(jnp.sum(r**2) / jnp.maximum(freedom, 1)), jnp.nan)
    else:
        freedom, spread = jnp.inf, jnp.asarray(noise, x.dtype)
    return _assemble(trained, fixed, directions, singular / spread, open_, held, spread, freedom)


def measured(r: Vector, jacobian: Float[Array, "residuals n"]) -> Bool[Array, " residuals"]:
    """Which residuals are measurements: all but those that are zero and whose derivatives (their rows) are all zero."""
    return (r != 0) | jnp.any(jacobian != 0, axis=1)


def _check_finite(r: Vector, data: PyTree) -> None:
    """Raises InputError for concrete residuals that are not finite; names the data that are not."""
    if is_tracer(r) or bool(jnp.all(jnp.isfinite(r))):
        return
    bad = np.flatnonzero(~np.isfinite(r))
    where = f"{len(bad)} of {r.size} residuals are not finite, the first is number {bad[0]}"
    cure = "set the residuals of missing measurements to zero, as jnp.where(jnp.isnan(seen), 0.0, predicted - seen)"
    raise InputError("; ".join([where, *non_finite_in(data, "data"), cure]))


def _check_count(counted, free, residuals: int, numbers: int) -> None:
    """Raises InputError if there are too few measurements to estimate the noise, as far as that is known."""
    cure = "give noise=, measure more, or train less"
    if is_tracer(counted) or is_tracer(free):
        if residuals <= numbers:
            raise InputError(f"{residuals} residuals cannot tell the noise beside {numbers} parameters: {cure}")
    elif int(counted) <= int(free):
        missing = residuals - int(counted)
        gaps = f" ({missing} of {residuals} are masked)" if missing > 0 else ""
        raise InputError(f"{int(counted)} residuals{gaps} cannot tell the noise beside {int(free)} parameters: {cure}")


def laplace_posterior(
    loss: Callable, model: Model, data: PyTree = None, *, filter_spec: PyTree[bool] | None = None
) -> Posterior:
    """What a minimum of a negative log-likelihood says of its parameters: covariance = the inverse of its Hessian.

    `loss(model, data)` is the negative logarithm of a likelihood or posterior density at its minimum; `noise` is then
    1 and means nothing. All else is as in `posterior`.

    Raises RunError if the loss falls along some direction of second order: the model is then not at its minimum.
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    held = ravel_pytree(is_at_bound(trained))[0]
    scale = jnp.diag(jnp.where(held, 0.0, scale_of(x)))
    hessian = jax.hessian(lambda x: loss(eqx.combine(unravel(x), fixed), data))(x)
    scaled = scale @ hessian @ scale
    # Those held are directions of their own.
    values, directions = jnp.linalg.eigh(scaled + jnp.diag(held * jnp.linalg.norm(scaled)))
    if not is_tracer(values) and float(values[0]) < -1e-6 * float(values[-1]):
        raise RunError("the loss curves downwards at this model: it is no minimum; fit it first, to tight tolerances")
    singular = jnp.sqrt(jnp.maximum(values, 0.0))
    open_ = singular <= _narrow(x) * jnp.max(singular)
    one, freedom = jnp.ones((), x.dtype), jnp.asarray(jnp.inf, x.dtype)
    return _assemble(trained, fixed, directions.T, singular, open_, held, one, freedom)


def _assemble(trained, fixed, directions, singular, flat, held, noise, freedom) -> Posterior:
    weights = jnp.where(flat | (singular == 0), 0.0, 1 / jnp.where(singular == 0, 1.0, singular))
    scale = jnp.where(held, 0.0, scale_of(ravel_pytree(trained)[0]))
    root = jnp.diag(scale) @ directions.T @ jnp.diag(weights)
    return Posterior(trained, fixed, root @ root.T, directions, flat, held, noise, jnp.asarray(freedom))


def _narrow(x: Vector) -> float:
    """The ratio of singular values that roundings of the Jacobian leave in doubt."""
    return float(jnp.finfo(x.dtype).eps) ** 0.4
