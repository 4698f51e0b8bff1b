"""Data that are not finite: where they are, for a message that names them."""

import jax
import numpy as np
from jaxtyping import PyTree

from .._jax.tracers import is_tracer
from .._trees import is_real_array


def non_finite_in(data: PyTree, name: str) -> list[str]:
    """A phrase for each real array of `data` with numbers that are not finite: its path and the first such row.

    Args:
        data: A tree of arrays; leaves that are traced are passed over.
        name: What the data are called, as in `data['seen'] holds NaN in row 3 (8 of 20 numbers)`.
    """
    phrases = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if not is_real_array(leaf) or is_tracer(leaf):
            continue
        values = np.asarray(leaf)
        bad = ~np.isfinite(values)
        if bad.any():
            kind = "NaN" if np.isnan(values[bad]).any() else "infinity"
            row = f" in row {np.argwhere(bad)[0, 0]}" if values.ndim else ""
            count = f" ({bad.sum()} of {values.size} numbers)" if values.size > 1 else ""
            phrases.append(f"{name}{jax.tree_util.keystr(path)} holds {kind}{row}{count}")
    return phrases
