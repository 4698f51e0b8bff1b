"""The values of a function at many step sizes along lines through a point."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import ArrayLike

CHUNK = 512
"""Points evaluated in one compiled call."""


class Sweep(NamedTuple):
    """Values of a function on a line through a point.

    Attributes:
        steps: The step sizes.
        centre: The values at the point.
        ahead: The values after each step, with a leading axis of steps.
        behind: The values after each step in the other direction.
    """

    steps: np.ndarray
    centre: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray


def step_sizes(*dtypes: Any) -> np.ndarray:
    """The step sizes of a sweep, relative to an entry's natural size: powers of two from 1/2 down.

    The last is a little below eps^(1/3) of that number format of the `dtypes` that has the fewest digits, where a plain
    central difference is at its best. The larger steps serve extrapolation. With powers of two `x + h` is exact, or
    exact but for one bit.
    """
    digits = min(int(jnp.finfo(dtype).nmant) for dtype in dtypes)
    return 2.0 ** -np.arange(1, digits // 3 + 4)


def natural_size(x: ArrayLike) -> np.ndarray | np.floating:
    """For every entry of an array, the largest power of two up to its magnitude.

    An entry below a thousandth of the array's root mean square counts as zero and has the size of the latter. In an
    array of zeros all have size 1.
    """
    magnitude = np.abs(np.asarray(x, np.float64))
    typical = np.sqrt(np.mean(magnitude**2)) if magnitude.size else 0.0
    size = np.where(magnitude > 1e-3 * typical, magnitude, typical if typical > 0 else 1.0)
    return 2.0 ** np.floor(np.log2(np.where(np.isfinite(size), size, 1.0)))


def batched(
    function: Callable[..., Any],
    shared: Any,
    columns: Sequence[Any],
    *,
    jit: bool = True,
    chunk: int = CHUNK,
) -> np.ndarray:
    """`function(shared, *row)` for every row of the columns, stacked.

    With `jit`, the function is compiled once for `chunk` rows and called as often as needed. Without, it is called from
    Python for each row, and need not be traceable.
    """
    columns = [np.asarray(column) for column in columns]
    count = len(columns[0])
    if not jit:
        return np.stack([np.asarray(function(shared, *row)) for row in zip(*columns, strict=True)])
    chunk = min(chunk, count)
    rows = np.minimum(np.arange(-(-count // chunk) * chunk), count - 1).reshape(-1, chunk)
    # On a CPU one row after another is faster, and compiles faster, than a batch of all of them.
    batch_size = None if jax.default_backend() == "cpu" else chunk
    compiled = jax.jit(lambda shared, *rows: lax.map(lambda row: function(shared, *row), rows, batch_size=batch_size))
    parts = [np.asarray(compiled(shared, *(column[row] for column in columns))) for row in rows]
    return np.concatenate(parts)[:count]


def sweep(
    line: Callable[..., Any],
    shared: Any,
    columns: Sequence[Any],
    steps: np.ndarray,
    *,
    jit: bool = True,
    chunk: int = CHUNK,
) -> Sweep:
    """The values of `line(shared, step, *row)` for every row of the columns, at step 0 and at plus and minus `steps`.

    The axes of the result are the step (not in `centre`), the row, and those of the function's output. Without columns
    there is a single row.
    """
    offsets = np.concatenate([[0.0], steps, -steps])
    count = len(columns[0]) if columns else 1
    step_column = np.repeat(offsets, count)
    points = [step_column, *(np.concatenate([np.asarray(c)] * len(offsets)) for c in columns)]
    values = batched(line, shared, points, jit=jit, chunk=chunk)
    values = values.reshape(len(offsets), count, *values.shape[1:])
    return Sweep(steps, values[0], values[1 : len(steps) + 1], values[len(steps) + 1 :])
