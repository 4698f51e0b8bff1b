"""Sums of a picture into cells of place and depth, and reading such a grid, with their adjoints by hand.

A pixel's share in a depth is a hat around it, so that neither way looks anything up. The grid's cells are widened to
lines of pixels first: then all there is to do is sums of products of lines, in the picture's own order, cell row by
cell row, which a processor does in wide registers.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_transpose import with_adjoint
from ..values import check_floating


@cache
def splatting(cell: int, depth: int):
    """`cells(place, colours)`: the grid (depth, 1 + colours, rows, columns) of the sums of weight and colours.

    Of the depth (1, h, w) of every pixel and its colours (c, h, w); h and w are multiples of `cell`.
    """

    def down(place, colors):
        hats, ones = _hats(place, depth), np.ones(cell, place.dtype)
        return jnp.stack([_down(hats, value, ones) for value in (jnp.ones_like(place), *colors)], axis=1)

    def cells(place, colors):
        def row(_, at):
            where, values = (_rows(x, at, cell) for x in (place, colors))
            return None, _in_cells(down(where[0], values), cell) @ np.ones(cell, place.dtype)

        _, found = lax.scan(row, None, jnp.arange(0, place.shape[1], cell))
        return jnp.moveaxis(found, 0, 2)

    def back(place, colors, bars):
        bars = bars[:, :, None]
        to_colors = [materialize(_read(place, bars[:, 1 + c])) for c in range(len(colors))]
        along = [bar[0] + sum(b * value for b, value in zip(bar[1:], colors, strict=True)) for bar in bars]
        return materialize(_slope(place, along))[None], jnp.stack(to_colors)

    def adjoint(place, colors, cotangent):
        lines = materialize(jnp.repeat(jnp.moveaxis(cotangent, 2, 0), cell, axis=-1))

        def row(made, i):
            where, values = (_rows(x, i * cell, cell) for x in (place, colors))
            found = back(where[0], values, materialize(lax.dynamic_index_in_dim(lines, i, keepdims=False)))
            return (_written(made[0], found[0], i * cell), _written(made[1], found[1], i * cell)), None

        start = output_buffer(cotangent, place.shape), output_buffer(cotangent, colors.shape)
        return lax.scan(row, start, jnp.arange(len(lines)))[0]

    return with_adjoint(cells, adjoint, check_floating)


@cache
def slicing(cell: int):
    """`read(grid, place)`: the means (c, h, w) at every pixel's place, of a grid (depth, 1 + c, rows + 2, columns + 2).

    Sums of colours over that of the weights, both straight between the centres of the cells; the grid has one cell
    more on all sides. For the way back the sums are found again: a picture of them costs more to keep.
    """
    half = -(-cell // 2)

    def forward(near, shares, place):
        return jnp.stack(_means(place, _at_rows(near, shares))[1])

    def read(grid, place):
        lines = _widened(grid, cell)

        def part(made, half_row):
            line, at, shares, _ = half_row
            near = lax.dynamic_slice_in_dim(lines, line, 2)
            return _written(made, forward(near, shares, _rows(place, at, half)[0]), at), None

        shape = (grid.shape[1] - 1, *place.shape[1:])
        return lax.scan(part, output_buffer(grid, shape), _halves(place, cell))[0]

    def back(near, shares, once, place, bars):
        at = _at_rows(near, shares)
        share, found = _means(place, at)
        to_sums = [materialize(share * bar) for bar in bars]
        to_sums = [materialize(-sum(bar * mean for bar, mean in zip(to_sums, found, strict=True))), *to_sums]
        along = [sum(bar * x for bar, x in zip(to_sums, values, strict=True)) for values in zip(*at, strict=True)]
        hats = _hats(place, near.shape[1])
        to_near = [jnp.stack([_down(hats, bar, once * rows) for bar in to_sums], axis=1) for rows in shares]
        return jnp.stack(to_near), materialize(_slope(place, along))[None]

    def adjoint(grid, place, cotangent):
        lines = _widened(grid, cell)

        def part(made, half_row):
            line, at, shares, once = half_row
            near = lax.dynamic_slice_in_dim(lines, line, 2)
            where, bars = (_rows(x, at, half) for x in (place, cotangent))
            to_near, to_place = back(near, shares, once, where[0], bars)
            before = materialize(lax.dynamic_slice_in_dim(made[0], line, 2))
            total = lax.dynamic_update_slice_in_dim(made[0], before + _narrowed(to_near, cell), line, axis=0)
            return (total, _written(made[1], to_place, at)), None

        start = jnp.zeros_like(jnp.moveaxis(grid, 2, 0)), output_buffer(cotangent, place.shape)
        to_grid, to_places = lax.scan(part, start, _halves(place, cell))[0]
        return jnp.moveaxis(to_grid, 0, 2), to_places

    return with_adjoint(read, adjoint, check_floating)


def _halves(place, cell: int):
    """The halves of all rows of cells, each between two lines of the grid: the first of these and the first row.

    And for each row of a half the shares (2, half) of both lines and the weight: the halves of an odd cell share its
    middle row.
    """
    half = -(-cell // 2)
    number = np.arange(2 * (place.shape[1] // cell))
    second = number % 2
    first = second * (cell - half)
    later = (first[:, None] + np.arange(half) + 0.5) / cell + 0.5 - second[:, None]
    shares = np.stack([1.0 - later, later], axis=1).astype(place.dtype)
    shared = cell % 2 * (first[:, None] + np.arange(half) == cell // 2)
    return (number + 1) // 2, number // 2 * cell + first, shares, (1.0 - 0.5 * shared).astype(place.dtype)


def _widened(grid, cell: int):
    """The grid by its rows, straight between the cells of a row: (rows + 2, depth, 1 + c, w)."""
    columns = grid.shape[3] - 2
    across = _between(cell).astype(grid.dtype).reshape(3, 1, 1, 1, 1, cell)
    parts = [grid[..., b : b + columns, None] * across[b] for b in range(3)]
    return materialize(jnp.moveaxis(sum(parts), 2, 0).reshape(grid.shape[2], *grid.shape[:2], -1))


def _narrowed(lines, cell: int):
    """The adjoint of widening lines (..., w): (..., columns + 2)."""
    parts, across = _in_cells(lines, cell), _between(cell).astype(lines.dtype)
    edges = [(0, 0)] * (lines.ndim - 1)
    return sum(jnp.pad(parts @ across[b], [*edges, (b, 2 - b)]) for b in range(3))


def _at_rows(near, shares):
    """What two lines of the grid are at the rows between them, by colour and depth."""
    near, shares = near[:, :, :, None], shares[:, :, None]
    at = lambda d, c: shares[0] * near[0, d, c] + shares[1] * near[1, d, c]
    return [[at(d, c) for d in range(near.shape[1])] for c in range(near.shape[2])]


def _means(place, at):
    """One over the weight and the mean colours."""
    weight, *sums = (_read(place, values) for values in at)
    # A pixel finds itself in the grid; the small number is for one that is alone at the far end of its cell.
    share = materialize(1.0 / (weight + 1e-6))
    return share, [materialize(share * total) for total in sums]


def _hat(place, number):
    return jnp.maximum(1.0 - jnp.abs(place - number), 0.0)


def _hats(place, depth: int):
    """The share (depth, rows, w) of every pixel of some rows in every depth."""
    return materialize(_hat(place[None], np.arange(depth, dtype=place.dtype)[:, None, None]))


def _read(place, values):
    """What is straight between values at the depths, and falls to 0 beyond them."""
    return sum(_hat(place, number) * value for number, value in enumerate(values))


def _slope(place, values):
    """The slope of what `_read` reads; at a depth the mean of both."""
    rises = [after - before for before, after in zip([0.0, *values], [*values, 0.0], strict=True)]
    # Half way between two depths within, on a depth itself: there, the hats of both rises are at one half.
    middle = materialize(0.5 * (jnp.floor(place) + jnp.ceil(place)))
    return sum(_hat(middle, number - 0.5) * rise for number, rise in enumerate(rises))


def _down(hats, plane, weights):
    """The sums (depth, w) of a plane's columns, weighted by row and by hat; written out over the rows."""
    return materialize(sum(hats[:, i] * (weights[i] * plane[i])[None] for i in range(len(plane))))


def _between(cell: int) -> np.ndarray:
    """The weights (3, cell) of the cell before, its own and the one after, for each pixel of a cell."""
    offset = (np.arange(cell) + 0.5) / cell - 0.5
    return np.stack([np.maximum(-offset, 0.0), 1.0 - abs(offset), np.maximum(offset, 0.0)])


def _rows(x, at, cell: int):
    return materialize(lax.dynamic_slice_in_dim(x, at, cell, axis=1))


def _written(picture, rows, at):
    """The picture (c, h, w) with rows at a place."""
    return lax.dynamic_update_slice_in_dim(picture, rows, at, axis=1)


def _in_cells(lines, cell: int):
    """Lines (..., w) by cell: (..., columns, cell)."""
    return materialize(lines.reshape(*lines.shape[:-1], -1, cell))
