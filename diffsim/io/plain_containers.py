"""Trees of any classes as trees of lists, tuples and dictionaries, which a process without those classes can read."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree


def as_plain(tree: PyTree) -> PyTree:
    """Returns a tree with its named tuples, modules and other nodes as dictionaries by the names of their fields."""
    if type(tree) in (list, tuple):
        return type(tree)(map(as_plain, tree))
    children = _children(tree)
    if children is None:
        return tree
    names = [_name(path[0]) for path, _ in children]
    plain = [as_plain(child) for _, child in children]
    return dict(zip(names, plain, strict=True)) if all(isinstance(name, str) for name in names) else plain


def rebuild(plain: Sequence[PyTree], like: PyTree) -> PyTree:
    """Returns the tree whose plain form is given; it has the structure of `like`.

    A dictionary's leaves are in the order of its names, and those of other nodes in that of their fields.
    """
    tree = jax.tree.structure(like)
    numbered = jax.tree.unflatten(tree, range(tree.num_leaves))
    order = jax.tree.leaves(as_plain(numbered))
    leaves = dict(zip(order, jax.tree.leaves(plain), strict=True))
    return jax.tree.unflatten(tree, [leaves[number] for number in range(tree.num_leaves)])


def _children(node: Any) -> list[tuple[Any, Any]] | None:
    """The children of a node with their keys; None for a leaf and for None."""
    children = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is not node)
    is_leaf = len(children) == 1 and not children[0][0]
    return None if node is None or is_leaf else children


def _name(key: Any) -> Any:
    """The name or the number of a child."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return None
