"""Layers of small networks whose weights are functions of the noise of the mosaic, which may be none at all."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._jax.buffers import materialize
from ..ops.correlate_channels_last import stencil_last

LEAST, GREATEST = -4.0, 1.2  # noise levels: less noise hardly differs from none; the most that networks learn


class NoiseConditionedLayer(eqx.Module):
    """A stencil and an offset per output, both functions of the scaled noise level s.

    Weights are multiplied by 1 + a s + b s^2 and c s + d s^2 is added to offsets, per output and not per pixel. Called
    with s and s^2: see `noise_powers`.
    """

    weight: Float[Array, "k c n n"]
    bias: Float[Array, " k"]
    factors: Float[Array, "2 k"]
    shifts: Float[Array, "2 k"]

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, gain: float = 1.0, key: PRNGKeyArray):
        self.weight = gain * np.sqrt(2.0 / (size**2 * inputs)) * jr.normal(key, (outputs, inputs, size, size))
        self.bias = jnp.zeros(outputs)
        self.factors, self.shifts = jnp.zeros((2, outputs)), jnp.zeros((2, outputs))

    def conditioned(self, powers: Float[Array, " 2"]) -> tuple[Float[Array, "k c n n"], Float[Array, " k"]]:
        """Returns the stencil and the offsets at this noise level."""
        at = lambda terms: materialize(jnp.sum(powers[:, None] * terms, axis=0))
        return self.weight * (1.0 + at(self.factors))[:, None, None, None], self.bias + at(self.shifts)

    def __call__(self, x: Float[Array, "h w c"], powers: Float[Array, " 2"]) -> Float[Array, "h w k"]:
        """Returns the sums of the stencil, beyond the edge of zeros, plus the offsets."""
        weight, offset = self.conditioned(powers)
        return stencil_last(weight, x) + offset[None, None]


def noise_powers(noise: Float[Array, ""]) -> Float[Array, " 2"]:
    """Returns the scaled noise level s and its square, of a noise variance relative to that of middle noise.

    The level is log4(noise + 4^-4): 0 at middle noise, one more for four times the variance, and -4 without noise, so
    that it is smooth at 0. s goes from -1 to 1 between the least level and the greatest.
    """
    level = jnp.log(noise + 4.0**LEAST) / math.log(4.0)
    scaled = (2.0 * level - LEAST - GREATEST) / (GREATEST - LEAST)
    return jnp.stack([scaled, scaled**2])
