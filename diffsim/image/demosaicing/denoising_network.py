"""Joint demosaicking and denoising by a network conditioned on the noise of the raw, which may be none at all."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..._jax.buffers import materialize
from ..._types import Scalar
from ...parameters import param
from ..ops.correlate_channels_last import depth_to_space, relu, save_activation, space_to_depth
from ..values import check_floating
from .network import first_layer
from .noise_conditioned import NoiseConditionedLayer, noise_powers

MIRRORED = 16  # pixels added beyond an edge, a multiple of four


class DenoisingDemosaic(eqx.Module):
    """The picture of a noisy RGGB mosaic: Malvar's filters plus a correction by a network that takes the noise level.

    It works on the quads, and at its coarse level on quads of quads, where a stencil reaches twice as far for a quarter
    of the work; a last stencil on the quads restores fine detail. `noise` is that of `sensor.relative_noise`, 0 without
    noise and 1 at middle noise; it is an input, not trained. `widths` are the channels on the quads and on the quads
    of quads.

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
    refine: NoiseConditionedLayer
    last: NoiseConditionedLayer
    noise: Scalar = param(0.0)

    def __init__(self, widths: tuple[int, ...] = (24, 56), *, key: PRNGKeyArray):
        if len(widths) != 2:
            raise InputError(f"widths={widths}: give two, of the channels on the quads and on the quads of quads")
        fine, coarse = widths
        keys = iter(jr.split(key, 7))
        self.first = NoiseConditionedLayer(4, fine, key=next(keys))
        self.down = NoiseConditionedLayer(4 * fine, coarse, 1, key=next(keys))
        self.before = NoiseConditionedLayer(coarse, coarse, key=next(keys))
        self.after = NoiseConditionedLayer(coarse, coarse, gain=0.3, key=next(keys))
        self.up = NoiseConditionedLayer(coarse, 4 * fine, 1, key=next(keys))
        self.refine = NoiseConditionedLayer(fine, fine, gain=0.5, key=next(keys))
        # The correction is 0 before training: the other stages learn the constants of the camera first.
        self.last = NoiseConditionedLayer(fine, 12, gain=0.0, key=next(keys))
        self.noise = jnp.zeros(())

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
        sites, powers = space_to_depth(mosaic[..., None]), noise_powers(self.noise)
        fine, linear = first_layer(self.first, sites, powers)
        coarse = relu(self.down(space_to_depth(fine), powers))
        coarse = save_activation(coarse + self.after(relu(self.before(coarse, powers)), powers))
        fine = relu(depth_to_space(self.up(coarse, powers)) + fine)
        fine = relu(fine + self.refine(fine, powers))
        correction = self.last(fine, powers)
        # Without the barrier, reverse mode would store both terms and add them again.
        return depth_to_space(materialize(linear + correction)).transpose(2, 0, 1)
