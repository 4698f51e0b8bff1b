"""Bilateral grids of affine maps of colour, and a network that predicts one from a small copy of a picture.

Sources: Chen, Adams, Wadhwa and Hasinoff, "Bilateral guided upsampling" (2016); Gharbi, Chen, Barron, Hasinoff and
Durand, "Deep bilateral learning for real-time image enhancement" (2017).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..ops.luma import luma
from ..values import check_floating
from ..warp import from_centre
from .tone_curve import ToneCurve

STRIP = 8  # rows of a block, at most: its weights stay in the cache
PIXELS = 256  # of blocks that are computed together, at least


def slice_affine(
    grid: Float[Array, "depth 3 4 rows columns"],
    guide: Float[Array, "h w"],
    picture: Float[Array, "3 h w"],
    cell: int = 16,
) -> Float[Array, "3 h w"]:
    """Returns the picture with each pixel's colour mapped by the matrix and offset that the grid has for it.

    They are interpolated linearly between the centres of the cells, in place and in the value of the guide, so that a
    map that varies slowly follows the edges of the guide. Beyond the outermost centres the nearest values count. At the
    value of a depth, the derivative with respect to the guide is the mean of both sides.

    Args:
        grid: matrices of three rows, each of three factors and an offset, one for each cell and depth.
        guide: depth of each pixel, from 0 (the first) to 1 (the last).
        picture: the colours.
        cell: size of a cell in pixels, an even number; the last cells may be cut off by the edges of the picture.

    Raises:
        InputError: for an odd cell, and a grid of another size than the picture's number of cells.

    Examples:
        >>> grid = jnp.zeros((2, 3, 4, 1, 2)).at[1, :, 3].set(1.0)  # black where the guide is 0, white where it is 1
        >>> guide = jnp.tile(jnp.linspace(0.0, 1.0, 5), (3, 1))
        >>> ds.image.slice_affine(grid, guide, jnp.zeros((3, 3, 5)), 4)[0, 0].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    check_floating(picture)
    height, width = guide.shape
    if cell < 2 or cell % 2:
        raise InputError(f"cell={cell}: give an even number of pixels")
    cells = -(-height // cell), -(-width // cell)
    if grid.shape[3:] != cells:
        found = f"a grid of {grid.shape[3]} x {grid.shape[4]} cells"
        raise InputError(
            f"{found} for a picture of {height} x {width} pixels: with cell={cell}, give {cells[0]} x {cells[1]}"
        )
    depth, half = grid.shape[0], cell // 2
    strip = max(n for n in range(1, min(half, STRIP) + 1) if half % n == 0)
    corners = jnp.pad(grid.reshape(depth, 12, *cells), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    place = jnp.clip(guide, 0.0, 1.0)[None] * (depth - 1)
    missing = ((0, 0), (0, -height % cell), (0, -width % cell))
    planes = jnp.pad(jnp.concatenate([place.astype(picture.dtype), picture]), missing, mode="edge")
    columns = planes.shape[2] // half
    before = (np.arange(columns) + 1) // 2
    shares = jnp.asarray(_shares(cell), planes.dtype)
    across = shares[np.arange(columns) % 2]
    together = PIXELS // (strip * half)

    def in_strip(args):
        """The colours of a few rows, half the columns of a cell after another, each between the same four cells."""
        first, here = args
        row = first // half
        down = lax.dynamic_slice_in_dim(shares[row % 2], first % half, strip, axis=1)
        lines = lax.dynamic_slice_in_dim(corners, (row + 1) // 2, 2, axis=2)
        near = jnp.moveaxis(jnp.stack([lines[..., before], lines[..., before + 1]], axis=-1), 3, 0)
        blocks = near, across, jnp.moveaxis(here.reshape(4, strip, columns, half), 2, 0)
        return lax.map(lambda block: _mapped(down, *block), blocks, batch_size=together if together > 1 else None)

    strips = planes.reshape(4, -1, strip, planes.shape[2]).swapaxes(0, 1)
    mapped = lax.map(in_strip, (jnp.arange(0, planes.shape[1], strip), strips))  # (strips, columns, 3, strip, half)
    return mapped.transpose(2, 0, 3, 1, 4).reshape(planes[1:].shape)[:, :height, :width]


@jax.checkpoint  # otherwise the weights of all pixels would be stored
def _mapped(down, near, across, planes):
    """The colours of pixels between four cells, as the product of the matrices there and the weights of the pixels."""
    depth, place = near.shape[0], planes[0].reshape(-1)
    away = place[None] - jnp.arange(depth, dtype=place.dtype)[:, None]
    hats = jnp.maximum(1.0 - jnp.maximum(away, -away), 0.0)  # `abs` has the derivative 1 at 0, where 0 is the mean
    between = (down[:, None, :, None] * across[None, :, None, :]).reshape(4, -1)
    weights = (hats[:, None] * between[None]).reshape(4 * depth, -1)
    entries = (near.transpose(1, 0, 2, 3).reshape(12, -1) @ weights).reshape(3, 4, -1)
    colors = planes[1:].reshape(1, 3, -1)
    return (jnp.sum(entries[:, :3] * colors, axis=1) + entries[:, 3]).reshape(3, *planes.shape[1:])


def _shares(cell: int) -> np.ndarray:
    """The shares (half, side, pixel) of the cells on both sides, for the pixels of the first and second half of one."""
    pixels = (np.arange(cell // 2) + 0.5) / cell
    later = np.stack([pixels + 0.5, pixels])
    return np.stack([1.0 - later, later], axis=1)


class RetouchNetwork(eqx.Module):
    """The picture with a map of colours that depends on place and brightness, as a network sees it fit.

    The network reads a copy of the picture of at most 4 `cells` pixels along its longer side, with the place of each of
    them, and returns a grid of affine maps, `cells` along the longer side and `depth` deep, which `slice_affine`
    applies at full size. Thus its cost hardly depends on the size of the picture, and trained on small pictures it
    retouches large ones. The guide is the luma through a trained curve. Untrained, it does not change the picture.

    Examples:
        >>> network, picture = ds.image.RetouchNetwork(key=jr.key(0)), jr.uniform(jr.key(1), (3, 40, 56))
        >>> bool(jnp.allclose(eqx.filter_jit(network)(picture), picture, atol=1e-6))
        True
    """

    layers: tuple[eqx.nn.Conv2d, ...]
    overall: eqx.nn.Linear
    last: eqx.nn.Conv2d
    guide: ToneCurve
    cells: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(self, width: int = 24, cells: int = 16, depth: int = 8, *, key: PRNGKeyArray):
        keys = jr.split(key, 6)
        self.layers = (
            eqx.nn.Conv2d(5, width, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.Conv2d(width, width, 3, stride=2, padding=1, key=keys[1]),
            eqx.nn.Conv2d(width, width, 3, padding=1, key=keys[2]),
            eqx.nn.Conv2d(width, width, 3, padding=1, key=keys[3]),
        )
        self.overall = eqx.nn.Linear(width, width, key=keys[4])
        last = eqx.nn.Conv2d(width, 12 * depth, 1, key=keys[5])
        self.last = eqx.tree_at(lambda c: (c.weight, c.bias), last, replace_fn=jnp.zeros_like)
        self.guide = ToneCurve()
        self.cells, self.depth = cells, depth

    def cell(self, height: int, width: int) -> int:
        """The size of a cell of the grid of a picture, in pixels: a multiple of eight."""
        return 8 * -(-max(height, width) // (8 * self.cells))

    def grid(self, picture: Float[Array, "3 h w"]) -> Float[Array, "depth 3 4 rows columns"]:
        """Returns the grid of affine maps for a picture."""
        x = self._small(picture).astype(self.last.weight.dtype)
        for layer in self.layers[:3]:
            x = jax.nn.relu(layer(x))
        of_all = self.overall(jnp.mean(x, axis=(1, 2)))
        x = jax.nn.relu(self.layers[3](x) + of_all[:, None, None])
        change = self.last(x).reshape(self.depth, 3, 4, *x.shape[1:])
        return change + jnp.eye(3, 4, dtype=change.dtype)[None, :, :, None, None]

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the retouched picture."""
        check_floating(picture)
        guide = self.guide(luma(picture)[None])[0]
        return slice_affine(self.grid(picture), guide, picture, self.cell(*picture.shape[1:]))

    def _small(self, picture):
        """Means over the sixteenths of cells, and the places of these, from -1 to 1 along the longer side."""
        cell = self.cell(*picture.shape[1:])
        edges = [(0, 0), *((0, -size % cell) for size in picture.shape[1:])]
        padded = jnp.pad(picture, edges, mode="edge")
        rows, columns = (4 * size // cell for size in padded.shape[1:])
        small = padded.reshape(3, rows, cell // 4, columns, cell // 4).mean(axis=(2, 4))
        away, _ = from_centre(rows, columns)
        return jnp.concatenate([small, (2.0 / max(rows, columns)) * away.astype(small.dtype)])
