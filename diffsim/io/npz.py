"""NumPy's archives (.npz), whose arrays are checked by their headers before any is unpacked."""

import io
import math
import zipfile
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from .._errors import InputError

HEADER = 10_000  # bytes of an array's header at most
ABSENT = "holds no arrays as NumPy saves them"


class Entry(NamedTuple):
    """What an archive says of one array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_headers(data: bytes) -> dict[str, Entry]:
    """The shape and dtype of each array in an archive; raises InputError unless their sizes are those of the entries.

    Arrays of Python objects are refused.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            entries = {member.filename.removesuffix(".npy"): _header(archive, member) for member in members}
    except InputError:
        raise
    except Exception as error:  # the ways in which an archive can be damaged are many
        raise InputError(f"{ABSENT} ({type(error).__name__})") from error
    if len(entries) < len(members):
        raise InputError("holds two arrays of one name")
    return entries


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an archive whose headers were checked; raises InputError if one is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise InputError(f"{ABSENT} ({type(error).__name__})") from error


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    with archive.open(member) as file:
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file, max_header_size=HEADER)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size:
        raise InputError(f"{member.filename:.80} has {member.file_size} bytes for shape {shape!s:.80} of {dtype!s:.40}")
    return Entry(shape, dtype)
