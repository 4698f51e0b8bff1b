"""Demosaicking by fixed linear filters: bilinear, and gradient-corrected (Malvar, He, Cutler, 2004)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..ops.correlate import correlate
from ..ops.pad import pad
from ..values import Pixels, check_floating
from .bayer import from_quads, quads

CENTER = np.pad([[1.0]], 2)
CROSS = np.pad([[0, 1, 0], [1, 0, 1], [0, 1, 0]], 1) / 4
CORNERS = np.pad([[1, 0, 1], [0, 0, 0], [1, 0, 1]], 1) / 4
ROW = np.pad([[0, 0, 0], [1, 0, 1], [0, 0, 0]], 1) / 2
BILINEAR = {"green": CROSS, "row": ROW, "column": ROW.T, "opposite": CORNERS}

_FAR_ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]])
MALVAR = {
    "green": np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8,
    "row": _FAR_ROW / 8,
    "column": _FAR_ROW.T / 8,
    "opposite": np.array(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    )
    / 8,
}


def quad_weights(filters: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the 5 x 5 filters of a mosaic as one 3 x 3 stencil on its quads, of shape (12, 4, 3, 3).

    Args:
        filters: by name: `green` gives green at red and blue; `row` and `column` give, at green, the colour of the
            neighbours in its row or column; `opposite` gives red at blue and blue at red.
    """
    row, column, green, far = (filters[name] for name in ("row", "column", "green", "opposite"))
    sites = [[CENTER, green, far], [row, CENTER, column], [column, CENTER, row], [far, green, CENTER]]
    weights = np.zeros((12, 4, 3, 3))
    for out, taps in enumerate(taps for site in sites for taps in site):
        i, j = divmod(out // 3, 2)
        for a, b in np.argwhere(taps):
            y, x = i + a - 2, j + b - 2
            weights[out, y % 2 * 2 + x % 2, 1 + y // 2, 1 + x // 2] = taps[a, b]
    return weights


def demosaic_linear(mosaic: Float[Pixels, "h w"], filters: dict[str, np.ndarray]) -> Float[Array, "3 h w"]:
    """Returns the picture of an RGGB mosaic by one set of filters."""
    check_floating(mosaic)
    weights = quad_weights(filters).astype(mosaic.dtype)
    values = correlate(quads(pad(jnp.asarray(mosaic)[None], 2, 2)[0]), jnp.asarray(weights))
    return from_quads(values.reshape(4, 3, *values.shape[1:]))


def bilinear(mosaic: Float[Pixels, "h w"]) -> Float[Array, "3 h w"]:
    """Returns the picture of an RGGB mosaic whose missing values are means of the nearest pixels of that colour.

    Examples:
        >>> picture = ds.image.bilinear(jnp.tile(jnp.array([[0.1, 0.2], [0.2, 0.3]]), (4, 4)))
        >>> print(picture.shape, picture[:, 3, 3].round(6))
        (3, 8, 8) [0.1 0.2 0.3]
    """
    return demosaic_linear(mosaic, BILINEAR)


def malvar(mosaic: Float[Pixels, "h w"]) -> Float[Array, "3 h w"]:
    """Returns the picture by bilinear interpolation, corrected by second differences of the other colours.

    Examples:
        >>> ramp = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 32), (3, 32, 32))
        >>> picture = ds.image.malvar(ds.image.mosaic(ramp))
        >>> bool(jnp.allclose(picture[:, 2:-2, 2:-2], ramp[:, 2:-2, 2:-2]))
        True
    """
    return demosaic_linear(mosaic, MALVAR)
