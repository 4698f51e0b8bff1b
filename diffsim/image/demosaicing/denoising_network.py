"""Demosaicking and denoising at once by a small network that is told how noisy the raw is."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..._types import Scalar
from ...parameters import param
from ..ops.box_filter import held
from ..ops.correlate_channels_last import kept, rectified, stencil_last, to_pixels, to_quads
from ..values import check_floating
from .network import LINEAR

MIRRORED = 12  # pixels beyond an edge, a multiple of four


class ToldLayer(eqx.Module):
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

    def told(self, powers: Float[Array, " 2"]) -> tuple[Float[Array, "k c n n"], Float[Array, " k"]]:
        """The stencil and the offsets at this level."""
        at = lambda terms: held(jnp.sum(powers[:, None] * terms, axis=0))
        return self.weight * (1.0 + at(self.factors))[:, None, None, None], self.bias + at(self.shifts)

    def __call__(self, x: Float[Array, "h w c"], powers: Float[Array, " 2"]) -> Float[Array, "h w k"]:
        """The stencil's sums, beyond the edge of zeros."""
        weight, offset = self.told(powers)
        return stencil_last(weight, x) + offset[None, None]


class Restore(eqx.Module):
    """The picture of a noisy RGGB mosaic: Malvar's filters plus what a network adds, which is told the noise.

    It works on the quads, and within on quads of quads, where a stencil reaches twice as far for a quarter of the
    work. `level` is that of `sensor.level`: 0 at middle noise, one more for four times the variance; it is given, not
    trained. `widths` are the channels on the quads and on the quads of quads.
    """

    first: ToldLayer
    down: ToldLayer
    before: ToldLayer
    after: ToldLayer
    up: ToldLayer
    last: ToldLayer
    level: Scalar = param(0.0, bounds=(-3.0, 3.0))

    def __init__(self, widths: tuple[int, ...] = (32, 64), *, key: PRNGKeyArray):
        if len(widths) != 2:
            raise InputError(f"widths={widths}: give two, of the channels on the quads and on the quads of quads")
        fine, coarse = widths
        keys = iter(jr.split(key, 6))
        self.first = ToldLayer(4, fine, key=next(keys))
        self.down = ToldLayer(4 * fine, coarse, 1, key=next(keys))
        self.before = ToldLayer(coarse, coarse, key=next(keys))
        self.after = ToldLayer(coarse, coarse, gain=0.3, key=next(keys))
        self.up = ToldLayer(coarse, 4 * fine, 1, key=next(keys))
        # Nothing is added before training: the other stages find the camera's constants first.
        self.last = ToldLayer(fine, 12, gain=0.0, key=next(keys))
        self.level = jnp.zeros(())

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
        sites, powers = to_quads(mosaic[..., None]), jnp.stack([self.level, self.level**2])
        # Malvar's filters look at the same sites as the first layer: as one stencil with it, the sites are read once.
        weight, offset = self.first.told(powers)
        found = stencil_last(jnp.concatenate([weight, jnp.asarray(LINEAR, sites.dtype)]), sites)
        fine = rectified(found[..., : offset.size] + offset[None, None])
        start = held(found[..., offset.size :])
        coarse = rectified(self.down(to_quads(fine), powers))
        coarse = kept(coarse + self.after(rectified(self.before(coarse, powers)), powers))
        fine = rectified(to_pixels(self.up(coarse, powers)) + fine)
        change = self.last(fine, powers)
        # Else both parts would be kept for the way back, to be added again.
        return to_pixels(held(start + change)).transpose(2, 0, 1)
