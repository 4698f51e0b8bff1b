"""What of a function's inputs has a gradient, and the entries and directions in which it is tried."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import InputError
from ..autodiff.ridders import natural_size

WHOLE = -1
"""The entry of a probe that moves all entries of its leaf at once."""


class Inputs(NamedTuple):
    """The floating-point leaves of the arguments with their names, and the function of those leaves alone."""

    names: list[str]
    leaves: list[Array]
    call: Callable[[list[Array]], Array]


class Probes(NamedTuple):
    """Directions to try: `leaf` and `entry` have one number per probe.

    `weights` has per leaf the change of every entry for a step of 1: plus or minus its natural size.
    """

    leaf: np.ndarray
    entry: np.ndarray
    weights: list[np.ndarray]

    def of(self, number: int) -> "Probes":
        """Returns the probes of one leaf."""
        mine = self.leaf == number
        return Probes(self.leaf[mine], self.entry[mine], self.weights)

    def unit(self) -> np.ndarray:
        """Returns what turns a slope along each probe into a partial derivative when divided by; else 1."""
        pairs = zip(self.leaf, self.entry, strict=True)
        return np.array([1.0 if k == WHOLE else float(self.weights[j].flat[k]) for j, k in pairs])


def split(f: Callable[..., Any], args: tuple[Any, ...]) -> Inputs:
    """Returns the differentiable inputs of `f(*args)`; static values, keys and counters stay as they are.

    Raises InputError for an integer array as an argument of its own, for complex arrays, and where nothing is
    left to differentiate.
    """
    if not isinstance(args, tuple):
        raise InputError(f"args is a {type(args).__name__}: pass a tuple of arguments, (x,) for a single one")
    for number, arg in enumerate(args):
        if eqx.is_array(arg) and jnp.issubdtype(arg.dtype, jnp.integer):
            raise InputError(
                f"args[{number}] is {arg.dtype}{list(arg.shape)}: pass floating-point numbers to "
                "differentiate by, or close over it where it is data"
            )
    args = floats_as_arrays(args)
    moving, rest = eqx.partition(args, lambda leaf: eqx.is_inexact_array(leaf) and leaf.size > 0)
    paths, structure = jax.tree_util.tree_flatten_with_path(moving)
    names = [_name(path, single=len(args) == 1) for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    for name, leaf in zip(names, leaves, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"{name} is {leaf.dtype}: pass its real and imaginary parts as two arrays")
    if not leaves:
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in jax.tree.leaves(args)})) or "nothing"
        raise InputError(f"args has no floating-point numbers (found {kinds}): pass parameters such as 1.5 or an array")
    return Inputs(names, leaves, lambda x: f(*eqx.combine(jax.tree.unflatten(structure, x), rest)))


def floats_as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the arguments with floats as arrays: each that is an argument, all of them if there are no arrays."""
    convert = lambda x: jnp.asarray(x) if isinstance(x, float) else x
    args = tuple(convert(arg) for arg in args)
    return args if any(map(eqx.is_inexact_array, jax.tree.leaves(args))) else jax.tree.map(convert, args)


def _name(path: tuple[Any, ...], *, single: bool) -> str:
    inner = jax.tree_util.keystr(path[1:], simple=True, separator=".")
    if single and inner:
        return inner
    return f"args[{path[0].idx}]" + (f".{inner}" if inner else "")


def choose(leaves: list[Array], most: int, seed: int, gradient: list[np.ndarray] | None = None) -> Probes:
    """Returns for every leaf up to `most` random entries, and a random direction where it has several.

    The direction moves every entry up or down by its own natural size. Always among those tried are the first
    entry that is not finite, in the leaf or in the `gradient`, and the first whose gradient is zero.
    """
    random = np.random.default_rng(seed)
    leaf, entry, weights = [], [], []
    for number, array in enumerate(leaves):
        entries = random.choice(array.size, min(array.size, most), replace=False)
        slopes = np.ones(array.shape) if gradient is None else gradient[number]
        for suspect in (~np.isfinite(array), ~np.isfinite(slopes), slopes == 0):
            entries = np.append(entries, np.flatnonzero(suspect)[:1])
        entries = np.append(np.unique(entries), [WHOLE] if array.size > 1 else []).astype(int)
        leaf.append(np.full(len(entries), number))
        entry.append(entries)
        signs = random.choice([-1.0, 1.0], array.shape)
        weights.append(np.asarray(signs * natural_size(array), array.dtype))
    return Probes(np.concatenate(leaf), np.concatenate(entry), weights)


def tangent(weights: list[Array], leaf: Any, entry: Any) -> list[Array]:
    """Returns the change of all leaves for a step of 1 along one probe; traceable."""
    moved = []
    for number, weight in enumerate(weights):
        mine = (jnp.arange(weight.size) == entry).reshape(weight.shape) | (entry == WHOLE)
        moved.append(jnp.where(mine & (leaf == number), weight, 0))
    return moved
