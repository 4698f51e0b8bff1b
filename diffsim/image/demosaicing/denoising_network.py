"""Demosaicking and denoising at once by a small network that is told how noisy the raw is."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..._jax.buffers import materialize
from ..._types import Scalar
from ...parameters import param
from ..ops.correlate_channels_last import depth_to_space, relu, save_activation, space_to_depth, stencil_last
from ..values import check_floating
from .network import LINEAR

MIRRORED = 12  # pixels beyond an edge, a multiple of four


class NoiseConditionedLayer(eqx.Module):
    """A stencil and an offset per output, both of which follow the level s of noise.

    Weights are multiplied by 1 + a s + b s^2 and offsets moved by c s + d s^2, per output: nothing per pixel.
    Called with s and s^2.
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
        """The stencil and the offsets at this level."""
        at = lambda terms: materialize(jnp.sum(powers[:, None] * terms, axis=0))
        return self.weight * (1.0 + at(self.factors))[:, None, None, None], self.bias + at(self.shifts)

    def __call__(self, x: Float[Array, "h w c"], powers: Float[Array, " 2"]) -> Float[Array, "h w k"]:
        """The stencil's sums, beyond the edge of zeros."""
        weight, offset = self.conditioned(powers)
        return stencil_last(weight, x) + offset[None, None]


class DenoisingDemosaic(eqx.Module):
    """The picture of a noisy RGGB mosaic: Malvar's filters plus what a network adds, which is told the noise.

    It works on the quads, and at its coarse level on quads of quads, where a stencil reaches twice as far for a quarter
    of the work. `noise_level` is that of `sensor.noise_level`, 0 at middle noise and one more for four times the
    variance; it is an input, not trained. `widths` are the channels on the quads and on the quads of quads.
    """

    first: NoiseConditionedLayer
    down: NoiseConditionedLayer
    before: NoiseConditionedLayer
    after: NoiseConditionedLayer
    up: NoiseConditionedLayer
    last: NoiseConditionedLayer
    noise_level: Scalar = param(0.0, bounds=(-3.0, 3.0))

    def __init__(self, widths: tuple[int, ...] = (32, 64), *, key: PRNGKeyArray):
        if len(widths) != 2:
            raise InputError(f"widths={widths}: give two, of the channels on the quads and on the quads of quads")
        fine, coarse = widths
        keys = iter(jr.split(key, 6))
        self.first = NoiseConditionedLayer(4, fine, key=next(keys))
        self.down = NoiseConditionedLayer(4 * fine, coarse, 1, key=next(keys))
        self.before = NoiseConditionedLayer(coarse, coarse, key=next(keys))
        self.after = NoiseConditionedLayer(coarse, coarse, gain=0.3, key=next(keys))
        self.up = NoiseConditionedLayer(coarse, 4 * fine, 1, key=next(keys))
        # Nothing is added before training: the other stages find the camera's constants first.
        self.last = NoiseConditionedLayer(fine, 12, gain=0.0, key=next(keys))
        self.noise_level = jnp.zeros(())

    @property
    def widths(self) -> tuple[int, int]:
        """The channels that it was built with."""
        return self.first.bias.size, self.down.bias.size

    def __call__(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """The picture; beyond its edge the mosaic is mirrored, for the network does not know what an edge is."""
        height, width = mosaic.shape
        edges = ((MIRRORED, MIRRORED - height % 4), (MIRRORED, MIRRORED - width % 4))
        whole = self.inside(jnp.pad(mosaic, edges, mode="reflect"))
        return whole[:, MIRRORED : MIRRORED + height, MIRRORED : MIRRORED + width]

    def inside(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """The picture of a mosaic whose sizes are multiples of four and which is not mirrored: worse at its border."""
        check_floating(mosaic)
        sites, powers = space_to_depth(mosaic[..., None]), jnp.stack([self.noise_level, self.noise_level**2])
        # Malvar's filters look at the same sites as the first layer: as one stencil with it, the sites are read once.
        weight, offset = self.first.conditioned(powers)
        found = stencil_last(jnp.concatenate([weight, jnp.asarray(LINEAR, sites.dtype)]), sites)
        fine = relu(found[..., : offset.size] + offset[None, None])
        start = materialize(found[..., offset.size :])
        coarse = relu(self.down(space_to_depth(fine), powers))
        coarse = save_activation(coarse + self.after(relu(self.before(coarse, powers)), powers))
        fine = relu(depth_to_space(self.up(coarse, powers)) + fine)
        change = self.last(fine, powers)
        # Else both parts would be kept for the way back, to be added again.
        return depth_to_space(materialize(start + change)).transpose(2, 0, 1)
