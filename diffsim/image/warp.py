"""Pictures resampled at other places: shifts, rotations, perspectives, lenses, optical flow."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import InputError
from .ops.resample import TAPS, resampling
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
    return resampling(method)(places.astype(picture.dtype), picture)


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
