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
            sums = []
            for number in range(depth):
                share = _hat(where[0], number)
                sums += [_down(share)] + [_down(share * value) for value in values]
            return None, jnp.stack(sums).reshape(depth, -1, where.shape[2] // cell, cell).sum(-1)

        _, found = lax.scan(row, None, jnp.arange(0, place.shape[1], cell))
        return jnp.moveaxis(found, 0, 2)

    def adjoint(place, colours, cotangent):
        def row(made, inputs):
            at, bars = inputs
            where, values = (_split(_rows(x, at, cell), cell) for x in (place, colours))
            bars = bars[:, :, None, None]
            to_values = [sum(_hat(where[0], d) * bars[d, 1 + c] for d in range(depth)) for c in range(len(values))]
            along = [bars[d, 0] + sum(bars[d, 1 + c] * value for c, value in enumerate(values)) for d in range(depth)]
            to_place = sum(_slope(where[0], d) * along[d] for d in range(depth))
            return (_written(made[0], [to_place], at), _written(made[1], to_values, at)), None

        starts = jnp.arange(0, place.shape[1], cell)
        inputs = starts, jnp.moveaxis(held(cotangent), 2, 0)
        return lax.scan(row, (room(cotangent, place.shape), room(cotangent, colours.shape)), inputs)[0]

    return with_adjoint(cells, adjoint)


@cache
def reading(cell: int):
    """`read(grid, place)`: the values (c, h, w) of a grid (depth, c, rows + 2, columns + 2) at every pixel's place.

    Straight between the centres of the cells; the grid has one cell more on all sides.
    """
    weights = _between(cell)

    def fine(near):
        """The grid's values at the pixels of one row of cells, as `_split` has them, by depth and colour."""
        lines = held(jnp.einsum("dcaw,ai->dciw", near, weights.astype(near.dtype)))
        columns = lines.shape[-1] - 2
        across = weights.astype(near.dtype)[:, :, None, None]
        return lambda d, c: sum(lines[d, c, None, :, b : b + columns] * across[b] for b in range(3))

    def read(grid, place):
        def row(made, i):
            where = _split(_rows(place, i * cell, cell), cell)[0]
            at = fine(lax.dynamic_slice_in_dim(grid, i, 3, axis=2))
            found = [sum(_hat(where, d) * at(d, c) for d in range(grid.shape[0])) for c in range(grid.shape[1])]
            return _written(made, found, i * cell), None

        shape = (grid.shape[1], *place.shape[1:])
        return lax.scan(row, room(grid, shape), jnp.arange(place.shape[1] // cell))[0]

    def adjoint(grid, place, cotangent):
        depth, channels = grid.shape[:2]

        def row(made, i):
            total, to_places = made
            whole, bars = (_rows(x, i * cell, cell) for x in (place, cotangent))
            where, parts = _split(whole, cell)[0], _split(bars, cell)
            at = fine(lax.dynamic_slice_in_dim(grid, i, 3, axis=2))
            along = [sum(parts[c] * at(d, c) for c in range(channels)) for d in range(depth)]
            to_place = sum(_slope(where, d) * along[d] for d in range(depth))
            pulled = _to_near(whole[0], bars, depth, weights)
            before = held(lax.dynamic_slice_in_dim(total, i, 3, axis=2))
            total = lax.dynamic_update_slice_in_dim(total, before + pulled, i, axis=2)
            return (total, _written(to_places, [to_place], i * cell)), None

        start = jnp.zeros_like(grid), room(cotangent, place.shape)
        return lax.scan(row, start, jnp.arange(place.shape[1] // cell))[0]

    return with_adjoint(read, adjoint)


def _to_near(place, bars, depth: int, weights: np.ndarray):
    """What a row of cells pulls back to its own cells and those beside it: (depth, c, 3, columns + 2)."""
    sums = []
    for number in range(depth):
        share = _hat(place, number)
        for bar in bars:
            sums += [sum(float(weight[i]) * share[i] * bar[i] for i in np.flatnonzero(weight)) for weight in weights]
    cell = weights.shape[1]
    down = jnp.stack(sums).reshape(depth, len(bars), 3, -1, cell)
    across = jnp.einsum("dcawj,bj->bdcaw", down, weights.astype(down.dtype))
    edges = [(0, 0)] * 3
    return sum(jnp.pad(across[b], [*edges, (b, 2 - b)]) for b in range(3))


def _hat(place, number: int):
    return jnp.maximum(1.0 - jnp.abs(place - number), 0.0)


def _slope(place, number: int):
    """The derivative of a hat; at its top and its feet the mean of both sides'."""
    away = place - number
    inside = jnp.where(jnp.abs(away) < 1.0, 1.0, jnp.where(jnp.abs(away) == 1.0, 0.5, 0.0))
    return -jnp.sign(away) * inside


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


def _written(picture, planes, at):
    """The picture (c, h, w) with rows at a place from planes that are split."""
    rows = [held(plane).transpose(1, 2, 0).reshape(plane.shape[1], -1) for plane in planes]
    return lax.dynamic_update_slice_in_dim(picture, held(jnp.stack(rows)), at, axis=1)


def _down(plane):
    """The sums of a plane's columns, written out."""
    return sum(plane[i] for i in range(plane.shape[0]))
