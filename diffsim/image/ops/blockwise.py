"""Stages that depend on a pixel's surroundings, computed block by block to stay within the cache."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_adjoint import Function, with_adjoint
from ..values import check_floating
from .tiling import not_repeated, tile_size, tile_starts

ROWS, COLUMNS = 96, 256  # of a block, at most; rows of all its planes together
LANES = 8  # numbers in a vector register


class Place(eqx.Module):
    """Where the pixels of a block with its halo lie in the picture of this size, beyond whose edge all is 0."""

    rows: Int[Array, " h"]
    columns: Int[Array, " w"]
    size: tuple[int, int] = eqx.field(static=True)


def by_blocks(
    stage: Callable[[Array, Array, Place], Array],
    adjoint: Callable[[Array, Array, Array, Place], tuple[Array, Array]],
    halo: int,
) -> Function:
    """Returns `function(parameter, picture)`, computed block by block, with the adjoint given.

    Args:
        stage: `stage(parameter, picture, place)`, the result for a block, given with `halo` more pixels on all sides.
        adjoint: `adjoint(parameter, picture, cotangent, place)` of such a block: the plane (h, w) whose sum is the
            cotangent of the parameter, a number, and the cotangent of the picture, both without the halo.
        halo: how far a pixel depends on others, in pixels.
    """

    def function(parameter, picture):
        size = _block(picture)

        def step(result, start):
            block = stage(parameter, _cut(picture, start, size, halo), _place(picture, start, size, halo))
            return lax.dynamic_update_slice(result, block, (0, *start)), None

        return lax.scan(step, output_buffer(picture), _tile_starts(picture)[1])[0]

    def back(parameter, picture, cotangent):
        size = _block(picture)

        def step(carry, places):
            (sums, to_picture), (unmoved, start) = carry, places
            block, cotangents = (_cut(x, start, size, halo) for x in (picture, cotangent))
            plane, to_block = adjoint(parameter, block, cotangents, _place(picture, start, size, halo))
            rows, columns = map(not_repeated, unmoved, start, size)
            sums = sums + (rows.astype(plane.dtype) @ materialize(plane)) * columns
            return (sums, lax.dynamic_update_slice(to_picture, to_block, (0, *start))), None

        first = (jnp.zeros(size[1], picture.dtype), output_buffer(cotangent))
        sums, to_picture = lax.scan(step, first, _tile_starts(picture))[0]
        return jnp.sum(sums), to_picture

    function.__name__ = stage.__name__
    return with_adjoint(function, back, check_floating)


def _block(picture) -> tuple[int, int]:
    """The rows and columns of a block: all blocks have one size, and a multiple of `LANES` columns."""
    planes, height, width = picture.shape
    return tile_size(height, max(1, ROWS // planes)), min(width, -(-tile_size(width, COLUMNS) // LANES) * LANES)


def _tile_starts(picture):
    """Starts of adjacent blocks, and starts moved inward such that no block reaches beyond the edge."""
    lines = [tile_starts(n, part) for n, part in zip(picture.shape[1:], _block(picture), strict=True)]
    return [[x.ravel() for x in np.meshgrid(*places, indexing="ij")] for places in zip(*lines, strict=True)]


def _cut(picture, start, size, halo: int):
    """The block of a picture with its halo, zero beyond the picture's edge."""
    most = [min(n + 2 * halo, full) for n, full in zip(size, picture.shape[1:], strict=True)]
    first = [jnp.clip(s - halo, 0, full - n) for s, n, full in zip(start, most, picture.shape[1:], strict=True)]
    part = lax.dynamic_slice(picture, (0, *first), (picture.shape[0], *most))
    zeros = materialize(jnp.zeros((picture.shape[0], *(n + 4 * halo for n in size)), picture.dtype))
    at = (f - s + 2 * halo for f, s in zip(first, start, strict=True))
    placed = materialize(lax.dynamic_update_slice(zeros, part, (0, *at)))
    return placed[:, halo : size[0] + 3 * halo, halo : size[1] + 3 * halo]


def _place(picture, start, size, halo: int) -> Place:
    rows, columns = (s - halo + np.arange(n + 2 * halo) for s, n in zip(start, size, strict=True))
    return Place(rows, columns, picture.shape[1:])
