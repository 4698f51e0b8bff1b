"""Camera raws: the values of a sensor with the constants in its file; plain binary mosaics too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ..._errors import InputError
from ..._extras import extra
from ...io.raw_file import RAW, check_raw_file, raw_tags
from ..demosaicing.bayer import check_pattern
from ..sensor import SRGB_TO_XYZ, Noise
from . import dng
from .pictures import check_extension

QUARTER_TURNS = {0: 0, 3: 2, 5: 1, 6: 3}  # to the left, by how LibRaw names the orientation of a file


class Raw(NamedTuple):
    """A mosaic (h, w) from 0 at black to 1 at white, not clipped, with the constants of its camera.

    The gains of red, green and blue are those of white balance; the matrix takes balanced camera colours to linear
    sRGB, and its rows sum to 1. The rest is None or zero where the file does not say it.

    Attributes:
        mosaic: the values of the sensor.
        pattern: the colours of a quad, read like text.
        gains: of white balance, relative to green.
        matrix: from balanced camera colours to linear sRGB.
        noise: of the values of the mosaic.
        exposure: in stops, by which the maker brightens its pictures.
        quarter_turns: to the left, that bring the picture upright.
        crop: top, left, rows and columns of the picture that the maker shows.

    Examples:
        >>> raw = ds.image.Raw(np.full((4, 6), 0.25), "BGGR", gains=(2.0, 1.0, 1.5))
        >>> raw.mosaic.shape, raw.pattern, raw.matrix.sum(axis=1).tolist()
        ((4, 6), 'BGGR', [1.0, 1.0, 1.0])
    """

    mosaic: Float[np.ndarray, "h w"]
    pattern: str = "RGGB"
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    matrix: Float[np.ndarray, "3 3"] = np.eye(3)
    noise: Noise | None = None
    exposure: float = 0.0
    quarter_turns: int = 0
    crop: tuple[int, int, int, int] | None = None

    def cropped(self, picture: Shaped[np.ndarray, "*c h w"]) -> Shaped[np.ndarray, "*c rows columns"]:
        """Returns the part of a picture of the mosaic's size that the maker shows."""
        top, left, rows, columns = self.crop or (0, 0, *picture.shape[-2:])
        return picture[..., top : top + rows, left : left + columns]


def read_raw(path: Path | str) -> Raw:
    """Returns the raw in a DNG or a maker's file, with black, white, pattern, gains and colour matrix from the file.

    Black levels of a DNG may differ by pattern, column and row: its tags BlackLevel, BlackLevelRepeatDim,
    BlackLevelDeltaH and BlackLevelDeltaV are read, from the corner of its ActiveArea. In a maker's file there is one
    for each of the four sites.

    The gains are those of the camera's white balance, or of daylight where it has none. The matrix follows from the
    ColorMatrix of the file, that for daylight if there are two, or for a known camera from the table of LibRaw; without
    either it is the identity. The orientation is that of the file, and a DNG may also have the tags NoiseProfile,
    BaselineExposure, DefaultCropOrigin and DefaultCropSize. Not used: calibration and forward matrices, tables and
    curves of a profile, and lens corrections.

    Needs rawpy and tifffile.

    Raises:
        InputError: for a file that is truncated or cannot be decoded, for levels that contradict each other, for a
            sensor without a Bayer pattern, and for pictures that are developed already.

    Examples:
        >>> import tifffile
        >>> tags = [(50706, "B", 4, (1, 4, 0, 0)), (33421, "H", 2, (2, 2)), (33422, "B", 4, (0, 1, 1, 2))]
        >>> tags += [(50708, "s", 0, "Camera"), (50714, "H", 1, 64), (50717, "H", 1, 960)]  # model, black and white
        >>> stored = np.full((32, 48), 512, np.uint16)
        >>> tifffile.imwrite("a.dng", stored, photometric=32803, extratags=[(*tag, True) for tag in tags])
        >>> raw = ds.image.read_raw("a.dng")
        >>> raw.pattern, raw.mosaic.shape, float(raw.mosaic.max())
        ('RGGB', (32, 48), 0.5)
    """
    path = Path(path)
    check_extension(path, RAW)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    check_raw_file(path)
    with _decoded(path) as file:
        return _from_file(path, file)


def rendering_by_libraw(
    path: Path | str, given: Raw, stops: float = 0.0, bits: Literal[8, 16] = 8
) -> Float[np.ndarray, "3 h w"]:
    """Returns LibRaw's rendering of a raw file, in [0, 1], for comparison.

    Args:
        path: the file.
        given: what `read_raw` returned for it, for white balance, orientation and crop.
        stops: of exposure.
        bits: of its values, which LibRaw rounds down.

    Raises:
        InputError: for a file that cannot be decoded.
    """
    options = {"no_auto_bright": True, "gamma": (2.4, 12.92), "user_flip": 0}
    options["adjust_maximum_thr"] = 0.0  # white is where the file says, not at the brightest value
    options["user_wb"] = [*given.gains, given.gains[1]]
    with _decoded(Path(path)) as file:
        rendered = file.postprocess(output_bps=bits, bright=2.0**stops, **options)
    top, left, rows, columns = given.crop or (0, 0, *rendered.shape[:2])
    upright = np.rot90(rendered[top : top + rows, left : left + columns], given.quarter_turns)
    return np.moveaxis(upright, 2, 0).astype(np.float32) / (2**bits - 1)


