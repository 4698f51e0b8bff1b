"""Splatting a picture into a grid of cells and depths, and slicing such a grid, with their adjoints by hand.

A pixel's weight at a depth is a hat function, so that neither operation looks anything up. The rows of the grid are
interpolated to the width of the picture first: what is left are sums of products of rows, in the order of the picture,
which a processor does in vector registers.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_adjoint import with_adjoint
from ..values import check_floating


@cache
def splatting(cell: int, depth: int):
    """Returns `splat(place, colors)`: the sums of weights and weighted colours in the cells and depths of a grid.

    Its arguments are the depth (1, h, w) of every pixel and the colours (c, h, w), h and w being multiples of `cell`;
    its result is the grid (depth, 1 + c, rows, columns).
    """

    def sum_columns(place, colors):
        hats, ones = _hats(place, depth), np.ones(cell, place.dtype)
        return jnp.stack([_down(hats, value, ones) for value in (jnp.ones_like(place), *colors)], axis=1)

    def splat(place, colors):
        def cell_row(_, at):
            depths, values = (_rows(x, at, cell) for x in (place, colors))
            return None, _in_cells(sum_columns(depths[0], values), cell) @ np.ones(cell, place.dtype)

        _, cell_rows = lax.scan(cell_row, None, jnp.arange(0, place.shape[1], cell))
        return jnp.moveaxis(cell_rows, 0, 2)

    def pull_back(place, colors, cotangent):
        cotangent = cotangent[:, :, None]
        to_colors = [materialize(_read(place, cotangent[:, 1 + c])) for c in range(len(colors))]
        along = [c[0] + sum(b * value for b, value in zip(c[1:], colors, strict=True)) for c in cotangent]
        return materialize(_slope(place, along))[None], jnp.stack(to_colors)

    def adjoint(place, colors, cotangent):
        lines = materialize(jnp.repeat(jnp.moveaxis(cotangent, 2, 0), cell, axis=-1))

        def cell_row(carry, i):
            (to_place, to_colors), at = carry, i * cell
            depths, values = (_rows(x, at, cell) for x in (place, colors))
            row = materialize(lax.dynamic_index_in_dim(lines, i, keepdims=False))
            to_depths, to_values = pull_back(depths[0], values, row)
            return (_write_rows(to_place, to_depths, at), _write_rows(to_colors, to_values, at)), None

        buffers = output_buffer(cotangent, place.shape), output_buffer(cotangent, colors.shape)
        return lax.scan(cell_row, buffers, jnp.arange(len(lines)))[0]

    return with_adjoint(splat, adjoint, check_floating)


@cache
def slicing(cell: int):
    """Returns `slice_grid(grid, place)`: the mean colours (c, h, w) at the place and depth of every pixel.

    Of a grid (depth, 1 + c, rows + 2, columns + 2), one cell larger on all sides than the picture: the sums of colours
    over that of weights, both interpolated linearly between the centres of cells. The adjoint computes the sums again:
    storing a picture of them takes longer.
    """
    half = -(-cell // 2)

    def means(near, shares, place):
        return jnp.stack(_means(place, _at_rows(near, shares))[1])

    def slice_grid(grid, place):
        lines = _interpolated_rows(grid, cell)

        def half_row(picture, half_cell):
            line, at, shares, _ = half_cell
            near = lax.dynamic_slice_in_dim(lines, line, 2)
            return _write_rows(picture, means(near, shares, _rows(place, at, half)[0]), at), None

        shape = (grid.shape[1] - 1, *place.shape[1:])
        return lax.scan(half_row, output_buffer(grid, shape), _halves(place, cell))[0]

    def pull_back(near, shares, once, place, cotangent):
        at = _at_rows(near, shares)
        share, mean_colors = _means(place, at)
        to_sums = [materialize(share * c) for c in cotangent]
        to_weight = materialize(-sum(c * mean for c, mean in zip(to_sums, mean_colors, strict=True)))
        to_sums = [to_weight, *to_sums]
        along = [sum(c * x for c, x in zip(to_sums, values, strict=True)) for values in zip(*at, strict=True)]
        hats = _hats(place, near.shape[1])
        to_near = [jnp.stack([_down(hats, c, once * rows) for c in to_sums], axis=1) for rows in shares]
        return jnp.stack(to_near), materialize(_slope(place, along))[None]

    def adjoint(grid, place, cotangent):
        lines = _interpolated_rows(grid, cell)

        def half_row(carry, half_cell):
            (to_grid, to_place), (line, at, shares, once) = carry, half_cell
            near = lax.dynamic_slice_in_dim(lines, line, 2)
            depths, cotangents = (_rows(x, at, half) for x in (place, cotangent))
            to_near, to_depths = pull_back(near, shares, once, depths[0], cotangents)
            before = materialize(lax.dynamic_slice_in_dim(to_grid, line, 2))
            to_grid = lax.dynamic_update_slice_in_dim(to_grid, before + _to_cells(to_near, cell), line, axis=0)
            return (to_grid, _write_rows(to_place, to_depths, at)), None

        carry = jnp.zeros_like(jnp.moveaxis(grid, 2, 0)), output_buffer(cotangent, place.shape)
        to_grid, to_place = lax.scan(half_row, carry, _halves(place, cell))[0]
        return jnp.moveaxis(to_grid, 0, 2), to_place

    return with_adjoint(slice_grid, adjoint, check_floating)


def _halves(place, cell: int):
    """The halves of all rows of cells, each between two lines of the grid: four arrays over the halves.

    The first of both lines, the first row of the half, the shares (2, half) of both lines at its rows, and the weights
    of its rows in sums: both halves of an odd cell contain its middle row.
    """
    half = -(-cell // 2)
    number = np.arange(2 * (place.shape[1] // cell))
    second = number % 2
    first = second * (cell - half)
    later = (first[:, None] + np.arange(half) + 0.5) / cell + 0.5 - second[:, None]
    shares = np.stack([1.0 - later, later], axis=1).astype(place.dtype)
    shared = cell % 2 * (first[:, None] + np.arange(half) == cell // 2)
    return (number + 1) // 2, number // 2 * cell + first, shares, (1.0 - 0.5 * shared).astype(place.dtype)


def _interpolated_rows(grid, cell: int):
    """The rows of the grid, interpolated linearly between the cells of a row: (rows + 2, depth, 1 + c, w)."""
    columns = grid.shape[3] - 2
    across = _between(cell).astype(grid.dtype).reshape(3, 1, 1, 1, 1, cell)
    parts = [grid[..., b : b + columns, None] * across[b] for b in range(3)]
    return materialize(jnp.moveaxis(sum(parts), 2, 0).reshape(grid.shape[2], *grid.shape[:2], -1))


def _to_cells(lines, cell: int):
    """The adjoint of the interpolation along a row (..., w): (..., columns + 2)."""
    parts, across = _in_cells(lines, cell), _between(cell).astype(lines.dtype)
    edges = [(0, 0)] * (lines.ndim - 1)
    return sum(jnp.pad(parts @ across[b], [*edges, (b, 2 - b)]) for b in range(3))


def _at_rows(near, shares):
    """Two lines of the grid interpolated at the rows between them, by colour and depth."""
    near, shares = near[:, :, :, None], shares[:, :, None]
    at = lambda d, c: shares[0] * near[0, d, c] + shares[1] * near[1, d, c]
    return [[at(d, c) for d in range(near.shape[1])] for c in range(near.shape[2])]


def _means(place, at):
    """One over the weight and the mean colours."""
    weight, *sums = (_read(place, values) for values in at)
    # Its own weight is in the grid, so a pixel divides by 0 only if it is alone at the far end of its cell.
    share = materialize(1.0 / (weight + 1e-6))
    return share, [materialize(share * total) for total in sums]


def _hat(place, number):
    return jnp.maximum(1.0 - jnp.abs(place - number), 0.0)


def _hats(place, depth: int):
    """The weight (depth, rows, w) of every pixel of some rows at every depth."""
    return materialize(_hat(place[None], np.arange(depth, dtype=place.dtype)[:, None, None]))


def _read(place, values):
    """The values at the depths, interpolated linearly at `place`, falling to 0 beyond the outermost."""
    return sum(_hat(place, number) * value for number, value in enumerate(values))


def _slope(place, values):
    """The slope of the interpolation of `_read`; at a depth the mean of both sides."""
    rises = [after - before for before, after in zip([0.0, *values], [*values, 0.0], strict=True)]
    # Half way between two depths, or at a depth, where the slopes of both sides count by one half.
    middle = materialize(0.5 * (jnp.floor(place) + jnp.ceil(place)))
    return sum(_hat(middle, number - 0.5) * rise for number, rise in enumerate(rises))


def _down(hats, plane, weights):
    """The sums (depth, w) of a plane's columns, weighted by row and by hat, as one expression of all rows."""
    return materialize(sum(hats[:, i] * (weights[i] * plane[i])[None] for i in range(len(plane))))


def _between(cell: int) -> np.ndarray:
    """The weights (3, cell) of the cell before, its own and the one after, for each pixel of a cell."""
    offset = (np.arange(cell) + 0.5) / cell - 0.5
    return np.stack([np.maximum(-offset, 0.0), 1.0 - abs(offset), np.maximum(offset, 0.0)])


def _rows(x, at, cell: int):
    return materialize(lax.dynamic_slice_in_dim(x, at, cell, axis=1))


def _write_rows(picture, rows, at):
    """The picture (c, h, w) with these rows at a place."""
    return lax.dynamic_update_slice_in_dim(picture, rows, at, axis=1)


def _in_cells(lines, cell: int):
    """Lines (..., w) as (..., columns, cell)."""
    return materialize(lines.reshape(*lines.shape[:-1], -1, cell))
