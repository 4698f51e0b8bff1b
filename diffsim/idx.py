"""IDX files, in which MNIST and its kin come: pictures and labels as arrays."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ._errors import InputError


def read_idx(path: Path) -> np.ndarray:
    """Returns the array in an IDX file of bytes, gzipped or not.

    The file has two zeros, the type 8, the number of axes, their lengths (big-endian), then the numbers. Raises
    InputError for anything else, for damaged gzip data and for a file that was cut off.
    """
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the gzip data are damaged ({error}): fetch the file again") from error
    axes = raw[3] if len(raw) > 3 else 0
    if raw[:3] != b"\0\0\x08" or axes not in (1, 3) or len(raw) < 4 + 4 * axes:
        raise InputError(
            f"{path} starts with {raw[:4].hex() or 'nothing'}: give an IDX file of bytes (00000801 or ..03)"
        )
    shape = np.frombuffer(raw, ">u4", axes, 4).astype(int)
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    if body.size != np.prod(shape):
        raise InputError(f"{path}: {body.size} bytes for shape {tuple(shape.tolist())}: fetch the file again")
    return body.reshape(shape)


def read_pair(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns pictures (n, pixels) from 0 to 1 and digits (n,), of files whose names start with `stem`.

    None where the folder has no such pair. Raises InputError where the two do not belong together.
    """
    images, labels = (sorted(folder.glob(f"{stem}*-{kind}*")) for kind in ("images", "labels"))
    if not images or not labels:
        return None
    pictures, digits = read_idx(images[0]), read_idx(labels[0])
    if pictures.ndim != 3 or digits.shape != pictures.shape[:1]:
        raise InputError(f"{folder}: {pictures.shape} pictures with {digits.shape} labels: give a matching pair")
    return pictures.reshape(len(pictures), -1) / 255.0, digits
