"""The entries and directions in which a gradient is tried."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..autodiff.sweep import natural_size

ALL_ENTRIES = -1
"""The entry of a probe that moves all entries of its leaf at once."""


class Probes(NamedTuple):
    """Directions in which a function is differentiated, each within one leaf of its inputs.

    Attributes:
        leaf: The number of each probe's leaf.
        entry: The number of the entry that each probe moves, or ALL_ENTRIES.
        weights: For each leaf, the change of its entries for a step of 1: plus or minus their natural sizes.
    """

    leaf: np.ndarray
    entry: np.ndarray
    weights: list[np.ndarray]

    def of_leaf(self, number: int) -> "Probes":
        """The probes of one leaf."""
        chosen = self.leaf == number
        return Probes(self.leaf[chosen], self.entry[chosen], self.weights)

    def units(self) -> np.ndarray:
        """The numbers by which slopes along the probes are divided: 1 for a probe of all entries.

        For a probe of one entry the quotient is the partial derivative.
        """
        pairs = zip(self.leaf, self.entry, strict=True)
        return np.array([1.0 if k == ALL_ENTRIES else float(self.weights[j].flat[k]) for j, k in pairs])


def choose_probes(leaves: list[Array], max_entries: int, seed: int, gradient: list[np.ndarray] | None = None) -> Probes:
    """Up to `max_entries` random entries of every leaf, and one random direction over all entries if it has several.

    The direction moves every entry up or down by its own natural size. The first entry that is not finite, in the leaf
    or in the `gradient`, and the first whose gradient is zero are added to the random ones.
    """
    random = np.random.default_rng(seed)
    leaf, entry, weights = [], [], []
    for number, array in enumerate(leaves):
        entries = random.choice(array.size, min(array.size, max_entries), replace=False)
        slopes = np.ones(array.shape) if gradient is None else gradient[number]
        for suspicious in (~np.isfinite(array), ~np.isfinite(slopes), slopes == 0):
            entries = np.append(entries, np.flatnonzero(suspicious)[:1])
        entries = np.append(np.unique(entries), [ALL_ENTRIES] if array.size > 1 else []).astype(int)
        leaf.append(np.full(len(entries), number))
        entry.append(entries)
        signs = random.choice([-1.0, 1.0], array.shape)
        weights.append(np.asarray(signs * natural_size(array), array.dtype))
    return Probes(np.concatenate(leaf), np.concatenate(entry), weights)


def tangent(weights: list[Array], leaf: Any, entry: Any) -> list[Array]:
    """The change of all leaves for a step of 1 along one probe; works under `jit`."""
    changes = []
    for number, weight in enumerate(weights):
        chosen = (jnp.arange(weight.size) == entry).reshape(weight.shape) | (entry == ALL_ENTRIES)
        changes.append(jnp.where(chosen & (leaf == number), weight, 0))
    return changes
