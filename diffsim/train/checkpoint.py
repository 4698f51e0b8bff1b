"""Checkpoints: any state in one file that is there whole or not at all, with a checksum for each leaf."""

import json
import math
import os
import struct
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError, WorkFailed
from .leaves import Leaf, from_file, is_kept, kind, kind_of, name, named, to_file

MAGIC = b"diffsim state\r\n\x1a"
FORMAT = 1
# The length of the header in bytes, and the checksum of that length and the header.
_LENGTHS = struct.Struct("<II")
_DAMAGED = "Take another copy of the file, or start anew without it"


class Contents(NamedTuple):
    """What a file holds: the versions of `format`, `diffsim`, `jax` and `optax` that wrote it, its leaves by path."""

    versions: dict[str, Any]
    leaves: dict[str, Leaf]


def save(path: str | Path, tree: PyTree) -> None:
    """Writes the arrays, typed keys and numbers of a tree to one file, in place of what was there.

    The file is written beside, flushed to the disk and renamed: whatever happens meanwhile, `path` holds either all of
    the old state or all of the new one. Other leaves, as functions, are not saved. Two processes must not write to
    the same path at the same time.

    Raises InputError for a path that cannot be a file and for leaves that cannot be told apart or are no numbers,
    WorkFailed if the disk is full or refuses; the old file is then as it was.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    leaves = {name: to_file(name, leaf) for name, leaf in named(tree).items()}
    pieces = [_bytes(leaf.value) for leaf in leaves.values()]
    entries = [
        {
            "name": name,
            "shape": leaf.value.shape,
            "dtype": leaf.value.dtype.name,
            "key": leaf.key,
            "crc32": crc32(piece.data),
        }
        for (name, leaf), piece in zip(leaves.items(), pieces, strict=True)
    ]
    header = json.dumps({"versions": versions(), "leaves": entries}).encode()
    length = struct.pack("<I", len(header))
    head = MAGIC + length + struct.pack("<I", crc32(length + header)) + header
    try:
        _replace(target, [head, *pieces])
    except OSError as error:
        raise WorkFailed(f"{path} was not saved: {error.strerror}. What was there before is as it was") from error
    _flush_folder(target.parent)


def load(path: str | Path, like: PyTree) -> PyTree:
    """The tree in the file, built like `like`: its arrays, keys and numbers from the file, the rest its own.

    Leaves of `like` may be `jax.ShapeDtypeStruct`. Raises InputError that says what is missing, unknown, of another
    shape, number format or kind of key, or damaged; nothing is converted.
    """
    return fill(path, read(path), like)


def fill(path: str | Path, contents: Contents, like: PyTree) -> PyTree:
    """The tree built like `like` from what `read` found; raises InputError if they do not fit."""
    wrong = misfits(contents, like)
    if wrong:
        shown = wrong[:8] + ([f"and {len(wrong) - 8} more"] if len(wrong) > 8 else [])
        raise InputError(
            f"{path} is of another state: {'; '.join(shown)}. Build the tree that was saved, or another file"
        )
    new = lambda path, leaf: from_file(contents.leaves[name(path)], leaf) if is_kept(leaf) else leaf
    return jax.tree_util.tree_map_with_path(new, like)


def read(path: str | Path) -> Contents:
    """All that a file holds, by path and without a tree to compare; raises InputError if any of it is damaged."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the path of a checkpoint") from error
    return parse(path, data)


def parse(path: str | Path, data: bytes) -> Contents:
    """All that the bytes of a file hold; raises InputError, which names the `path`, if any of it is damaged."""
    header, offset = _header(path, data)
    leaves = {}
    for entry in header["leaves"]:
        dtype, shape = np.dtype(entry["dtype"]), entry["shape"]
        end = offset + dtype.itemsize * math.prod(shape)
        piece = data[offset:end]
        if end > len(data):
            raise InputError(f"{path} is cut short: {entry['name']} is not all there. {_DAMAGED}")
        if crc32(piece) != entry["crc32"]:
            raise InputError(f"{path} is damaged: {entry['name']} is not what was saved. {_DAMAGED}")
        # A copy: aligned, and the caller's to change.
        value = np.frombuffer(piece, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        leaves[entry["name"]], offset = Leaf(value, entry["key"]), end
    if offset != len(data):
        raise InputError(f"{path} is damaged: {len(data) - offset} bytes follow the last leaf. {_DAMAGED}")
    return Contents(header["versions"], leaves)


def _header(path, data: bytes) -> tuple[dict, int]:
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
    header = json.loads(text)
    if header["versions"]["format"] != FORMAT:
        raise InputError(f"{path} has format {header['versions']['format']}, this diffsim reads {FORMAT}; use its own")
    return header, start + length


def misfits(contents: Contents, like: PyTree) -> list[str]:
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


def _replace(target: Path, pieces: list) -> None:
    """Writes a file beside the target and renames it, so that a crash at any moment leaves one of the two whole."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _flush_folder(folder: Path) -> None:
    """Makes a new name outlast a power failure, where the system can open a folder to flush it."""
    with suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
