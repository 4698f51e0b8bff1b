"""The bilateral grid: smoothing that keeps edges, in a coarse grid of place and brightness.

Colours are summed into the cells, the grid is blurred, and every pixel reads it at its own place and brightness
(Chen, Paris, Durand, 2007). A pixel's share in a cell is written as a hat over all depths, so that neither way
looks anything up: the adjoints gather too.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._types import Scalar
from ..parameters import param
from .colour import luma


class BilateralGrid(eqx.Module):
    """The picture moved by `strength` towards its mean over pixels near in place (`cell` px) and in brightness.

    `blur` and `mix` are the shares of the neighbouring cells in place and in brightness, for which `depth` - 2
    cells lie between 0 and 1. Good values: cell 8 to 64, depth 8 to 16.
    """

    strength: Scalar = param(0.5, bounds=(-1.0, 1.0))
    blur: Scalar = param(0.25, bounds=(0.0, 1.0 / 3.0))
    mix: Scalar = param(0.1, bounds=(0.0, 1.0 / 3.0))
    cell: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=8)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The smoothed picture."""
        height, width = picture.shape[1:]
        edges = [(0, 0), (0, -height % self.cell), (0, -width % self.cell)]
        ones = jnp.ones((1, height, width), picture.dtype)
        padded = jnp.pad(jnp.concatenate([ones, picture]), edges)
        grid = self._splat(padded)
        for axis, share in ((0, self.mix), (2, self.blur), (3, self.blur)):
            grid = _blurred(grid, share, axis)
        sums = self._slice(grid, padded)[:, :height, :width]
        # A pixel finds itself in the grid; the small number is for one that is alone at the far end of its cell.
        mean = sums[1:] / (sums[:1] + 1e-6)
        return picture + self.strength * (mean - picture)

    def _shares(self, padded):
        """The share of every pixel in each depth: hats of unit sum, (depth, ...)."""
        # Black and white lie half a cell inside, away from the kinks; beyond the last cells there are none.
        place = jnp.clip(luma(padded[1:]) * (self.depth - 2) + 0.5, 0.0, self.depth - 1.0)
        at = np.arange(self.depth, dtype=place.dtype).reshape(-1, *[1] * place.ndim)
        return jnp.maximum(1.0 - jnp.abs(place[None] - at), 0.0)

    def _splat(self, padded):
        """The grid (depth, 4, rows, columns) of the sums of weight and colours."""
        width = padded.shape[2]

        def row(_, at):
            strip = lax.dynamic_slice_in_dim(padded, at, self.cell, axis=1)
            products = self._shares(strip)[:, None] * strip[None]
            return None, products.sum(2).reshape(self.depth, 4, width // self.cell, self.cell).sum(3)

        _, rows = lax.scan(eqx.filter_checkpoint(row), None, jnp.arange(0, padded.shape[1], self.cell))
        return jnp.moveaxis(rows, 0, 2)

    def _slice(self, grid, padded):
        """The sums (4, h, w) that every pixel finds at its place, straight between the centres of the cells."""
        count = grid.shape[2]
        weights = jnp.asarray(_between(self.cell), grid.dtype)
        columns = jnp.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")

        def row(_, i):
            strip = lax.dynamic_slice_in_dim(padded, self.cell * i, self.cell, axis=1)
            near = lax.dynamic_slice_in_dim(columns, i, 3, axis=2)
            lines = jnp.einsum("dcaw,ai->dciw", near, weights)
            sides = jnp.stack([lines[..., j : j + grid.shape[3]] for j in range(3)])
            fine = jnp.einsum("adciw,aj->dciwj", sides, weights).reshape(self.depth, 4, self.cell, -1)
            return None, jnp.sum(self._shares(strip)[:, None] * fine, axis=0)

        _, strips = lax.scan(eqx.filter_checkpoint(row), None, jnp.arange(count))
        return jnp.moveaxis(strips, 0, 1).reshape(4, count * self.cell, -1)


def _blurred(grid, share, axis: int):
    """Every cell mixed with its two neighbours along an axis."""
    edges = [(1, 1) if a == axis else (0, 0) for a in range(grid.ndim)]
    padded = jnp.pad(grid, edges)
    size = grid.shape[axis]
    before, after = (lax.slice_in_dim(padded, at, at + size, axis=axis) for at in (0, 2))
    return (1.0 - 2.0 * share) * grid + share * (before + after)


def _between(cell: int) -> np.ndarray:
    """The weights (3, cell) of the cell before, its own and the one after, for each pixel of a cell."""
    offset = (np.arange(cell) + 0.5) / cell - 0.5
    return np.stack([np.maximum(-offset, 0.0), 1.0 - abs(offset), np.maximum(offset, 0.0)])
