"""Flat parts of a raw and of a picture of the same frame, where the way of demosaicking does not matter."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._errors import InputError
from ..demosaicing.bayer import cut_back, to_rggb
from ..demosaicing.linear import bilinear
from ..io.raw import Raw
from ..sensor import to_linear, to_srgb

SIDE, REGION = 8, 4  # pixels of a raw, of a block; blocks, of a region whose residuals may depend on one another
LEAST, MOST = 200, 2000  # blocks
FLAT, NOISY = 0.02, 0.33  # greatest variation of light between the quarters of a block, and between its means
DARK = 1e-3  # least light of a block: what is darker may be clipped at black
WHITE = 0.98  # of a raw and of its picture: what is brighter may be clipped


class Means(NamedTuple):
    """Light of a raw before white balance and of its picture, as if that were sRGB, in means of `side` pixels square.

    `clipped` says where the raw or the picture may be.
    """

    light: Float[np.ndarray, "3 h w"]
    picture: Float[np.ndarray, "3 h w"]
    clipped: Bool[np.ndarray, "h w"]
    side: int


class Blocks(NamedTuple):
    """Light of blocks of a raw before white balance, their colours in its picture, and the region of each."""

    light: Float[Array, "3 n"]
    target: Float[Array, "3 n"]
    region: Int[np.ndarray, " n"]


def light_of(raw: Raw) -> Float[np.ndarray, "3 h w"]:
    """Returns the colours of a raw before white balance, interpolated linearly, cropped and upright."""
    light = bilinear(to_rggb(np.asarray(raw.mosaic, np.float32), raw.pattern))
    light = raw.cropped(np.asarray(cut_back(light, raw.pattern, raw.mosaic.shape)))
    return np.rot90(light, raw.quarter_turns, axes=(1, 2))


def small_means(
    light: Float[np.ndarray, "3 h w"], picture: Float[np.ndarray, "3 h2 w2"], name: str = "picture"
) -> Means:
    """Returns the means of light and picture over squares of at least 2 x 2 pixels of the raw.

    Both are taken in linear light, so that a mean does not depend on the curve of the picture.

    Args:
        light: as `light_of` returns it.
        picture: of the same size, or a half, a third ... of it, in [0, 1].
        name: of the picture in messages.

    Raises:
        InputError: for a picture of another size.
    """
    seen, given = light.shape[1:], picture.shape[1:]
    times = max(1, round(seen[0] / given[0]))
    if not all(0 <= n - times * own < times for n, own in zip(seen, given, strict=True)):
        sizes = f"{given[1]} x {given[0]} pixels, but the raw's picture has {seen[1]} x {seen[0]}"
        raise InputError(f"{name}: has {sizes}; give one of that size or a half, a third ... of it, upright")
    side = times * max(1, 2 // times)
    rows, columns = (n // (side // times) for n in given)
    light = light[:, : rows * side, : columns * side]
    linear = np.asarray(to_linear(jnp.asarray(picture, jnp.float32)))
    is_clipped = lambda x, n: np.any(_squares(x, n) > WHITE, axis=(0, 2, 4))
    mean = lambda x, n: _squares(x, n).mean((2, 4), dtype=np.float64)
    clipped = is_clipped(light, side) | is_clipped(picture, side // times)
    return Means(mean(light, side), mean(linear, side // times), clipped, side)


def flat_blocks(means: Means, name: str = "picture") -> Blocks:
    """Returns blocks of means that are flat and not clipped, spread over the picture without its edges.

    Args:
        means: as `small_means` returns them.
        name: of the picture in messages.

    Raises:
        InputError: if there are too few.
    """
    fine = 2 * max(1, SIDE // (2 * means.side))  # means on a side of a block
    both = [_squares(x, fine) for x in (means.light, means.picture)]
    quarters = [_squares(_squares(x, fine // 2).mean((2, 4)), 2) for x in (means.light, means.picture)]
    usable = np.logical_not(np.any(_squares(means.clipped[None], fine), axis=(0, 2, 4)))
    for each, coarse in zip(both, quarters, strict=True):
        usable &= (_variation(each) < NOISY) & (_variation(coarse) < FLAT) & (each.mean((2, 4)) > DARK).all(0)
    usable[[0, -1]] = usable[:, [0, -1]] = False
    rows, columns = np.nonzero(usable)
    if len(rows) < LEAST:
        raise InputError(f"{name}: {len(rows)} blocks are flat and not clipped; give one with at least {LEAST}")
    chosen = np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int)
    rows, columns = rows[chosen], columns[chosen]
    _, region = np.unique(rows // REGION * 10**6 + columns // REGION, return_inverse=True)
    light, picture = (jnp.asarray(each.mean((2, 4))[:, rows, columns]) for each in both)
    return Blocks(light, to_srgb(picture), region)


def _squares(picture, side: int):
    """The picture in squares: (colours, rows, side, columns, side)."""
    rows, columns = (n // side for n in picture.shape[1:])
    return picture[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)


def _variation(squares):
    """The standard deviation of each square over its mean, the greatest of the colours."""
    return (squares.std((2, 4)) / np.maximum(squares.mean((2, 4)), 1e-9)).max(0)
