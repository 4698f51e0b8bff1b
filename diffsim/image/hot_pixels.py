"""Hot pixels of a sensor: single sites that are far brighter than all around them."""

import functools

import numpy as np
from jaxtyping import Float

from .io.raw import Raw
from .sensor import Noise

SIGMAS = 8.0
"""How many standard deviations of the noise a hot pixel lies above its neighbours of the same color."""

CONTRAST = 2.0
"""How many times brighter it is than the brightest of these, above black."""

EXCESS = 0.05
"""How far it lies above the brightest of these at least, where white is 1."""

SAME = [(i, j) for i in (-2, 0, 2) for j in (-2, 0, 2) if i or j]
OTHERS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


def without_hot_pixels(raw: Raw, noise: Noise) -> Float[np.ndarray, "h w"]:
    """Returns the mosaic, in which hot pixels have the median of their eight neighbours of the same color.

    A hot pixel is brighter than these by `SIGMAS` standard deviations of the noise, by the factor `CONTRAST` and by
    `EXCESS`, and its neighbours of other colors do not show a light there: balanced, none is a third as bright.

    Examples:
        >>> mosaic = np.full((8, 8), 0.1)
        >>> mosaic[4, 4] = 0.9
        >>> float(ds.image.without_hot_pixels(ds.image.Raw(mosaic), ds.image.Noise(0.0, 0.001)).max())
        0.1
    """
    mosaic = np.asarray(raw.mosaic)
    height, width = mosaic.shape
    if min(height, width) < 4:
        return mosaic
    wide = np.pad(mosaic, 2, mode="reflect")
    shifted = lambda i, j: wide[2 + i : 2 + i + height, 2 + j : 2 + j + width]
    highest = functools.reduce(np.maximum, (shifted(i, j) for i, j in SAME))
    spread = np.sqrt(noise.shot * np.maximum(highest, 0.0) + noise.read**2)
    hot = (mosaic > highest + SIGMAS * spread) & (mosaic > CONTRAST * highest) & (mosaic > highest + EXCESS)
    if not hot.any():
        return mosaic
    rows, columns = np.nonzero(hot)
    balanced = wide * np.pad(_gains(raw), 2, mode="reflect")
    nearest = np.max([balanced[2 + rows + i, 2 + columns + j] for i, j in OTHERS], axis=0)
    alone = nearest < balanced[2 + rows, 2 + columns] / 3
    rows, columns = rows[alone], columns[alone]
    repaired = mosaic.copy()
    repaired[rows, columns] = np.median([wide[2 + rows + i, 2 + columns + j] for i, j in SAME], axis=0)
    return repaired


def _gains(raw: Raw) -> Float[np.ndarray, "h w"]:
    """The gain of white balance at every site."""
    row, column = (np.arange(n) % 2 for n in raw.mosaic.shape)
    colors = {"R": raw.gains[0], "G": raw.gains[1], "B": raw.gains[2]}
    quad = np.array([[colors[raw.pattern[2 * i + j]] for j in (0, 1)] for i in (0, 1)])
    return quad[np.ix_(row, column)]