def read_binary(
    path: Path | str,
    size: tuple[int, int],
    pattern: str = "RGGB",
    *,
    bits: int = 16,
    black: float = 0.0,
    white: float | None = None,
) -> Raw:
    """Returns the raw in a plain file of unsigned numbers, row after row, low byte first.

    Args:
        path: the file.
        size: rows and columns.
        pattern: the colours of a quad, read like text.
        bits: per pixel as stored, 8 or 16.
        black: the stored value of black.
        white: the stored value of white, by default the greatest possible.

    Raises:
        InputError: for a file of another size, and for arguments that do not fit.

    Examples:
        >>> np.full((4, 6), 512, "<u2").tofile("sensor.bin")
        >>> raw = ds.image.read_binary("sensor.bin", (4, 6), "GRBG", black=64, white=960)
        >>> raw.mosaic.shape, raw.pattern, float(raw.mosaic.max())
        ((4, 6), 'GRBG', 0.5)
    """
    path = Path(path)
    check_pattern(pattern)
    if bits not in (8, 16):
        raise InputError(f"bits={bits}: a plain mosaic has 8 or 16 bits per pixel")
    if min(size) < 2:
        raise InputError(f"size={size}: give rows and columns, at least 2 of each")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    expected, stored = size[0] * size[1] * bits // 8, path.stat().st_size
    if stored != expected:
        raise InputError(f"{path}: has {stored} bytes, but {size[0]} x {size[1]} pixels of {bits} bits take {expected}")
    white = 2.0**bits - 1 if white is None else white
    if not black < white:
        raise InputError(f"black={black}, white={white}: black must lie below white")
    values = np.fromfile(path, "u1" if bits == 8 else "<u2").reshape(size)
    return Raw(((values.astype(np.float32) - black) / (white - black)).astype(np.float32), pattern.upper())


@contextmanager
def _decoded(path: Path) -> Iterator[Any]:
    """The file, decoded by LibRaw; what it cannot decode is refused."""
    rawpy = extra("rawpy", "raw")
    try:
        with rawpy.imread(str(path)) as file:
            yield file
    except (rawpy.LibRawError, OSError) as error:
        raise InputError(f"{path}: cannot be decoded, {type(error).__name__}: {error}") from error


def _from_file(path: Path, file) -> Raw:
    aspect = file.sizes.pixel_aspect
    if aspect != 1:
        raise InputError(f"{path}: its pixels are {aspect:.3g} times as wide as high; give a raw with square pixels")
    names = file.color_desc.decode()
    pattern = "".join(names[i] for i in file.raw_pattern.ravel())
    check_pattern(pattern)
    black, step = _levels(path, file)
    values = file.raw_image_visible.astype(np.float32)
    mosaic = (values - black) / np.asarray(step, np.float32)
    tags, turns = raw_tags(path), QUARTER_TURNS.get(file.sizes.flip, 0)
    noise = None if tags.noise is None else Noise(*tags.noise)
    crop = _crop(path, tags.crop, mosaic.shape)
    return Raw(mosaic, pattern, _gains(file), _matrix(file), noise, tags.exposure, turns, crop)


def _crop(path: Path, crop: tuple[int, int, int, int] | None, shape: tuple[int, int]):
    """The crop of a file, which must lie within its mosaic; None if it is the whole."""
    if crop is None:
        return None
    top, left, rows, columns = crop
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > shape[0] or left + columns > shape[1]:
        raise InputError(
            f"{path}: its default crop, {rows} x {columns} pixels from row {top} and column {left}, does not lie "
            f"within its mosaic of {shape[0]} x {shape[1]}"
        )
    return None if (rows, columns) == shape else crop


def _levels(path: Path, file):
    """The black level of each pixel and the step from black to white: by the tags of a DNG, else by LibRaw."""
    sizes = file.sizes
    corner = sizes.top_margin, sizes.left_margin
    by_tags = dng.levels(
        path, (sizes.raw_height, sizes.raw_width), corner, file.raw_image_visible.shape, float(file.white_level)
    )
    if by_tags is not None:
        return by_tags
    black = np.asarray(file.black_level_per_channel, np.float32)[file.raw_colors_visible]
    return black, np.float32(file.white_level) - black


def _gains(file) -> tuple[float, float, float]:
    """The white balance of the camera, that of daylight if it has none, relative to green."""
    for given in (file.camera_whitebalance, file.daylight_whitebalance):
        red, green, blue = given[:3]
        if min(red, green, blue) > 0:
            return red / green, 1.0, blue / green
    return 1.0, 1.0, 1.0


def _matrix(file) -> np.ndarray:
    """The matrix from balanced camera colours to linear sRGB, whose rows sum to 1: white stays white."""
    # `color_matrix` follows from the matrix of the file, `rgb_xyz_matrix` is that of the table of LibRaw, or zeros.
    of_file = np.asarray(file.color_matrix, float)[:, :3]
    of_table = np.asarray(file.rgb_xyz_matrix, float)[:3] @ SRGB_TO_XYZ
    if _invertible(of_file):
        matrix = of_file
    elif _invertible(of_table):
        matrix = np.linalg.inv(of_table / of_table.sum(axis=1, keepdims=True))
    else:
        return np.eye(3)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _invertible(matrix) -> bool:
    return bool(np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-9)
