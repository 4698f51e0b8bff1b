"""IDX files, the format of MNIST: pictures and labels as arrays."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import InputError
from .files import check_path

LARGEST = 2**31  # numbers in a file
MOST_SHRUNK = 1032  # times that gzip makes bytes fewer, at best


def read_idx(path: Path | str) -> np.ndarray:
    """Returns the array in an IDX file of bytes, gzipped or not.

    The file has two zeros, the type 8, the number of axes, their lengths (big-endian), then the numbers; the lengths
    are checked before anything is unpacked.

    Args:
        path: The file.

    Raises:
        InputError: For any other file, for damaged gzip data, for a file that was cut off and for one without numbers.
    """
    path = Path(path)
    check_path(path)
    if not path.is_file():
        raise InputError(f"{path} is no regular file: give an IDX file")
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            return _read(path, gzip.GzipFile(fileobj=raw) if packed else raw, MOST_SHRUNK if packed else 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the gzip data are damaged ({error}): fetch the file again") from error


def _read(path: Path, file: Any, most_shrunk: int) -> np.ndarray:
    head = file.read(4)
    axes = head[3] if len(head) > 3 else 0
    lengths = file.read(4 * axes) if axes in (1, 3) else b""
    if head[:3] != b"\0\0\x08" or axes not in (1, 3) or len(lengths) < 4 * axes:
        raise InputError(f"{path} starts with {head.hex() or 'nothing'}: give an IDX file of bytes (00000801 or ..03)")
    shape = tuple(int.from_bytes(lengths[4 * i : 4 * i + 4]) for i in range(axes))
    size = math.prod(shape)
    if not 0 < size <= min(LARGEST, most_shrunk * path.stat().st_size):
        file_size = path.stat().st_size
        raise InputError(f"{path}: shape {shape} cannot be in a file of {file_size} bytes: fetch the file again")
    body = file.read(size + 1)
    if len(body) != size:
        count = f"{len(body)} bytes" if len(body) < size else "more bytes than there should be"
        raise InputError(f"{path}: {count} for shape {shape}: fetch the file again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_pair(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns pictures (n, pixels) from 0 to 1 and digits (n,), or None if the folder has no such pair of files.

    Args:
        folder: The folder of the files.
        stem: How their names start, as "train".

    Raises:
        InputError: If pictures and digits do not belong together.
    """
    images, labels = (sorted(folder.glob(f"{stem}*-{kind}*")) for kind in ("images", "labels"))
    if not images or not labels:
        return None
    pictures, digits = read_idx(images[0]), read_idx(labels[0])
    if pictures.ndim != 3 or digits.shape != pictures.shape[:1]:
        raise InputError(f"{folder}: {pictures.shape} pictures with {digits.shape} labels: give a matching pair")
    return pictures.reshape(len(pictures), -1) / 255.0, digits
