"""The log density of a posterior in unconstrained parameters, for samplers."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._types import Model, Scalar
from ..parameters import constrain, parameters


class LogDensity(eqx.Module):
    """The logarithm of a posterior density, up to a constant, of the unconstrained trained parameters of a model.

        log density(z) = log likelihood(x) + log prior(x) + log |det dx/dz|,    x = constrain(z)

    It is -inf, with derivatives of zero, where the simulation failed. `FitProblem.log_density` makes it.

    Attributes:
        log_likelihood: The log-likelihood of a model.
        log_prior: The log density of the prior of a model, in its physical parameters; None if it is flat.
        start: The unconstrained trained parameters of the model to start from.
        fixed: The rest of the model.

    Examples:
        >>> class Rate(eqx.Module):
        ...     rate: ds.Scalar = ds.param(1.0, "1/s", bounds=(0.0, np.inf))
        ...
        >>> simulate = lambda model, experiment: jnp.exp(-model.rate * experiment.ts)
        >>> problem = ds.FitProblem(simulate, [ds.Experiment([0.0, 1.0], [1.0, 0.4], noise=0.1)])
        >>> density = problem.log_density(Rate())
        >>> print(density.start.rate, density.model(density.start).rate)
        0.0 1.0
        >>> print(f"{density(density.start):.3f} {jax.grad(density)(density.start).rate:.3f}")
        2.716 -0.182
    """

    log_likelihood: Callable[[Model], Scalar]
    log_prior: Callable[[Model], Scalar] | None
    start: Model
    fixed: Model

    # By identity, so that `jax.jit` takes it as a function: equinox would compare arrays.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __call__(self, free: Model) -> Scalar:
        """The log density at the unconstrained trained parameters, a tree like `start`."""
        return _finite_or_zero(free, density=self)

    def model(self, free: Model) -> Model:
        """The whole model, in physical parameters."""
        return eqx.combine(constrain(free), self.fixed)

    def of_finite(self, free: Model) -> Scalar:
        """The log density, NaN where the simulation failed."""
        model = self.model(free)
        value = self.log_likelihood(model) + log_determinant(free)
        return value if self.log_prior is None else value + self.log_prior(model)


def log_determinant(free: Model) -> Scalar:
    """log |det| of the derivative of `constrain` at unconstrained parameters.

    Args:
        free: A model as `unconstrain` returns it.
    """
    total = jnp.asarray(0.0)
    for entry in parameters(free).values():
        total = total + _log_derivative(entry.value, *entry.bounds)
    return total


def _log_derivative(z: Array, low: float, high: float) -> Array | float:
    """The sum of log |dx/dz| over the entries of a parameter."""
    if np.isinf(low) and np.isinf(high):
        return 0.0
    if np.isinf(high):
        return jnp.sum(z)
    if np.isinf(low):
        return -jnp.sum(z)
    return jnp.sum(math.log(high - low) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))


@eqx.filter_custom_jvp
def _finite_or_zero(free: Model, *, density: LogDensity) -> Scalar:
    """The density, of which a value that is not finite becomes a density of zero."""
    value = density.of_finite(free)
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


@_finite_or_zero.def_jvp
def _tangent(primals: tuple, tangents: tuple, *, density: LogDensity) -> tuple[Scalar, Scalar]:
    """Value and tangent; a choice before and after the linear part keeps NaN of a failure out, in both modes."""
    (free,), (direction,) = primals, tangents
    value, linear = jax.linearize(density.of_finite, free)
    ok = jnp.isfinite(value)
    chosen: PyTree = jax.tree.map(
        lambda x, dx: jnp.zeros_like(x) if dx is None else jnp.where(ok, dx, 0.0), free, direction
    )
    return jnp.where(ok, value, -jnp.inf), jnp.where(ok, linear(chosen), 0.0)
