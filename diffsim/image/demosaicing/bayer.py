"""The colour mosaic of a sensor: one colour per pixel, in quads of two by two.

Inside the library a mosaic is red-green / green-blue (RGGB); the others are the same, one row or column off. Its
quads are four small pictures, R, G, G, B, on which a stencil treats every pixel of a kind alike.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._errors import InputError

Pixels = Array | np.ndarray  # what every function here takes

PATTERNS = {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}
"""The place of red in the quad, (row, column), by the quad's four colours read like text."""

KNOWN = (0, 4, 7, 11)
"""Of the twelve values of a quad's picture (site, colour), those that the mosaic holds."""

MISSING = tuple(i for i in range(12) if i not in KNOWN)


def check_pattern(pattern: str) -> tuple[int, int]:
    """The place of red in the quad of a pattern; raises InputError for an unknown one."""
    if pattern.upper() not in PATTERNS:
        raise InputError(f"pattern={pattern!r}: give one of {', '.join(PATTERNS)}")
    return PATTERNS[pattern.upper()]


def mosaic(picture: Float[Pixels, "3 h w"], pattern: str = "RGGB") -> Float[Array, "h w"]:
    """The values that a sensor with this pattern keeps of a picture of even size."""
    check_even(picture.shape[1:])
    row, column = check_pattern(pattern)
    planes = [[1, 1], [1, 1]]
    planes[row][column], planes[1 - row][1 - column] = 0, 2
    sites = [picture[planes[i][j], i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return from_quads(jnp.stack(sites)[:, None])[0]


def quads(mosaic: Float[Pixels, "h w"]) -> Float[Array, "4 h/2 w/2"]:
    """A mosaic's four sites as pictures of half the size: R, G right of it, G below it, B."""
    check_even(mosaic.shape)
    return jnp.stack([mosaic[i::2, j::2] for i in (0, 1) for j in (0, 1)])


def picture_quads(picture: Float[Pixels, "3 h w"]) -> Float[Array, "12 h/2 w/2"]:
    """A picture's values by (site, colour) as pictures of half the size."""
    check_even(picture.shape[1:])
    return jnp.concatenate([picture[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def from_quads(sites: Float[Array, "4 c h w"]) -> Float[Array, "c 2h 2w"]:
    """The picture put together from its four sites."""
    _, channels, height, width = sites.shape
    return sites.reshape(2, 2, channels, height, width).transpose(2, 3, 0, 4, 1).reshape(channels, 2 * height, -1)


def to_rggb(mosaic: Float[Pixels, "h w"], pattern: str) -> Float[Array, "h2 w2"]:
    """The mosaic with red first and of even size, for which rows and columns are mirrored at its edges.

    `cut_back` takes the added ones off the picture again.
    """
    row, column = check_pattern(pattern)
    height, width = mosaic.shape
    return jnp.pad(mosaic, ((row, (height + row) % 2), (column, (width + column) % 2)), mode="reflect")


def cut_back(picture: Float[Pixels, "c h2 w2"], pattern: str, size: tuple[int, int]) -> Float[Array, "c h w"]:
    """The picture of a mosaic of this pattern and size, from that of its RGGB form."""
    row, column = check_pattern(pattern)
    return jnp.asarray(picture)[:, row : row + size[0], column : column + size[1]]


def check_even(size: tuple[int, ...]) -> None:
    """Raises InputError unless both numbers are even."""
    if size[0] % 2 or size[1] % 2:
        raise InputError(f"size {size[0]} x {size[1]}: a colour mosaic takes even numbers of rows and columns")
