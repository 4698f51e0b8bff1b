"""The black and white levels of digital negatives (DNG), by the tags of the file.

Source: Adobe, Digital Negative Specification 1.7, "Mapping raw values to linear reference values".
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..._errors import InputError
from ..._extras import extra
from ...io.raw_file import MOSAIC, RATIONALS, VERSION, nested_pages, tag_numbers

REMEDY = "read the file with rawpy, subtract its black level and give the mosaic as image.Raw(mosaic, pattern)"


def levels(
    path: Path, size: tuple[int, int], corner: tuple[int, int], shape: tuple[int, int], white: float
) -> tuple[Float[np.ndarray, "_ _"], float] | None:
    """Returns the black level of each visible pixel and the step from black to white, in stored values.

    The black level of a pixel is BlackLevel, repeated over the active area as BlackLevelRepeatDim says, plus
    BlackLevelDeltaH of its column and BlackLevelDeltaV of its row. The step is WhiteLevel minus the greatest black
    level, the same for all pixels:

        linear = (stored - black) / step

    Args:
        path: the file.
        size: rows and columns of the stored image, masked pixels included.
        corner: row and column of the first visible pixel in it.
        shape: rows and columns that are visible.
        white: the white level of a file without the tag WhiteLevel.

    Returns:
        Black levels, (rows, columns) or (1, 1) where they are all alike, and the step; None if the file is no digital
        negative, or has no tag about black levels.

    Raises:
        InputError: for tags that contradict each other or the image, and for white levels that differ.
    """
    tifffile = extra("tifffile", "raw")
    try:
        with tifffile.TiffFile(path) as file:
            if VERSION not in file.pages[0].tags:
                return None
            return _of_page(path, _page(path, file, size), size, corner, shape, white)
    except tifffile.TiffFileError:
        return None


def _of_page(path: Path, page: Any, size, corner, shape, white: float):
    names = ("BlackLevel", "BlackLevelRepeatDim", "BlackLevelDeltaH", "BlackLevelDeltaV")
    if not any(name in page.tags for name in names):
        return None
    top, left, bottom, right = _numbers(path, page, "ActiveArea", 4, (0, 0, *size)).astype(int).tolist()
    rows, columns = bottom - top, right - left
    row, column = corner[0] - top, corner[1] - left
    if min(row, column) < 0 or row + shape[0] > rows or column + shape[1] > columns:
        raise _refused(path, "ActiveArea", f"does not hold the {shape[0]} x {shape[1]} visible pixels")
    high, wide = _numbers(path, page, "BlackLevelRepeatDim", 2, (1, 1)).astype(int).tolist()
    if min(high, wide) < 1:
        raise _refused(path, "BlackLevelRepeatDim", f"is {high} x {wide}")
    pattern = _numbers(path, page, "BlackLevel", high * wide, np.zeros(high * wide)).reshape(high, wide)
    by_column = _numbers(path, page, "BlackLevelDeltaH", columns, np.zeros(columns))
    by_row = _numbers(path, page, "BlackLevelDeltaV", rows, np.zeros(rows))
    if pattern.size == 1 and not by_column.any() and not by_row.any():
        black, greatest = pattern, float(pattern[0, 0])
    else:
        # Repeats and deltas count from the corner of the active area, whose first pixels may not be visible.
        black = np.tile(pattern, (-(-rows // high), -(-columns // wide)))[:rows, :columns]
        black = black + by_column + by_row[:, None]
        greatest, black = float(black.max()), black[row : row + shape[0], column : column + shape[1]]
    white = _white(path, page, white)
    if not greatest < white:
        raise _refused(path, "WhiteLevel", f"is {white:g}, which is not above the black level {greatest:g}")
    return black.astype(np.float32), white - greatest


def _page(path: Path, file: Any, size: tuple[int, int]) -> Any:
    """The directory of tags that describes the mosaic."""
    for page in nested_pages(file):
        if page.photometric == MOSAIC and (page.imagelength, page.imagewidth) == size:
            return page
    raise InputError(f"{path}: has no tags of a mosaic of {size[0]} x {size[1]} pixels; {REMEDY}")


def _white(path: Path, page: Any, default: float) -> float:
    if "WhiteLevel" not in page.tags:
        return float(default)
    values = _numbers(path, page, "WhiteLevel", page.tags["WhiteLevel"].count, None)
    if (values != values[0]).any():
        raise _refused(path, "WhiteLevel", f"has {len(values)} values that differ, for a mosaic of one sample a pixel")
    return float(values[0])


def _numbers(path: Path, page: Any, name: str, count: int, default) -> np.ndarray:
    """The numbers of a tag, `count` of them; rationals are divided."""
    if name not in page.tags:
        return np.asarray(default, float)
    tag = page.tags[name]
    values = tag_numbers(tag)
    if tag.dtype in RATIONALS and not np.isfinite(values).all():
        raise _refused(path, name, "has a zero for a denominator")
    if values.size != count:
        raise _refused(path, name, f"has {values.size} values where {count} are needed")
    return values


def _refused(path: Path, name: str, problem: str) -> InputError:
    return InputError(f"{path}: its tag {name} {problem}; {REMEDY}")
