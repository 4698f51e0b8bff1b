"""Demosaicking by a choice of direction (Menon, Andriani, Calvagno, 2007), the best classical method in common use.

Plain NumPy, for comparison: its decisions have no derivative. The values are those of colour-demosaicing, a package of
100 MB with its dependency.
"""

import numpy as np
from jaxtyping import Float

from ..values import check_floating

GREEN_AT_OTHERS = np.array([-0.25, 0.5, 0.5, 0.5, -0.25])
NEIGHBOURS = np.array([0.5, 0.0, 0.5])
MEAN = np.ones(3) / 3


def menon(mosaic: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "3 h w"]:
    """Returns the picture of an RGGB mosaic: green along the direction of smoother colour differences, then refined.

    Examples:
        >>> picture = np.broadcast_to(np.linspace(0.0, 1.0, 32), (3, 32, 32))
        >>> restored = ds.image.menon(np.asarray(ds.image.mosaic(picture)))
        >>> bool(np.allclose(restored[:, 4:-4, 4:-4], picture[:, 4:-4, 4:-4]))
        True
    """
    mosaic = np.asarray(mosaic)
    check_floating(mosaic)
    red, green, blue, horizontal = _first(mosaic)
    red, green, blue = _refine(red, green, blue, horizontal)
    return np.stack([red, green, blue])


def _sites(shape):
    """Where an RGGB mosaic is red, blue, green in a row with red and green in a row with blue."""
    row, column = np.indices(shape) % 2
    return (row + column == 0), (row * column == 1), (row == 0) & (column == 1), (row == 1) & (column == 0)


def _along(x, taps, axis: int):
    """`x` filtered along one axis, mirrored at its ends."""
    reach = len(taps) // 2
    padded = np.pad(x, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
    size = x.shape[axis]
    return sum(t * np.take(padded, range(i, i + size), axis) for i, t in enumerate(taps) if t)


def _first(mosaic):
    """Red, green and blue without refinement, and where the horizontal direction was chosen."""
    at_red, at_blue, green_by_red, green_by_blue = _sites(mosaic.shape)
    at_green = green_by_red | green_by_blue
    greens = [np.where(at_green, mosaic, _along(mosaic, GREEN_AT_OTHERS, axis)) for axis in (1, 0)]
    horizontal = _roughness(mosaic - greens[1], 0) >= _roughness(mosaic - greens[0], 1)
    green = np.where(horizontal, *greens)
    red = _at_green(mosaic, green, at_red, green_by_red, green_by_blue)
    blue = _at_green(mosaic, green, at_blue, green_by_blue, green_by_red)
    difference = _along_chosen(red - blue, NEIGHBOURS, horizontal)
    return np.where(at_blue, blue + difference, red), green, np.where(at_red, red - difference, blue), horizontal


def _at_green(mosaic, green, at, in_row, in_column):
    """Red or blue where it was measured and, by its difference from green, at the green pixels."""
    difference = np.where(at, mosaic - green, 0.0)
    x = np.where(at, mosaic, 0.0)
    x = np.where(in_row, green + _along(difference, NEIGHBOURS, 1), x)
    return np.where(in_column, green + _along(difference, NEIGHBOURS, 0), x)


def _roughness(difference, axis: int):
    """How much a colour difference changes along an axis, over a neighbourhood on the side of the change."""
    ends = [(0, 2) if a == axis else (0, 0) for a in (0, 1)]
    size = difference.shape[axis]
    change = abs(difference - np.take(np.pad(difference, ends, mode="reflect"), range(2, size + 2), axis))
    weights = np.array([[0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 3, 0, 3], [0, 0, 0, 1, 0], [0, 0, 1, 0, 1]])
    weights = weights[::-1, ::-1] if axis else weights.T[::-1, ::-1]
    padded = np.pad(change, 2)
    height, width = change.shape
    return sum(weights[i, j] * padded[i : i + height, j : j + width] for i, j in np.argwhere(weights))


def _along_chosen(x, taps, horizontal):
    return np.where(horizontal, _along(x, taps, 1), _along(x, taps, 0))


def _refine(red, green, blue, horizontal):
    """All three colours again from their differences, smoothed along the chosen direction."""
    at_red, at_blue, green_by_red, green_by_blue = _sites(green.shape)
    green = np.where(at_red, red - _along_chosen(red - green, MEAN, horizontal), green)
    green = np.where(at_blue, blue - _along_chosen(blue - green, MEAN, horizontal), green)
    difference = red - green
    red = np.where(green_by_blue, green + _along(difference, NEIGHBOURS, 0), red)
    red = np.where(green_by_red, green + _along(difference, NEIGHBOURS, 1), red)
    difference = blue - green
    blue = np.where(green_by_red, green + _along(difference, NEIGHBOURS, 0), blue)
    blue = np.where(green_by_blue, green + _along(difference, NEIGHBOURS, 1), blue)
    difference = _along_chosen(red - blue, MEAN, horizontal)
    return np.where(at_blue, blue + difference, red), green, np.where(at_red, red - difference, blue)
