"""What one experiment contributes to a fit, from its predictions: residuals, log-likelihood."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Model, Scalar
from .experiment import Experiment, as_noise, is_function
from .measurements import aligned
from .noise import Normal


def residuals_of(model: Model, experiment: Experiment, prediction: Array) -> Float[Array, "... residuals"]:
    """The residuals of each measurement, zero in gaps."""
    prediction, data, weights, measured = aligned(experiment, prediction)
    residuals = noise_of(model, experiment).residuals(prediction, data, weights)
    return jnp.where(measured[..., None], residuals.reshape(*measured.shape, -1), 0.0)


def log_likelihood_of(model: Model, experiment: Experiment, prediction: Array) -> Scalar:
    """The sum of the log densities of the measurements."""
    prediction, data, weights, measured = aligned(experiment, prediction)
    log_densities = noise_of(model, experiment).log_density(prediction, data, weights)
    return jnp.sum(jnp.where(measured, log_densities, 0.0))


def sums_of(model: Model, experiment: Experiment, prediction: Array) -> Float[Array, "3"]:
    """What the likelihood of unknown noise depends on: sum of squares, count, and sum of the logarithms of weights."""
    prediction, data, weights, measured = aligned(experiment, prediction)
    squares = weights * (prediction - data) ** 2
    parts = (squares, jnp.ones_like(squares), jnp.log(weights))
    return jnp.stack([jnp.sum(jnp.where(measured, part, 0.0)) for part in parts])


def loss_of_unknown_noise(sums: Float[Array, "3"]) -> Scalar:
    """The negative log-likelihood with the standard deviation of which the data are most likely."""
    squares, count, log_weights = sums
    return 0.5 * count * (jnp.log(2 * jnp.pi * squares / count) + 1) - 0.5 * log_weights


def noise_of(model: Model, experiment: Experiment) -> Any:
    """The noise model of an experiment; normal with standard deviation 1 if its noise is unknown."""
    noise = experiment.noise
    if noise is None:
        return Normal(1.0)
    return as_noise(noise(model), experiment.noise_shape) if is_function(noise) else noise
