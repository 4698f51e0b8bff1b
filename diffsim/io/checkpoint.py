"""Checkpoints: any state in one file that is there whole or not at all, with a checksum for each leaf."""

import math
import struct
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .checkpoint_header import FORMAT, Header, read_header, write_header
from .checkpoint_leaves import Leaf, from_file, is_kept, kind, kind_of, name, named, to_file
from .files import check_path, check_writable, write_whole

MAGIC = b"diffsim state\r\n\x1a"
# The length of the header in bytes, and the checksum of that length and the header.
_LENGTHS = struct.Struct("<II")
_DAMAGED = "Take another copy of the file, or start again without it"


class CheckpointContents(NamedTuple):
    """What a file holds: the versions of `format`, `diffsim`, `jax` and `optax` that wrote it, its leaves by path."""

    versions: dict[str, Any]
    leaves: dict[str, Leaf]


def save(path: str | Path, tree: PyTree) -> None:
    """Writes the arrays, typed keys and numbers of a tree to one file, in place of what was there.

    The file is written beside, flushed to the disk and renamed: whatever happens meanwhile, `path` holds either all of
    the old state or all of the new one. Other leaves, as functions, are not saved. Two processes must not write to
    the same path at the same time.

    Raises InputError for a path that cannot be a regular file, as that of a folder, a device or a pipe, and for leaves
    that cannot be told apart or are no numbers; RunError if the disk is full or refuses; the old file is then as it
    was.
    """
    check_writable(Path(path))
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is no regular file, which a state needs; give the name of a file")
    leaves = {name: to_file(name, leaf) for name, leaf in named(tree).items()}
    pieces = [_bytes(leaf.value) for leaf in leaves.values()]
    header = write_header(versions(), leaves, [crc32(piece.data) for piece in pieces])
    length = struct.pack("<I", len(header))
    head = MAGIC + length + struct.pack("<I", crc32(length + header)) + header
    write_whole(path, lambda file: [file.write(piece) for piece in (head, *(piece.data for piece in pieces))])


def load(path: str | Path, like: PyTree) -> PyTree:
    """The tree in the file, built like `like`: its arrays, keys and numbers from the file, the rest its own.

    Leaves of `like` may be `jax.ShapeDtypeStruct`. Raises InputError that says what is missing, unknown, of another
    shape, number format or kind of key, or damaged; nothing is converted.
    """
    return fill(path, read(path), like)


def fill(path: str | Path, contents: CheckpointContents, like: PyTree) -> PyTree:
    """The tree built like `like` from what `read` found; raises InputError if they do not fit."""
    wrong = misfits(contents, like)
    if wrong:
        shown = wrong[:8] + ([f"and {len(wrong) - 8} more"] if len(wrong) > 8 else [])
        raise InputError(
            f"{path} is of another state: {'; '.join(shown)}. Build the tree that was saved, or another file"
        )
    new = lambda path, leaf: from_file(contents.leaves[name(path)], leaf) if is_kept(leaf) else leaf
    return jax.tree_util.tree_map_with_path(new, like)


def read(path: str | Path) -> CheckpointContents:
    """All that a file holds, by path and without a tree to compare; raises InputError if any of it is damaged."""
    return parse(path, read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file; raises InputError for anything else, as a pipe, which would never end."""
    path = Path(path)
    check_path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file; give the path of a checkpoint")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the path of a checkpoint") from error


def parse(path: str | Path, data: bytes) -> CheckpointContents:
    """All that the bytes of a file hold; raises InputError, which names the `path`, if any of it is damaged."""
    header, offset = _header(path, data)
    leaves = {}
    for entry in header.leaves:
        end = offset + entry.dtype.itemsize * math.prod(entry.shape)
        if end > len(data):
            raise InputError(f"{path} is cut short: {entry.name} is not all there. {_DAMAGED}")
        piece = data[offset:end]
        if crc32(piece) != entry.crc32:
            raise InputError(f"{path} is damaged: {entry.name} is not what was saved. {_DAMAGED}")
        # A copy: aligned, and the caller's to change.
        value = np.frombuffer(piece, entry.dtype.newbyteorder("<")).astype(entry.dtype).reshape(entry.shape)
        leaves[entry.name], offset = Leaf(value, entry.key), end
    if offset != len(data):
        raise InputError(f"{path} is damaged: {len(data) - offset} bytes follow the last leaf. {_DAMAGED}")
    return CheckpointContents(header.versions, leaves)


def _header(path, data: bytes) -> tuple[Header, int]:
    """The header of a file, and where its first leaf begins."""
    start = len(MAGIC) + _LENGTHS.size
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise InputError(f"{path} is no checkpoint of diffsim, or its first bytes are damaged. {_DAMAGED}")
    if len(data) < start:
        raise InputError(f"{path} is cut short: its header is not all there. {_DAMAGED}")
    length, crc = _LENGTHS.unpack_from(data, len(MAGIC))
    text = data[start : start + length]
    if crc32(data[len(MAGIC) : len(MAGIC) + 4] + text) != crc:
        fault = "is cut short or damaged" if len(text) < length else "is damaged"
        raise InputError(f"{path}: its header {fault}. {_DAMAGED}")
    return read_header(path, text), start + length


def misfits(contents: CheckpointContents, like: PyTree) -> list[str]:
    """What keeps a file from filling a tree, a phrase for each leaf: missing, unknown, or of another kind."""
    wanted = named(like)
    wrong = [f"{path} is missing" for path in wanted if path not in contents.leaves]
    wrong += [f"{path} is unknown" for path in contents.leaves if path not in wanted]
    for path in [path for path in wanted if path in contents.leaves]:
        kinds = zip(("shape", "dtype", "key"), kind(contents.leaves[path]), kind_of(wanted[path]), strict=True)
        wrong += [
            f"{path} has {word} {found}, expected {expected}" for word, found, expected in kinds if found != expected
        ]
    return wrong


def versions() -> dict[str, Any]:
    """The versions that decide whether a state means the same: of the format, of diffsim, jax and optax."""
    found: dict[str, Any] = {"format": FORMAT}
    for package in ("diffsim", "jax", "optax"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def _bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in the order of its elements, each with its lowest byte first."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
