"""Pictures resampled at other places: shifts, rotations, perspectives, lenses, optical flow."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .values import check_floating

Method = Literal["linear", "cubic", "lanczos"]
Places = Float[Array, "2 h w"]


def warp(
    picture: Float[Array, "c h w"], places: Float[Array, "2 h2 w2"], method: Method = "linear"
) -> Float[Array, "c h2 w2"]:
    """Returns the picture whose pixels are those of another picture at other places.

    Beyond the edge, the outermost pixels are repeated. Differentiable in picture and places. "cubic" and "lanczos" are
    smooth in the places; with "linear" the slope jumps at whole numbers, where the derivative is that of one side.

    Args:
        picture: the values.
        places: row and column in the picture for each pixel of the result; the centre of the first pixel is (0, 0).
        method: "linear" between the four nearest pixels, "cubic" over sixteen (Keys, 1981, with a = -1/2), or "lanczos"
            over 36, which keeps most detail (Duchon, 1979, with three lobes).

    Raises:
        InputError: for another method, a picture of whole numbers, and places that are not two planes.

    Examples:
        >>> picture = jnp.arange(12.0).reshape(1, 3, 4)
        >>> rows, columns = ds.image.pixel_places(3, 4)
        >>> print(ds.image.warp(picture, jnp.stack([rows, columns + 0.5]))[0, 0])  # half a pixel to the left
        [0.5 1.5 2.5 3. ]
    """
    check_floating(picture)
    if method not in TAPS:
        raise InputError(f"method={method!r}: give one of {', '.join(TAPS)}")
    if places.ndim != 3 or places.shape[0] != 2:
        raise InputError(f"places of shape {places.shape}: give rows and columns, (2, h, w)")
    return _resampled(picture, places.astype(picture.dtype), method)


def pixel_places(height: int, width: int) -> Places:
    """Returns row and column of every pixel of a picture.

    Examples:
        >>> ds.image.pixel_places(2, 3).tolist()
        [[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]]
    """
    dtype = jnp.result_type(float)
    return jnp.stack(jnp.meshgrid(jnp.arange(height, dtype=dtype), jnp.arange(width, dtype=dtype), indexing="ij"))


def from_centre(height: int, width: int) -> tuple[Places, Float[Array, "2 1 1"]]:
    """Returns row and column of every pixel from the centre of a picture, and those of the centre."""
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    return pixel_places(height, width) - centre, centre


def affine_places(matrix: Float[Array, "2 2"], shift: Float[Array, " 2"], height: int, width: int) -> Places:
    """Returns the places of an affine map about the centre of a picture: matrix (place - centre) + centre + shift.

    Args:
        matrix: of row and column.
        shift: rows and columns.
        height, width: those of the result.

    Examples:
        >>> turn = lambda a: jnp.array([[jnp.cos(a), -jnp.sin(a)], [jnp.sin(a), jnp.cos(a)]])
        >>> rows, columns = ds.image.affine_places(turn(jnp.pi / 2), jnp.zeros(2), 3, 3)
        >>> print(jnp.abs(rows.round(6)))
        [[2. 1. 0.]
         [2. 1. 0.]
         [2. 1. 0.]]
    """
    away, centre = from_centre(height, width)
    return jnp.einsum("ij,jhw->ihw", matrix, away) + centre + shift[:, None, None]


def homography_places(matrix: Float[Array, "3 3"], height: int, width: int) -> Places:
    """Returns the places of a perspective map: the product of the matrix with (row, column, 1), over its last entry.

    Where that entry is zero or negative, which is behind the camera, places are not finite.

    Args:
        matrix: of homogeneous coordinates, up to a factor.
        height, width: those of the result.

    Examples:
        >>> shift = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> ds.image.homography_places(shift, 1, 2).tolist()
        [[[2.0, 2.0]], [[0.0, 1.0]]]
    """
    rows, columns = pixel_places(height, width)
    row, column, scale = (m[0] * rows + m[1] * columns + m[2] for m in matrix)
    in_front = scale > 0
    scale = jnp.where(in_front, scale, 1.0)
    return jnp.where(in_front[None], jnp.stack([row, column]) / scale[None], jnp.nan)


def _linear(share):
    return [1.0 - share, share]


def _cubic(share):
    """The weights of the pixels before, at and behind a place that lies by `share` behind the second of them."""
    s, r = share, 1.0 - share
    return [-0.5 * s * r * r, 1.0 - s * s * (2.5 - 1.5 * s), 1.0 - r * r * (2.5 - 1.5 * r), -0.5 * r * s * s]


def _lanczos(share):
    """The weights of the three pixels on each side of a place: a sinc windowed by a wider one, scaled to sum to 1."""
    values = [jnp.sinc(share - k) * jnp.sinc((share - k) / 3.0) for k in range(-2, 4)]
    total = sum(values)
    return [value / total for value in values]


TAPS: dict[str, tuple[int, Callable]] = {"linear": (0, _linear), "cubic": (-1, _cubic), "lanczos": (-2, _lanczos)}
"""For each method the first pixel that it reads, from that before the place, and its weights."""


def _resampled(picture, places, method: str):
    """The values at the places; reverse mode stores picture and places alone."""
    first, weights = TAPS[method]
    channels, height, width = picture.shape
    flat = picture.reshape(channels, -1)

    @jax.checkpoint
    def at(flat, places):
        # Places beyond the edge do not move their pixel.
        sizes = height, width
        inside = [jnp.clip(x, 0.0, n - 1.0) for x, n in zip(places, sizes, strict=True)]
        cells = (jnp.floor(lax.stop_gradient(x)) for x in inside)
        low = [jnp.clip(x, 0, max(n - 2, 0)) for x, n in zip(cells, sizes, strict=True)]
        rows, columns = (weights(x - i) for x, i in zip(inside, low, strict=True))
        base = [i.astype(jnp.int32) + first for i in low]
        total = jnp.zeros((channels, *places.shape[1:]), flat.dtype)
        for i, row_weight in enumerate(rows):
            row = jnp.clip(base[0] + i, 0, height - 1) * width
            along = jnp.zeros_like(total)
            for j, weight in enumerate(columns):
                along = along + weight[None] * flat[:, row + jnp.clip(base[1] + j, 0, width - 1)]
            total = total + row_weight[None] * along
        return jnp.where(jnp.all(jnp.isfinite(places), axis=0)[None], total, jnp.nan)

    return at(flat, places)
