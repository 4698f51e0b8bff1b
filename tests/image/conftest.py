"""Shared by the tests of pictures: digital negatives as files."""

import numpy as np
import pytest
import tifffile

from diffsim.image.io.raw import SRGB_TO_XYZ

SRGB_CAMERA = np.linalg.inv(SRGB_TO_XYZ)  # from XYZ to the colors of a camera that sees those of sRGB


def rational(values):
    return tuple(x for value in values for x in (round(value * 10000), 10000))


def write_dng(
    path, mosaic, pattern="RGGB", black=64, white=1023, gains=(2.0, 1.0, 1.5), to_camera=SRGB_CAMERA, more=()
):
    """Writes a digital negative with the required tags only; no matrix if `to_camera` is None.

    `more` are further tags (code, type, count, values), which take the place of those of the same code.
    """
    colors = ["RGB".index(c) for c in pattern]
    tags = [
        (50706, 1, 4, (1, 4, 0, 0)),  # version
        (33421, 3, 2, (2, 2)),  # size of the pattern
        (33422, 1, 4, tuple(colors)),
        (50708, 2, 0, "Test camera"),
        (50714, 3, 1, black),
        (50717, 3, 1, white),
        (50728, 5, 3, rational(1 / g for g in gains)),  # what the camera sees of grey
        (50778, 3, 1, 21),  # daylight
    ]
    if to_camera is not None:
        tags.append((50721, 10, 9, rational(to_camera.ravel())))
    tags = [tag for tag in tags if tag[0] not in {other[0] for other in more}] + list(more)
    tifffile.imwrite(path, mosaic.astype(np.uint16), photometric=32803, extratags=[(*t, True) for t in tags])
    return path


@pytest.fixture
def dng():
    """Writes a digital negative: `dng(path, mosaic, ...)`, with the arguments of `write_dng`."""
    return write_dng
