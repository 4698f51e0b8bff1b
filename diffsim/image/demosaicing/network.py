"""Learned demosaicking: a small convolutional network that corrects the linear filters of Malvar.

It works on the quads of the mosaic, at half the size, where the colour pattern is the same at every pixel.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..._jax.buffers import materialize
from ..._types import Scalar
from ...parameters import param
from ..ops.correlate_channels_last import depth_to_space, relu, space_to_depth, stencil_last
from ..ops.pad import pad
from ..values import check_floating
from .bayer import KNOWN
from .linear import MALVAR, quad_weights
from .noise_conditioned import NoiseConditionedLayer, noise_powers

LINEAR = quad_weights(MALVAR)
IS_KNOWN = np.isin(np.arange(12), KNOWN)
FAINT = 4.0**-2  # the noise at which measured values are corrected by half


class DemosaicNetwork(eqx.Module):
    """The picture of an RGGB mosaic: Malvar's filters plus a correction by a network of 3 x 3 stencils on the quads.

    Each layer between the first and the last adds to its input. `widths` are the channels of these layers, which are
    all equal: five times 16 makes 11,981 parameters. `noise` is the variance of the noise of the mosaic relative to
    that of middle noise (see `sensor.relative_noise`). It is an input, not trained. Where it is 0, measured values are
    unchanged to the last bit.

    Examples:
        >>> network, raw = ds.image.DemosaicNetwork(key=jr.key(0)), jr.uniform(jr.key(1), (16, 16))
        >>> bool(jnp.all(ds.image.mosaic(eqx.filter_jit(network)(raw)) == raw))
        True
        >>> sum(parameter.value.size for parameter in ds.parameters(network).values())
        11981
    """

    layers: tuple[NoiseConditionedLayer, ...]
    noise: Scalar = param(0.0)

    def __init__(self, widths: tuple[int, ...] = (16,) * 5, *, key: PRNGKeyArray):
        if len(set(widths)) != 1:
            raise InputError(f"widths={widths}: give one number of channels, as often as there are layers")
        width = widths[0]
        keys = jr.split(key, len(widths) + 1)
        first = NoiseConditionedLayer(4, width, key=keys[0])
        between = [NoiseConditionedLayer(width, width, gain=0.5, key=key) for key in keys[1:-1]]
        # The correction is 0 before training.
        self.layers = (first, *between, NoiseConditionedLayer(width, 12, gain=0.0, key=keys[-1]))
        self.noise = jnp.zeros(())

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels between its layers."""
        return tuple(layer.bias.size for layer in self.layers[:-1])

    @property
    def halo(self) -> int:
        """How far a pixel depends on others, in pixels."""
        return 2 * len(self.layers)

    def __call__(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture; the mosaic is mirrored beyond its edges."""
        height, width = mosaic.shape
        picture = self.inside(pad(mosaic[None], self.halo, self.halo)[0])
        return picture[:, self.halo : self.halo + height, self.halo : self.halo + width]

    def inside(self, mosaic: Float[Array, "h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture of a mosaic without mirroring: worse at its border."""
        check_floating(mosaic)
        sites, powers = space_to_depth(mosaic[..., None]), noise_powers(self.noise)
        x, linear = first_layer(self.layers[0], sites, powers)
        for layer in self.layers[1:-1]:
            x = relu(x + layer(x, powers))
        correction = self.layers[-1](x, powers)
        of_known = self.noise / (self.noise + FAINT)
        strength = jnp.where(IS_KNOWN, of_known, 1.0)[None, None]
        # Without the barrier, reverse mode would store both terms and add them again.
        return depth_to_space(materialize(linear + strength * correction)).transpose(2, 0, 1)


def first_layer(
    layer: NoiseConditionedLayer, sites: Float[Array, "h w 4"], powers: Float[Array, " 2"]
) -> tuple[Float[Array, "h w k"], Float[Array, "h w 12"]]:
    """Returns a layer's activations of the quads and Malvar's picture of them, as one stencil that reads them once.

    The layer sees only differences between quads: its stencils sum to 0 in each colour. The network's correction is the
    same for flat mosaics of any colour, and so close to 0 after training.
    """
    weight, offset = layer.conditioned(powers)
    weight = weight - jnp.mean(weight, axis=(2, 3), keepdims=True)
    both = stencil_last(jnp.concatenate([weight, jnp.asarray(LINEAR, sites.dtype)]), sites)
    return relu(both[..., : offset.size] + offset[None, None]), materialize(both[..., offset.size :])
