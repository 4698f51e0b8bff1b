"""Checkpoints: any state in one .npz file that is complete or absent, with a checksum for each leaf."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .._extras import installed_version
from .files import check_path, check_writable, write_whole
from .leaves import Leaf, from_file, is_saved, kind, kind_of, leaf_name, named, to_file
from .npz import pack, unpack

FORMAT = 1
_DAMAGED = "Take another copy of the file, or start again without it"


class Header(msgspec.Struct):
    """The description of a file's leaves, its JSON entry.

    Attributes:
        versions: The versions of the format, of diffsim, jax and optax that wrote the file.
        dtypes: The dtypes of the leaves whose dtype NumPy's own files cannot have, as bfloat16.
        keys: The implementations of the leaves that are random keys.
        about: What else the writer of the file noted.
    """

    versions: dict[str, int | str]
    dtypes: dict[str, str]
    keys: dict[str, str]
    about: dict[str, Any]


class CheckpointContents(NamedTuple):
    """The content of a file: the versions that wrote it, its leaves by path, and the notes of its writer."""

    versions: dict[str, int | str]
    leaves: dict[str, Leaf]
    about: dict[str, Any]


def save(path: str | Path, tree: PyTree) -> None:
    """Writes the arrays, typed keys and numbers of a tree to one file, in place of what was there.

    The file is an archive of NumPy (.npz), which `np.load` reads, too. It is written next to its place, flushed to the
    disk and renamed: whatever happens meanwhile, `path` has either all of the old state or all of the new one. Other
    leaves, as functions, are not saved. Two processes must not write to the same path at the same time.

    Args:
        path: The file.
        tree: The state.

    Raises:
        InputError: For a path that cannot be a regular file, as that of a folder, a device or a pipe, and for leaves
            that have the same path or are no numbers.
        RunError: If the disk is full or refuses; the old file is then as it was.

    Examples:
        >>> policy = ds.BoundedMLP(4, -10.0, 10.0, key=jr.key(0))
        >>> ds.save("policy.npz", policy)
        >>> bool(eqx.tree_equal(ds.load("policy.npz", like=policy), policy))
        True
    """
    write(path, {name: to_file(name, leaf) for name, leaf in named(tree).items()})


def write(path: str | Path, leaves: Mapping[str, Leaf], about: Mapping[str, Any] | None = None) -> Path:
    """Returns the path, where the leaves and notes `about` them now are; as `save`."""
    path = Path(path)
    check_writable(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file, which a state needs; give the name of a file")
    foreign = {name: leaf.value.dtype for name, leaf in leaves.items() if leaf.value.dtype.isbuiltin == 2}
    dtypes = {name: dtype.name for name, dtype in foreign.items()}
    keys = {name: leaf.key for name, leaf in leaves.items() if leaf.key is not None}
    arrays = {name: leaf.value for name, leaf in leaves.items()}
    arrays |= {name: arrays[name].view(_bits(dtype)) for name, dtype in foreign.items()}
    data = pack(msgspec.json.encode(Header(versions(), dtypes, keys, dict(about or {}))), arrays)
    return write_whole(path, lambda file: file.write(data))


def load(path: str | Path, like: PyTree) -> PyTree:
    """Returns the tree in a file: its arrays, keys and numbers are those of the file, all else is that of `like`.

    Args:
        path: A file that `save` wrote.
        like: A tree of the structure, shapes and dtypes that were saved; leaves may be `jax.ShapeDtypeStruct`.

    Raises:
        InputError: If a leaf is missing, unknown, of another shape, dtype or kind of key, or damaged; nothing is
            converted.

    Examples:
        >>> ds.save("state.npz", {"position": jnp.arange(3.0), "step": 7})
        >>> ds.load("state.npz", like={"position": jnp.zeros(3), "step": 0})
        {'position': Array([0., 1., 2.], dtype=float64), 'step': 7}
    """
    return fill(path, read(path), like)


def fill(path: str | Path, contents: CheckpointContents, like: PyTree) -> PyTree:
    """The tree built like `like` from what `read` returned; raises InputError if they do not fit."""
    wrong = misfits(contents, like)
    if wrong:
        shown = wrong[:8] + ([f"and {len(wrong) - 8} more"] if len(wrong) > 8 else [])
        raise InputError(
            f"{path} is of another state: {'; '.join(shown)}. Build the tree that was saved, or another file"
        )
    new = lambda path, leaf: from_file(contents.leaves[leaf_name(path)], leaf) if is_saved(leaf) else leaf
    return jax.tree_util.tree_map_with_path(new, like)


def read(path: str | Path) -> CheckpointContents:
    """Returns the content of a file, by path and without a tree to compare; raises InputError if it is damaged."""
    return parse(path, read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file; raises InputError for anything else, such as a pipe, which would never end."""
    path = Path(path)
    check_path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file; give the path of a checkpoint")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the path of a checkpoint") from error


def parse(path: str | Path, data: bytes) -> CheckpointContents:
    """The content of a file's bytes; raises InputError, which names the `path`, if they are damaged."""
    try:
        text, arrays = unpack(data)
        header = _header(text)
        arrays |= {name: _foreign(name, arrays.get(name), word) for name, word in header.dtypes.items()}
        if not header.keys.keys() <= arrays.keys():
            raise InputError("is damaged: its header names keys that are not there")
    except InputError as error:
        raise InputError(f"{path} {error}. {_DAMAGED}") from error
    leaves = {name: Leaf(array, header.keys.get(name)) for name, array in arrays.items()}
    return CheckpointContents(header.versions, leaves, header.about)


def _header(text: bytes) -> Header:
    try:
        header = msgspec.json.decode(text, type=Header)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise InputError(f"is damaged: its header is wrong, {error!s:.200}") from None
    if header.versions.get("format") != FORMAT:
        saved = header.versions.get("format")
        raise InputError(f"has format {saved!r:.40}, this diffsim reads {FORMAT}; use its own")
    if not versions().keys() <= header.versions.keys():
        raise InputError("is damaged: its header lacks the versions of diffsim, jax and optax")
    return header


def _foreign(name: str, array: np.ndarray | None, word: str) -> np.ndarray:
    """The array of a dtype that JAX adds to NumPy's, from its bits."""
    try:
        dtype = np.dtype(word)
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if array is None or dtype is None or dtype.isbuiltin != 2 or array.dtype != _bits(dtype):
        raise InputError(f"is damaged: its header gives {name:.80} the dtype {word!r:.80}")
    return array.view(dtype)


def _bits(dtype: np.dtype) -> np.dtype:
    """The unsigned integers of the size of another dtype."""
    return np.dtype(f"u{dtype.itemsize}")


def misfits(contents: CheckpointContents, like: PyTree) -> list[str]:
    """Why a file does not fit a tree, a phrase for each leaf: missing, unknown, or of another kind."""
    expected = named(like)
    wrong = [f"{path} is missing" for path in expected if path not in contents.leaves]
    wrong += [f"{path} is unknown" for path in contents.leaves if path not in expected]
    for path in [path for path in expected if path in contents.leaves]:
        kinds = zip(("shape", "dtype", "key"), kind(contents.leaves[path]), kind_of(expected[path]), strict=True)
        wrong += [f"{path} has {word} {saved}, expected {needed}" for word, saved, needed in kinds if saved != needed]
    return wrong


def versions() -> dict[str, int | str]:
    """The versions that decide whether a state means the same: of the format, of diffsim, jax and optax."""
    packages = {package: installed_version(package) or "unknown" for package in ("diffsim", "jax", "optax")}
    return {"format": FORMAT, **packages}
