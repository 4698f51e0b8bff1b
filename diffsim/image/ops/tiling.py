"""Cutting the lines of a picture into parts of one size."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int


def tile_size(size: int, most: int) -> int:
    """The size of as few parts as there can be of at most `most` lines each, made as alike as can be."""
    return -(-size // -(-size // most))


def tile_starts(size: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Where parts of so many lines would begin one after the other, and where they do: the last is moved inward."""
    wanted = np.arange(0, size, part)
    return wanted, np.minimum(wanted, size - part)


def for_each_tile(size: int, part: int, step: Callable, carry):
    """What `step(carry, wanted, start)` makes of `carry` over all parts, at the places that `starts` gives.

    The places are computed from the number of the part: a table of them would be one more program for every loop.
    """
    body = lambda i, carry: step(carry, i * part, jnp.minimum(i * part, size - part))
    return lax.fori_loop(0, -(-size // part), body, carry)


def not_repeated(wanted: Int[Array, ""], start: Int[Array, ""], part: int) -> Bool[Array, " part"]:
    """Which lines of a part are its own: one moved inward begins with lines of the part before, summed already."""
    return start + np.arange(part) >= wanted
