"""NumPy's archives (.npz) with a header and a checksum, as bytes; all sizes are checked before memory is taken."""

import io
import math
import zipfile
from collections.abc import Mapping
from zlib import crc32

import numpy as np
from numpy.lib import format as npy

from .._errors import InputError

HEADER = "header.json"
MAGIC, END = b"PK\3\4", b"PK\5\6"  # the first bytes of an archive, and of the record at its end
END_SIZE, CHECKSUM_SIZE = 22, 4  # bytes of that record, and of the archive's comment, which follows it
LONGEST_HEADER = 10_000  # bytes of an array's own header
LONGEST_NAME = 10_000  # characters
NUMBERS = "biufcmM"  # kinds of dtypes: of numbers, dates and time spans


def pack(header: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns an archive of a header and of arrays, which `np.load` reads, too.

    The arrays are stored without compression. ZIP keeps a CRC-32 of each; the archive's comment is the CRC-32 of all
    bytes before it.

    Args:
        header: The bytes of the entry `header.json`.
        arrays: The arrays by name, of dtypes that NumPy itself has.

    Raises:
        InputError: For a name that no archive can have.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = bytes(CHECKSUM_SIZE)
        with archive.open(HEADER, "w") as entry:
            entry.write(header)
        for name, array in arrays.items():
            if not name.isprintable() or len(name) > LONGEST_NAME:
                raise InputError(f"a leaf is called {name[:80]!r}: give a shorter name of printable characters")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, array, allow_pickle=False)
    with buffer.getbuffer() as data:
        data[-CHECKSUM_SIZE:] = crc32(data[:-CHECKSUM_SIZE]).to_bytes(CHECKSUM_SIZE, "little")
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """Returns the header and the arrays of an archive that `pack` made.

    Raises:
        InputError: If any byte is damaged, or if the archive is another than `pack` makes: compressed, with arrays
            whose shape does not belong to their size, or with objects.
    """
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise InputError("is no checkpoint of diffsim, or its first bytes are damaged")
    if not data[-END_SIZE - CHECKSUM_SIZE :].startswith(END):
        raise InputError("is cut short, damaged at its end, or no checkpoint of diffsim")
    if crc32(memoryview(data)[:-CHECKSUM_SIZE]) != int.from_bytes(data[-CHECKSUM_SIZE:], "little"):
        name = _damaged_entry(data)
        raise InputError(f"is damaged: {name.removesuffix('.npy')} is not what was saved" if name else "is damaged")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_sizes(archive.infolist(), len(data))
            entries = {name: archive.read(name) for name in archive.namelist()}
        header = entries.pop(HEADER)
        return header, {name.removesuffix(".npy"): _array(name, entry) for name, entry in entries.items()}
    except InputError:
        raise
    except Exception as error:  # the ways in which an archive can be wrong are many
        raise InputError(f"is damaged: {type(error).__name__}, {error!s:.200}") from error


def _damaged_entry(data: bytes) -> str | None:
    """The name of the first entry whose bytes do not have their checksum, if the archive can be read that far."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip()
    except Exception:  # the damage may lie in the directory
        return None


def _check_sizes(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raises InputError unless the entries, as they will be in memory, can lie next to one another in the archive."""
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputError("is damaged: it has two leaves of one name")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError("is compressed, which no checkpoint is")
    if sum(entry.file_size for entry in entries) > size:
        raise InputError("is damaged: its leaves would be larger than the file")


def _array(name: str, entry: bytes) -> np.ndarray:
    stream = io.BytesIO(entry)
    read_header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream, max_header_size=LONGEST_HEADER)
    size = stream.tell() + math.prod(shape) * dtype.itemsize
    if dtype.kind not in NUMBERS or min(shape, default=0) < 0 or size != len(entry):
        raise InputError(
            f"is damaged: {name:.80} has {len(entry)} bytes for shape {shape!s:.80} and dtype {dtype!s:.40}"
        )
    stream.seek(0)
    array = npy.read_array(stream, allow_pickle=False)
    return array.astype(dtype.newbyteorder("="), copy=False)
