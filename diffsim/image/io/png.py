"""PNG files of 16 bits per value, which Pillow cannot read or write in color.

pypng can, but takes 5 to 11 s to read six megapixels with the filters that other programs use, where this takes 2 s.
"""

import struct
import zlib

import numpy as np

from ..._errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the colour type of the file


def header(data: bytes) -> tuple[int, int, int, int, int]:
    """Returns width, height, bits per value, colour type and whether interlaced, of the bytes of a PNG file."""
    if data[:8] != SIGNATURE or len(data) < 33:
        raise InputError("is not a PNG file, or is cut off")
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    return width, height, bits, color, interlaced


def encode(picture: np.ndarray) -> bytes:
    """Returns the bytes of a PNG file of a picture (height, width, channels) of 16-bit values."""
    height, width, channels = picture.shape
    color = {count: kind for kind, count in CHANNELS.items()}[channels]
    rows = np.ascontiguousarray(picture, ">u2").view(np.uint8).reshape(height, -1)
    # Each row as its difference from the one above, which compresses photographs well.
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    start = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    parts = [(b"IHDR", start), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def decode(data: bytes) -> np.ndarray:
    """Returns the picture (height, width, channels) of 16-bit values in the bytes of a PNG file.

    Raises:
        InputError: For interlaced files, for those of other bits, and for damaged ones.
    """
    width, height, bits, color, interlaced = header(data)
    if bits != 16 or interlaced:
        raise InputError(
            f"is a PNG of {bits} bits, interlaced: {bool(interlaced)}; only plain 16-bit ones are read here"
        )
    channels = CHANNELS[color]
    row = 1 + 2 * channels * width
    try:
        # One byte more than the header says shows that there are more; none of these takes memory.
        values = np.frombuffer(zlib.decompressobj().decompress(b"".join(_bodies(data)), height * row + 1), np.uint8)
        rows = values.reshape(height, row)
    except (zlib.error, ValueError, OverflowError, struct.error) as error:
        raise InputError(f"is a damaged or cut off PNG file: {error}") from error
    pixels = _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, 2 * channels))
    return pixels.view(">u2").astype(np.uint16)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _bodies(data: bytes):
    """The bodies of the chunks of the picture; the checksum of every chunk is compared."""
    at, kind = 8, b""
    while kind != b"IEND":
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if data[at : at + 12 + size] != _chunk(kind, body):
            raise InputError("is a damaged or cut off PNG file")
        if kind == b"IDAT":
            yield body
        at += 12 + size


def _unfilter(kinds: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """The bytes (height, width, bytes per pixel) before the five filters of PNG were applied.

    A pixel depends on those to its left, above, and above left, so all pixels of an anti-diagonal are computed at once.
    """
    height, width, depth = coded.shape
    decoded = np.zeros((height + 1, width + 1, depth), np.uint8)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, above, corner = (decoded[a, b].astype(np.int16) for a, b in ((y + 1, x), (y, x + 1), (y, x)))
        guesses = np.stack([np.zeros_like(left), left, above, (left + above) // 2, _paeth(left, above, corner)])
        guess = guesses[np.minimum(kinds[y], 4), np.arange(len(y))]
        decoded[y + 1, x + 1] = coded[y, x] + guess.astype(np.uint8)
    return np.ascontiguousarray(decoded[1:, 1:])


def _paeth(left, above, corner):
    """The one of the three neighbours nearest to left + above - corner."""
    near = left + above - corner
    to_left, to_above, to_corner = (abs(near - x) for x in (left, above, corner))
    either = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, either)
