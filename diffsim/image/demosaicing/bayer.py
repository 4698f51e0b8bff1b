"""The colour mosaic of a sensor: one colour per pixel, in quads of two by two.

Inside the library a mosaic is red-green / green-blue (RGGB); the others are the same, shifted by a row or a column. Its
quads are four pictures of half the size, R, G, G, B, to which one stencil applies at every pixel.
"""

import jax.numpy as jnp
from jaxtyping import Array, Real

from ..._errors import InputError
from ..values import Pixels

PATTERNS = {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}
"""The place of red in the quad, (row, column), by the quad's four colours read like text."""

KNOWN = (0, 4, 7, 11)
"""Of the twelve values (site, colour) of the picture of a quad, those that the mosaic measures."""

MISSING = tuple(i for i in range(12) if i not in KNOWN)


def check_pattern(pattern: str) -> tuple[int, int]:
    """Returns the row and column of red in the quad of a pattern.

    Raises:
        InputError: for an unknown pattern.
    """
    if pattern.upper() not in PATTERNS:
        raise InputError(f"pattern={pattern!r}: give one of {', '.join(PATTERNS)}")
    return PATTERNS[pattern.upper()]


def mosaic(picture: Real[Pixels, "3 h w"], pattern: str = "RGGB") -> Real[Array, "h w"]:
    """Returns the mosaic of a picture: of every pixel the one colour that a sensor with this pattern measures.

    Raises:
        InputError: for an unknown pattern, and for an odd number of rows or columns.

    Examples:
        >>> picture = jnp.broadcast_to(jnp.array([1.0, 2.0, 3.0])[:, None, None], (3, 2, 4))  # red 1, green 2, blue 3
        >>> ds.image.mosaic(picture).tolist()
        [[1.0, 2.0, 1.0, 2.0], [2.0, 3.0, 2.0, 3.0]]
    """
    check_even(picture.shape[1:])
    row, column = check_pattern(pattern)
    planes = [[1, 1], [1, 1]]
    planes[row][column], planes[1 - row][1 - column] = 0, 2
    sites = [picture[planes[i][j], i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return from_quads(jnp.stack(sites)[:, None])[0]


def quads(mosaic: Real[Pixels, "h w"]) -> Real[Array, "4 h//2 w//2"]:
    """Returns the four sites of a mosaic as pictures of half the size: R, G to the right of it, G below it, B."""
    check_even(mosaic.shape)
    return jnp.stack([mosaic[i::2, j::2] for i in (0, 1) for j in (0, 1)])


def picture_quads(picture: Real[Pixels, "3 h w"]) -> Real[Array, "12 h//2 w//2"]:
    """Returns the values of a picture by (site, colour), as pictures of half the size."""
    check_even(picture.shape[1:])
    return jnp.concatenate([picture[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def from_quads(sites: Real[Array, "4 c h w"]) -> Real[Array, "c 2*h 2*w"]:
    """Returns the picture of these four sites, the inverse of `quads`."""
    _, channels, height, width = sites.shape
    return sites.reshape(2, 2, channels, height, width).transpose(2, 3, 0, 4, 1).reshape(channels, 2 * height, -1)


def to_rggb(mosaic: Real[Pixels, "h w"], pattern: str) -> Real[Array, "h2 w2"]:
    """Returns the mosaic with red first and of even size, to which mirrored rows and columns are added at its edges.

    `cut_back` removes them from the picture.

    Examples:
        >>> ds.image.to_rggb(jnp.array([[2, 1, 2, 1], [3, 2, 3, 2]]), "GRBG").tolist()  # red 1, green 2, blue 3
        [[1, 2, 1, 2, 1, 2], [2, 3, 2, 3, 2, 3]]
    """
    row, column = check_pattern(pattern)
    height, width = mosaic.shape
    return jnp.pad(mosaic, ((row, (height + row) % 2), (column, (width + column) % 2)), mode="reflect")


def cut_back(picture: Real[Pixels, "c h2 w2"], pattern: str, size: tuple[int, int]) -> Real[Array, "c h w"]:
    """Returns the picture of a mosaic of this pattern and size, cut out of that of its RGGB form.

    Examples:
        >>> raw = jnp.arange(30.0).reshape(5, 6)
        >>> rggb = ds.image.to_rggb(raw, "GRBG")
        >>> picture = ds.image.bilinear(rggb)
        >>> picture.shape, ds.image.cut_back(picture, "GRBG", raw.shape).shape
        ((3, 6, 8), (3, 5, 6))
    """
    row, column = check_pattern(pattern)
    return jnp.asarray(picture)[:, row : row + size[0], column : column + size[1]]


def check_even(size: tuple[int, ...]) -> None:
    """Checks that a mosaic of this size consists of complete quads.

    Raises:
        InputError: unless both numbers are even.
    """
    if size[0] % 2 or size[1] % 2:
        raise InputError(f"size {size[0]} x {size[1]}: a colour mosaic takes even numbers of rows and columns")
