"""The bilateral grid: edge-preserving smoothing in a coarse grid of place and brightness.

Colours are summed into the cells, the grid is blurred, and every pixel reads it at its own place and brightness
(Chen, Paris, Durand, 2007).
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..._jax.buffers import zero_pad
from ..._types import Scalar
from ...parameters import param
from ..ops.luma import luma
from ..ops.pointwise import by_strips
from ..ops.splat_slice import slicing, splatting


class BilateralGrid(eqx.Module):
    """The picture moved by `strength` towards its mean over pixels near in place (`cell` px) and in brightness.

    `blur` and `mix` are the weights of each neighbouring cell in place and in brightness, of which `depth` - 2 cells
    are between 0 and 1. Good values: cell 8 to 64, depth 8 to 16.

    Examples:
        >>> picture = jr.uniform(jr.key(0), (3, 32, 32), minval=0.45, maxval=0.55)
        >>> smooth = eqx.filter_jit(ds.image.BilateralGrid(strength=1.0))(picture)
        >>> bool(jnp.std(smooth) < 0.5 * jnp.std(picture))
        True
    """

    strength: Scalar = param(0.5, bounds=(-1.0, 1.0))
    blur: Scalar = param(0.25, bounds=(0.0, 1.0 / 3.0))
    mix: Scalar = param(0.1, bounds=(0.0, 1.0 / 3.0))
    cell: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=8)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the smoothed picture."""
        height, width = picture.shape[1:]
        padded = zero_pad(zero_pad(picture, 0, -height % self.cell, 1), 0, -width % self.cell, 2)
        # Black and white are half a cell inside the grid, away from the kinks of its outermost depths.
        place = jnp.clip(luma(picture) * (self.depth - 2) + 0.5, 0.0, self.depth - 1.0)[None]
        # The padding of the last cells is at no depth.
        missing = -height % self.cell, -width % self.cell
        place = jnp.pad(place, ((0, 0), (0, missing[0]), (0, missing[1])), constant_values=-2.0)
        grid = splatting(self.cell, self.depth)(place, padded)
        for axis, share in ((0, self.mix), (2, self.blur), (3, self.blur)):
            grid = _blurred(grid, share, axis)
        grid = jnp.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        # Scaled in the grid, the means need not be stored for the gradient of the strength.
        grid = grid * jnp.concatenate([jnp.ones(1, grid.dtype), jnp.full(3, self.strength)])[None, :, None, None]
        return _unfiltered_share(self.strength[None], picture) + slicing(self.cell)(grid, place)[:, :height, :width]


@by_strips
def _unfiltered_share(numbers, planes):
    """The picture times the share that is not smoothed."""
    return [(1.0 - numbers[0]) * plane for plane in planes]


def _blurred(grid, share, axis: int):
    """Every cell mixed with its two neighbours along an axis."""
    edges = [(1, 1) if a == axis else (0, 0) for a in range(grid.ndim)]
    padded = jnp.pad(grid, edges)
    size = grid.shape[axis]
    before, after = (lax.slice_in_dim(padded, at, at + size, axis=axis) for at in (0, 2))
    return (1.0 - 2.0 * share) * grid + share * (before + after)
