"""The entries and directions in which a gradient is tried."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..autodiff.ridders import natural_size

WHOLE = -1
"""The entry of a probe that moves all entries of its leaf at once."""


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
