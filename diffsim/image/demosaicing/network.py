"""Learned demosaicking: a small convolutional network that corrects the linear filters of Malvar.

It works on the quads of the mosaic, at half the size, where the colour pattern is the same at every pixel.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..ops.correlate_channels_last import correlate_last, depth_to_space, relu, space_to_depth
from ..ops.pad import pad
from ..values import check_floating
from .bayer import KNOWN, MISSING
from .linear import MALVAR, quad_weights

LINEAR = quad_weights(MALVAR)


class Layer(eqx.Module):
    """A stencil and an offset per output."""

    weight: Float[Array, "k c 3 3"]
    bias: Float[Array, " k"]

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, key: PRNGKeyArray):
        self.weight = gain * np.sqrt(2.0 / (9 * inputs)) * jr.normal(key, (outputs, inputs, 3, 3))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h-2 w-2 k"]:
        """Returns the sums of the stencil where it lies within the picture, plus the offsets."""
        return correlate_last(x, self.weight) + self.bias[None, None]


class DemosaicNetwork(eqx.Module):
    """The picture of an RGGB mosaic: Malvar's filters plus a correction by a network of 3 x 3 stencils on the quads.

    Measured values are unchanged to the last bit. `widths` are the channels between its layers: (16, 16) makes 4,072
    parameters, (18, 18) 4,904.

    Examples:
        >>> network, raw = ds.image.DemosaicNetwork(key=jr.key(0)), jr.uniform(jr.key(1), (8, 8))
        >>> bool(jnp.all(ds.image.mosaic(eqx.filter_jit(network)(raw)) == raw))
        True
        >>> sum(parameter.value.size for parameter in ds.parameters(network).values())
        4072
    """

    layers: tuple[Layer, ...]

    def __init__(self, widths: tuple[int, ...] = (16, 16), *, key: PRNGKeyArray):
        sizes = (4, *widths, len(MISSING))
        keys = jr.split(key, len(sizes) - 1)
        gains = [1.0] * len(widths) + [0.1]
        self.layers = tuple(
            Layer(a, b, gain=gain, key=k) for a, b, gain, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
        )

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
        check_floating(mosaic)
        depth = len(self.layers)
        x = space_to_depth(pad(mosaic[None], self.halo, self.halo)[0][..., None])
        near = slice(depth - 1, 1 - depth or None)
        linear = correlate_last(x[near, near], jnp.asarray(LINEAR, x.dtype))
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        values = _with_known(space_to_depth(mosaic[..., None]), linear, self.layers[-1](x))
        return depth_to_space(values).transpose(2, 0, 1)


def _with_known(sites, linear, correction):
    """The twelve values of every quad: those measured, and the missing ones as corrected."""
    places = dict(zip(KNOWN, jnp.moveaxis(sites, 2, 0), strict=True))
    places |= {i: linear[..., i] + correction[..., n] for n, i in enumerate(MISSING)}
    return jnp.stack([places[i] for i in range(12)], axis=2)
