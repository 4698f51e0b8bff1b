"""What a camera's raw file says of itself, read without decoding it and without JAX.

Sources: Adobe, Digital Negative Specification 1.7; TIFF 6.0; ISO/IEC 14496-12 (the boxes of a CR3).
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError
from .._extras import extra

RAW = (
    *(".dng", ".gpr", ".nef", ".nrw", ".crw", ".cr2", ".cr3", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".rwl"),
    *(".pef", ".srw", ".mrw", ".kdc", ".dcr", ".3fr", ".fff", ".iiq", ".mef", ".mos", ".erf", ".x3f"),
)
VERSION, NOISE, BASELINE, CROP_ORIGIN, CROP_SIZE, REPEAT = 50706, 51041, 50730, 50719, 50720, 33421
PHOTOMETRICS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 6: "YCbCr"}
MOSAIC, LINEAR = 32803, 34892
RATIONALS = (5, 10)
SIGNATURES = {b"\xff\xd8\xff": "a JPEG", b"\x89PNG": "a PNG", b"GIF8": "a GIF"}
NO_MOSAIC = "has all colours at every pixel and no mosaic; give a raw of a sensor with a Bayer pattern"


class RawTags(NamedTuple):
    """What the tags of a digital negative say beyond levels and colours.

    Attributes:
        noise: Shot and read noise where white is 1: the variance is shot x + read^2 at the signal x.
        exposure: The exposure, in stops, by which its maker brightens it.
        crop: Top, left, rows and columns of the picture within the active area.
    """

    noise: tuple[float, float] | None = None
    exposure: float = 0.0
    crop: tuple[int, int, int, int] | None = None


def check_raw_file(path: Path | str) -> None:
    """Raises InputError, in less than a second, for a file that holds no complete Bayer mosaic, and says what it holds.

    That is a file that is empty, truncated or no raw, one that is developed already, and one of a sensor without a
    Bayer pattern (Foveon, X-Trans, linear raws).
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(108)
    if not size:
        raise InputError(f"{path}: is empty")
    if head.startswith(b"FOVb"):
        raise InputError(f"{path}: is a raw of a Foveon sensor, which {NO_MOSAIC}")
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            raise InputError(f"{path}: is {kind}, developed already; give the raw that it was made from")
    if head.startswith(b"FUJIFILM") and len(head) == 108:
        _check_end(path, max(a + b for a, b in (struct.unpack(">2I", head[i : i + 8]) for i in (84, 92, 100))), size)
    if head[4:11] == b"ftypcrx":
        _check_end(path, _end_of_boxes(path, size), size)
    with _pages(path) as pages:
        for page in pages:
            # Previews may name more offsets than lengths.
            ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)]
            _check_end(path, max(ends, default=0), size)
        _check_kind(path, pages)
    _check_sensor(path)


def raw_tags(path: Path | str) -> RawTags:
    """Returns what the tags of a digital negative say; the defaults for other files."""
    with _pages(Path(path)) as pages:
        digital_negative = [page for page in pages if VERSION in page.tags]
        mosaics = [page for page in pages if page.photometric == MOSAIC]
        if not digital_negative:
            return RawTags()
        of_file = [*digital_negative[:1], *mosaics[:1]]  # the tags of the mosaic's own page come last
        tags = {tag.code: tag for page in of_file for tag in page.tags}
        return _of_tags(*(_numbers(tags.get(code)) for code in (NOISE, BASELINE, CROP_ORIGIN, CROP_SIZE)))


def _of_tags(profile: np.ndarray, exposure: np.ndarray, origin: np.ndarray, size: np.ndarray) -> RawTags:
    noise, crop = None, None
    if profile.size and profile.size % 2 == 0:
        shot, variance = profile.reshape(-1, 2).mean(axis=0)  # of all colours, or one pair for each
        noise = (float(shot), float(np.sqrt(variance))) if min(shot, variance) >= 0 else None
    if size.size == 2:
        left, top = np.round(origin if origin.size == 2 else np.zeros(2)).astype(int).tolist()
        columns, rows = np.round(size).astype(int).tolist()
        crop = (top, left, rows, columns)
    return RawTags(noise, float(exposure[0]) if exposure.size == 1 else 0.0, crop)


