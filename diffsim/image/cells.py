"""Sums of a picture into cells of place and depth, and reading such a grid, with their adjoints by hand.

A pixel's share in a depth is a hat around it, so that neither way looks anything up. Sums are written out over depths
and rows, cell row by cell row, which a processor does in wide registers.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import lax

from .adjoint import with_adjoint
from .box import held, room


@cache
def summing(cell: int, depth: int):
    """`cells(place, colours)`: the grid (depth, 1 + colours, rows, columns) of the sums of weight and colours.

    Of the depth (1, h, w) of every pixel and its colours (c, h, w); h and w are multiples of `cell`.
    """

    def cells(place, colours):
        def row(_, at):
            where, values = (_rows(x, at, cell) for x in (place, colours))
            hats = _hats(where[0], depth)
            sums = [_down(hats, value, np.ones(cell)) for value in (jnp.ones_like(where[0]), *values)]
            return None, jnp.stack(sums, axis=1).reshape(depth, -1, where.shape[2] // cell, cell).sum(-1)

        _, found = lax.scan(row, None, jnp.arange(0, place.shape[1], cell))
        return jnp.moveaxis(found, 0, 2)

    def adjoint(place, colours, cotangent):
        def row(made, inputs):
            at, bars = inputs
            where, values = (_split(_rows(x, at, cell), cell) for x in (place, colours))
            bars = bars[:, :, None, None]
            to_values = [sum(_hat(where[0], d) * bars[d, 1 + c] for d in range(depth)) for c in range(len(values))]
            along = [bars[d, 0] + sum(bars[d, 1 + c] * value for c, value in enumerate(values)) for d in range(depth)]
            to_place = _along(where[0], along)
            return (_written(made[0], [to_place], at), _written(made[1], to_values, at)), None

        starts = jnp.arange(0, place.shape[1], cell)
        inputs = starts, jnp.moveaxis(held(cotangent), 2, 0)
        return lax.scan(row, (room(cotangent, place.shape), room(cotangent, colours.shape)), inputs)[0]

    return with_adjoint(cells, adjoint)


@cache
def reading(cell: int):
    """`read(grid, place)`: the means (c, h, w) at every pixel's place, of a grid (depth, 1 + c, rows + 2, columns + 2).

    Sums of colours over that of the weights, both straight between the centres of the cells; the grid has one cell
    more on all sides. For the way back the sums are found again: a picture of them costs more to keep.
    """
    weights = _between(cell)

    def fine(near):
        """The grid's values at the pixels of one row of cells, as `_split` has them, by depth and colour."""
        lines = held(jnp.einsum("dcaw,ai->dciw", near, weights.astype(near.dtype)))
        columns = lines.shape[-1] - 2
        across = weights.astype(near.dtype)[:, :, None, None]
        return lambda d, c: sum(lines[d, c, None, :, b : b + columns] * across[b] for b in range(3))

    def means(where, at, depth, channels):
        """One over the weight and the mean colours."""
        hats = [_hat(where, d) for d in range(depth)]
        weight, *sums = (sum(hat * at(d, c) for d, hat in enumerate(hats)) for c in range(channels))
        # A pixel finds itself in the grid; the small number is for one that is alone at the far end of its cell.
        share = held(1.0 / (weight + 1e-6))
        return share, [held(share * total) for total in sums]

    def read(grid, place):
        depth, channels = grid.shape[:2]

        def row(made, i):
            where = _split(_rows(place, i * cell, cell), cell)[0]
            at = fine(lax.dynamic_slice_in_dim(grid, i, 3, axis=2))
            return _written(made, means(where, at, depth, channels)[1], i * cell), None

        shape = (channels - 1, *place.shape[1:])
        return lax.scan(row, room(grid, shape), jnp.arange(place.shape[1] // cell))[0]

    def adjoint(grid, place, cotangent):
        depth, channels = grid.shape[:2]

        def row(made, i):
            total, to_places = made
            whole, bars = (_rows(x, i * cell, cell) for x in (place, cotangent))
            where, parts = _split(whole, cell)[0], _split(bars, cell)
            at = fine(lax.dynamic_slice_in_dim(grid, i, 3, axis=2))
            share, found = means(where, at, depth, channels)
            to_sums = [held(share * part) for part in parts]
            to_sums = [held(-sum(bar * mean for bar, mean in zip(to_sums, found, strict=True))), *to_sums]
            along = [sum(bar * at(d, c) for c, bar in enumerate(to_sums)) for d in range(depth)]
            to_place = _along(where, along)
            pulled = _to_near(whole[0], _whole(to_sums), depth, weights)
            before = held(lax.dynamic_slice_in_dim(total, i, 3, axis=2))
            total = lax.dynamic_update_slice_in_dim(total, before + pulled, i, axis=2)
            return (total, _written(to_places, [to_place], i * cell)), None

        start = jnp.zeros_like(grid), room(cotangent, place.shape)
        return lax.scan(row, start, jnp.arange(place.shape[1] // cell))[0]

    return with_adjoint(read, adjoint)


def _to_near(place, bars, depth: int, weights: np.ndarray):
    """What a row of cells pulls back to its own cells and those beside it: (depth, c, 3, columns + 2)."""
    hats = _hats(place, depth)
    sums = [_down(hats, bar, weight) for bar in bars for weight in weights]
    cell = weights.shape[1]
    down = jnp.stack(sums, axis=1).reshape(depth, len(bars), 3, -1, cell)
    across = jnp.einsum("dcawj,jb->dcawb", down, weights.T.astype(down.dtype))
    edges = [(0, 0)] * 3
    return sum(jnp.pad(across[..., b], [*edges, (b, 2 - b)]) for b in range(3))


def _hat(place, number):
    return jnp.maximum(1.0 - jnp.abs(place - number), 0.0)


def _along(place, values):
    """The slope of what is straight between values at the depths and 0 beyond them; at a depth the mean of both."""
    rises = [after - before for before, after in zip([0.0, *values], [*values, 0.0], strict=True)]
    # Half way between two depths within, on a depth itself: there, the hats of both rises are at one half.
    middle = held(0.5 * (jnp.floor(place) + jnp.ceil(place)))
    return sum(_hat(middle, number - 0.5) * rise for number, rise in enumerate(rises))


def _between(cell: int) -> np.ndarray:
    """The weights (3, cell) of the cell before, its own and the one after, for each pixel of a cell."""
    offset = (np.arange(cell) + 0.5) / cell - 0.5
    return np.stack([np.maximum(-offset, 0.0), 1.0 - abs(offset), np.maximum(offset, 0.0)])


def _rows(x, at, cell: int):
    return held(lax.dynamic_slice_in_dim(x, at, cell, axis=1))


def _split(x, cell: int):
    """Rows (c, cell, w) by the column's place in its cell: (c, cell, cell, columns).

    The cells' columns come last, so that neighbours in memory meet neighbouring values of the grid.
    """
    return held(x.reshape(*x.shape[:2], -1, cell).transpose(0, 3, 1, 2))


def _whole(planes):
    """Rows (c, cell, w) of planes that are split."""
    return held(jnp.stack([held(plane).transpose(1, 2, 0).reshape(plane.shape[1], -1) for plane in planes]))


def _written(picture, planes, at):
    """The picture (c, h, w) with rows at a place from planes that are split."""
    return lax.dynamic_update_slice_in_dim(picture, _whole(planes), at, axis=1)


def _hats(place, depth: int):
    """The share (depth, cell, w) of every pixel of a row of cells in every depth."""
    return held(_hat(place[None], np.arange(depth, dtype=place.dtype)[:, None, None]))


def _down(hats, plane, weights: np.ndarray):
    """The sums (depth, w) of a plane's columns, weighted by row and by hat; written out over the rows."""
    return held(sum(hats[:, i] * (float(weights[i]) * plane[i])[None] for i in np.flatnonzero(weights)))
