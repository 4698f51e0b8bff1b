"""The header of a checkpoint, as JSON that is checked: versions, and name, shape, dtype and checksum of each leaf."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError
from .checkpoint_leaves import Leaf

FORMAT = 1
AXES, LARGEST = 32, 2**56  # how many axes an array has at most, and how many entries, its empty axes left out


class Entry(NamedTuple):
    """What a header says of one leaf."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    key: str | None
    crc32: int


class Header(NamedTuple):
    """The versions that wrote a file, and its leaves in order."""

    versions: dict[str, Any]
    leaves: list[Entry]


def write_header(versions: Mapping[str, Any], leaves: Mapping[str, Leaf], sums: Sequence[int]) -> bytes:
    """The header of a file with these leaves and their checksums."""
    entries = [
        {"name": name, "shape": leaf.value.shape, "dtype": leaf.value.dtype.name, "key": leaf.key, "crc32": crc}
        for (name, leaf), crc in zip(leaves.items(), sums, strict=True)
    ]
    return json.dumps({"versions": versions, "leaves": entries}).encode()


def read_header(path: Any, text: bytes) -> Header:
    """What a header says; raises InputError, which names the `path`, unless all of it makes sense."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"it is no JSON, {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("leaves"), list):
        raise _wrong(path, "it lists no leaves")
    versions = found.get("versions")
    if not isinstance(versions, dict) or "format" not in versions:
        raise _wrong(path, "it names no versions")
    if versions["format"] != FORMAT or isinstance(versions["format"], bool):
        raise InputError(f"{path} has format {versions['format']!r:.40}, this diffsim reads {FORMAT}; use its own")
    if not all(isinstance(versions.get(package), str) for package in ("diffsim", "jax", "optax")):
        raise _wrong(path, "the versions of diffsim, jax and optax are missing")
    entries = [_entry(path, number, entry) for number, entry in enumerate(found["leaves"])]
    if len({entry.name for entry in entries}) < len(entries):
        raise _wrong(path, "two leaves have one name")
    return Header(versions, entries)


def _entry(path: Any, number: int, found: Any) -> Entry:
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise _wrong(path, f"leaf {number} has no name")
    name, shape, key, crc = found["name"], found.get("shape"), found.get("key"), found.get("crc32")
    if not isinstance(shape, list) or len(shape) > AXES or not _is_shape(shape):
        raise _wrong(path, f"{name:.80} has shape {shape!r:.80}")
    if not isinstance(crc, int) or not _is_count(crc) or not (key is None or isinstance(key, str)):
        raise _wrong(path, f"{name:.80} has checksum {crc!r:.40} and key {key!r:.40}")
    return Entry(name, tuple(shape), _dtype(path, name, found.get("dtype")), key, crc)


def _dtype(path: Any, name: str, text: Any) -> np.dtype:
    """The dtype of a word, which must be the name of numbers of a fixed size."""
    try:
        dtype = np.dtype(text) if isinstance(text, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.name != text or dtype.hasobject or not 0 < dtype.itemsize <= 64:
        raise _wrong(path, f"{name:.80} has dtype {text!r:.80}")
    return dtype


def _is_shape(lengths: list) -> bool:
    return all(map(_is_count, lengths)) and math.prod(length or 1 for length in lengths) <= LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _wrong(path: Any, what: str) -> InputError:
    return InputError(
        f"{path}: its header is damaged: {what}. Take another copy of the file, or start again without it"
    )
