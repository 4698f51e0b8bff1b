"""Digital negatives (DNG) of mosaics, with the constants of their camera.

Source: Adobe, Digital Negative Specification 1.7.
"""

import io
from pathlib import Path

import numpy as np

from ..._errors import InputError
from ..._extras import extra
from ...io.files import write_whole
from ..demosaicing.bayer import check_pattern
from ..sensor import SRGB_TO_XYZ
from .raw import QUARTER_TURNS, Raw

BLACK, WHITE = 4096, 61440  # stored values, with room below and above
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 10, 12
DAYLIGHT = 21
ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}  # of TIFF, by how LibRaw names them


def write_raw(path: Path | str, raw: Raw) -> Path:
    """Writes a raw as a digital negative of 16 bits, completely or not at all, and returns the path.

    `read_raw` returns it, with the mosaic to 2e-5 and gains and matrix to 1e-5. Values below -0.07 and above 1.07
    are cut off. Needs tifffile.

    Raises:
        InputError: for another extension than .dng, gains that are not positive, a matrix without an inverse or whose
            rows do not sum to 1, and values that are not finite.

    Examples:
        >>> mosaic = np.random.default_rng(0).uniform(size=(32, 48)).astype(np.float32)
        >>> path = ds.image.write_raw("written.dng", ds.image.Raw(mosaic, "GRBG", gains=(2.0, 1.0, 1.5)))
        >>> raw = ds.image.read_raw(path)
        >>> raw.pattern, np.round(raw.gains, 4).tolist(), bool(abs(raw.mosaic - mosaic).max() < 2e-5)
        ('GRBG', [2.0, 1.0, 1.5], True)
    """
    path = Path(path)
    if path.suffix.lower() != ".dng":
        raise InputError(f"{path}: unknown extension {path.suffix!r}; a raw is written as .dng")
    check_pattern(raw.pattern)
    matrix = np.asarray(raw.matrix, float)
    if not min(raw.gains) > 0:
        raise InputError(f"gains={raw.gains}: give three numbers above 0")
    if not np.allclose(matrix.sum(axis=1), 1.0, atol=1e-4) or abs(np.linalg.det(matrix)) < 1e-6:
        raise InputError(f"matrix={matrix.tolist()}: give one with an inverse, whose rows sum to 1")
    if not np.isfinite(raw.mosaic).all():
        raise InputError(f"{np.sum(~np.isfinite(raw.mosaic))} values of the mosaic are not finite: nothing is written")
    stored = np.clip(np.round(BLACK + (WHITE - BLACK) * np.asarray(raw.mosaic, float)), 0, 65535).astype(np.uint16)
    buffer = io.BytesIO()  # tifffile asks an open file for its name, and a temporary file has none
    tags = [(*tag, True) for tag in _tags(raw, matrix)]
    extra("tifffile", "raw").imwrite(buffer, stored, photometric=32803, extratags=tags)
    return write_whole(path, lambda out: out.write(buffer.getvalue()))


def _tags(raw: Raw, matrix: np.ndarray) -> list[tuple]:
    """Code, type, count and values of the tags of a raw."""
    to_camera = np.linalg.inv(matrix) @ np.linalg.inv(SRGB_TO_XYZ)
    names = {turns: flip for flip, turns in QUARTER_TURNS.items()}
    tags = [
        (274, SHORT, 1, ORIENTATIONS[names[raw.quarter_turns]]),
        (50706, BYTE, 4, (1, 4, 0, 0)),  # version
        (33421, SHORT, 2, (2, 2)),  # size of the pattern
        (33422, BYTE, 4, tuple("RGB".index(color) for color in raw.pattern.upper())),
        (50708, ASCII, 0, "diffsim"),  # the camera
        (50714, SHORT, 1, BLACK),
        (50717, SHORT, 1, WHITE),
        (50728, RATIONAL, 3, _rational(raw.gains[1] / gain for gain in raw.gains)),  # what the camera sees of grey
        (50778, SHORT, 1, DAYLIGHT),
        (50721, SRATIONAL, 9, _rational(to_camera.ravel())),
        (50730, SRATIONAL, 1, _rational([raw.exposure])),
    ]
    if raw.noise is not None:
        tags.append((51041, DOUBLE, 2, (float(raw.noise.shot), float(raw.noise.read) ** 2)))
    if raw.crop is not None:
        top, left, rows, columns = raw.crop
        tags += [(50719, LONG, 2, (left, top)), (50720, LONG, 2, (columns, rows))]
    return tags


def _rational(values) -> tuple[int, ...]:
    return tuple(number for value in values for number in (round(1e6 * float(value)), 10**6))