def _numbers(tag: Any) -> np.ndarray:
    """The numbers of a tag; empty if there is none, or if one of them is not finite."""
    values = np.zeros(0) if tag is None else tag_numbers(tag)
    return values if np.isfinite(values).all() else np.zeros(0)


def tag_numbers(tag: Any) -> np.ndarray:
    """Returns the numbers of a tag, rationals divided: by zero they are infinite or NaN."""
    values = np.atleast_1d(np.asarray(tag.value, float))
    if tag.dtype in RATIONALS:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = values[::2] / values[1::2]
    return values


def nested_pages(file: Any) -> list[Any]:
    """Returns the pages of an open TIFF file, each followed by those within it."""
    return [page for first in file.pages for page in (first, *(first.pages or ()))]


@contextmanager
def _pages(path: Path) -> Iterator[list[Any]]:
    """The pages of a file that is built like a TIFF, nested ones too; none of other files."""
    tifffile = extra("tifffile", "raw")
    try:
        with tifffile.TiffFile(path) as file:
            yield nested_pages(file)
            return
    except tifffile.TiffFileError:
        pass
    yield []


def _check_end(path: Path, end: int, size: int) -> None:
    if end > size:
        raise InputError(f"{path}: is truncated: its data ends at byte {end}, the file at {size}; copy it again")


def _end_of_boxes(path: Path, size: int) -> int:
    """Where the last box of a file of boxes ends."""
    place = 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            length, _ = struct.unpack(">I4s", file.read(8))
            if length == 1:
                (length,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            if length < 8:  # 0: to the end of the file
                return size
            place += length
    return place


def _check_kind(path: Path, pages: list[Any]) -> None:
    """Refuses a digital negative without a mosaic, and a mosaic that has no Bayer pattern."""
    if not any(VERSION in page.tags for page in pages):
        return
    mosaics = [page for page in pages if page.photometric == MOSAIC]
    if not mosaics and any(page.photometric == LINEAR for page in pages):
        raise InputError(f"{path}: is a linear raw, which {NO_MOSAIC}")
    if not mosaics:
        kind = PHOTOMETRICS.get(int(pages[0].photometric), f"of kind {int(pages[0].photometric)}")
        raise InputError(f"{path}: is developed already: its picture is {kind}; give the raw that it was made from")
    repeat = _numbers(mosaics[0].tags.get(REPEAT))
    if repeat.size == 2 and tuple(repeat) != (2, 2):
        rows, columns = repeat.astype(int).tolist()
        name = " (X-Trans)" if (rows, columns) == (6, 6) else ""
        raise InputError(f"{path}: its pattern has {rows} x {columns} pixels{name}; give a raw with a Bayer pattern")


def _check_sensor(path: Path) -> None:
    """Refuses what LibRaw cannot read, and sensors without a Bayer pattern."""
    rawpy = extra("rawpy", "raw")
    file = rawpy.RawPy()
    try:
        file.open_file(str(path))
        pattern = file.raw_pattern
        flat = file.raw_type == rawpy.RawType.Flat
    except (rawpy.LibRawError, OSError) as error:
        said = error.args[0] if error.args else type(error).__name__
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise InputError(f"{path}: cannot be decoded: {said}; give a raw that LibRaw reads") from error
    finally:
        file.close()
    if not flat:
        raise InputError(f"{path}: {NO_MOSAIC}")
    if pattern is None or pattern.shape != (2, 2):
        shape = "no pattern of colours" if pattern is None else "a pattern of {} x {} pixels".format(*pattern.shape)
        name = " (X-Trans)" if pattern is not None and pattern.shape == (6, 6) else ""
        raise InputError(f"{path}: its sensor has {shape}{name}; give a raw with a Bayer pattern")
