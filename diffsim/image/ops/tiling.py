"""Dividing the rows of a picture into tiles of one size."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int


def tile_size(size: int, most: int) -> int:
    """Returns the rows of a tile: as few tiles as `most` rows each allow, of nearly equal size."""
    return -(-size // -(-size // most))


def tile_starts(size: int, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the starts of adjacent tiles, and the starts used: the last tile is moved inward."""
    unmoved = np.arange(0, size, tile)
    return unmoved, np.minimum(unmoved, size - tile)


def for_each_tile(size: int, tile: int, step: Callable, carry):
    """Returns the last carry of `carry = step(carry, unmoved, start)` over all tiles, placed as by `tile_starts`.

    The places are computed from the number of the tile: a table of them would be one more program for every loop.
    """
    body = lambda i, carry: step(carry, i * tile, jnp.minimum(i * tile, size - tile))
    return lax.fori_loop(0, -(-size // tile), body, carry)


def not_repeated(unmoved: Int[Array, ""], start: Int[Array, ""], tile: int) -> Bool[Array, " tile"]:
    """Returns which rows of a tile are in no earlier one: a tile moved inward begins with rows already summed."""
    return start + np.arange(tile) >= unmoved
