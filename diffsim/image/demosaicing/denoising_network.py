"""Joint demosaicking and denoising by a small network conditioned on the noise level of the raw."""

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

MIRRORED = 12  # pixels added beyond an edge, a multiple of four


class NoiseConditionedLayer(eqx.Module):
    """A stencil and an offset per output, both functions of the noise level s.

    Weights are multiplied by 1 + a s + b s^2 and c s + d s^2 is added to offsets, per output and not per pixel. Called
    with s and s^2.
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


class DenoisingDemosaic(eqx.Module):
    """The picture of a noisy RGGB mosaic: Malvar's filters plus a correction by a network that takes the noise level.

    It works on the quads, and at its coarse level on quads of quads, where a stencil reaches twice as far for a quarter
    of the work. `noise_level` is that of `sensor.noise_level`, 0 at middle noise and one more for four times the
    variance; it is an input, not trained. `widths` are the channels on the quads and on the quads of quads.

    Examples:
        >>> network = ds.image.DenoisingDemosaic((8, 8), key=jr.key(0))
        >>> eqx.filter_jit(network)(jnp.full((16, 16), 0.5)).shape
        (3, 16, 16)
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
        # The correction is 0 before training: the other stages learn the constants of the camera first.
        self.last = NoiseConditionedLayer(fine, 12, gain=0.0, key=next(keys))
        self.noise_level = jnp.zeros(())

    @property
    def widths(self) -> tuple[int, int]:
        """The channels on the quads and on the quads of quads."""
        return self.first.bias.size, self.down.bias.size

    def __call__(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture; the mosaic is mirrored beyond its edges, which the network was not trained on."""
        height, width = mosaic.shape
        edges = ((MIRRORED, MIRRORED - height % 4), (MIRRORED, MIRRORED - width % 4))
        picture = self.inside(jnp.pad(mosaic, edges, mode="reflect"))
        return picture[:, MIRRORED : MIRRORED + height, MIRRORED : MIRRORED + width]

    def inside(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture of a mosaic whose sizes are multiples of four, without mirroring: worse at its border."""
        check_floating(mosaic)
        sites, powers = space_to_depth(mosaic[..., None]), jnp.stack([self.noise_level, self.noise_level**2])
        # Malvar's filters read the same sites as the first layer: as one stencil, they are read once.
        weight, offset = self.first.conditioned(powers)
        both = stencil_last(jnp.concatenate([weight, jnp.asarray(LINEAR, sites.dtype)]), sites)
        fine = relu(both[..., : offset.size] + offset[None, None])
        linear = materialize(both[..., offset.size :])
        coarse = relu(self.down(space_to_depth(fine), powers))
        coarse = save_activation(coarse + self.after(relu(self.before(coarse, powers)), powers))
        fine = relu(depth_to_space(self.up(coarse, powers)) + fine)
        correction = self.last(fine, powers)
        # Without the barrier, reverse mode would store both terms and add them again.
        return depth_to_space(materialize(linear + correction)).transpose(2, 0, 1)
