"""The leaves of a tree as plain arrays, and back: arrays, typed keys and numbers in files."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .._trees import is_key, path_name
from .npz import NUMBERS


class Leaf(NamedTuple):
    """A leaf in a file: its array, and the implementation if that array is the data of random keys."""

    value: np.ndarray
    key: str | None = None


def named(tree: PyTree) -> dict[str, Any]:
    """The arrays, keys and numbers of a tree by path, as in `policy.layers.0.weight`.

    Raises InputError if two leaves have the same path.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_saved(leaf):
            name = leaf_name(path)
            if name in leaves:
                raise InputError(f"two leaves are called {name}: give names that differ, without dots")
            leaves[name] = leaf
    return leaves


def leaf_name(path) -> str:
    """The path of a leaf in words; that of a tree that is one leaf is `value`."""
    return path_name(path) or "value"


def is_saved(leaf: Any) -> bool:
    """Whether a leaf is an array, a key, a number or a description of one; functions and words are not."""
    return eqx.is_array_like(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def to_file(name: str, leaf: Any) -> Leaf:
    """A leaf as it is written; raises InputError if it has no plain numbers."""
    if is_key(leaf):
        return Leaf(np.asarray(jr.key_data(leaf)), str(jr.key_impl(leaf)))
    array = np.asarray(leaf)
    if array.dtype.isbuiltin != 2 and array.dtype.kind not in NUMBERS:
        raise InputError(f"{name} has dtype {array.dtype}: only numbers of a fixed size can be saved")
    return Leaf(array)


def kind(leaf: Leaf) -> tuple:
    """The shape, dtype and kind of key of a leaf in a file."""
    return tuple(leaf.value.shape), leaf.value.dtype.name, leaf.key


def kind_of(leaf: Any) -> tuple:
    """The shape, dtype and kind of key that a leaf of a tree has in a file."""
    if is_key(leaf):
        kinds = []
        # Described keys have no implementation to ask for, traced ones do.
        data = jax.eval_shape(lambda key: (kinds.append(str(jr.key_impl(key))), jr.key_data(key))[1], leaf)
        return data.shape, data.dtype.name, kinds[0]
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(leaf.shape), leaf.dtype.name, None


def from_file(saved: Leaf, like: Any) -> Any:
    """A leaf of a file as an object of the type of `like`."""
    if is_key(like):
        return jr.wrap_key_data(jnp.asarray(saved.value), impl=saved.key)
    if isinstance(like, np.ndarray | np.generic):
        return saved.value if isinstance(like, np.ndarray) else saved.value[()]
    if isinstance(like, bool | int | float | complex):
        return saved.value.item()
    # An array of a weak type stays one, for promotions to come out as they did.
    weak = isinstance(like, jax.Array) and like.weak_type
    return like.at[...].set(saved.value) if weak else jnp.asarray(saved.value)
