"""A table of colours, as a look is stored in films and cameras."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._errors import InputError
from ..values import Pixels, check_floating


class LookupTable(eqx.Module):
    """A colour for each of n x n x n colours, interpolated linearly between them; colours beyond [0, 1] are cut.

    `table[r, g, b]` is the colour (3,) that takes the place of (r, g, b) / (n - 1).

    Args:
        table: the colours, those that change nothing by default.
        size: n of the default table, at least 2. Good values: 9 to 33.

    Raises:
        InputError: for a table of another shape.

    Examples:
        >>> unchanged = ds.image.LookupTable(size=5)
        >>> warm = ds.image.LookupTable(unchanged.table.at[..., 2].multiply(0.8))
        >>> print(warm(jnp.full((3, 2, 2), 0.5))[:, 0, 0].round(6))
        [0.5 0.5 0.4]
    """

    table: Float[Array, "n n n 3"]

    def __init__(self, table: Float[Pixels, "n n n 3"] | None = None, *, size: int = 17):
        if table is None:
            if size < 2:
                raise InputError(f"size={size}: a table has at least 2 colours along each axis")
            axis = np.linspace(0.0, 1.0, size)
            table = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
        if table.ndim != 4 or table.shape[3] != 3 or len(set(table.shape[:3])) != 1 or table.shape[0] < 2:
            raise InputError(f"a table of shape {table.shape}: give n x n x n colours of 3 values, n at least 2")
        self.table = jnp.asarray(table)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture in the colours of the table."""
        check_floating(picture)
        return _looked_up(self.table.astype(picture.dtype), picture)


@jax.checkpoint
def _looked_up(table, picture):
    last = table.shape[0] - 1
    places = jnp.clip(picture, 0.0, 1.0) * last
    low = jnp.clip(jnp.floor(places), 0, last - 1).astype(jnp.int32)
    shares = places - low
    total = jnp.zeros_like(picture)
    for corner in np.ndindex(2, 2, 2):
        weights = [share if bit else 1.0 - share for bit, share in zip(corner, shares, strict=True)]
        colors = table[tuple(low[c] + corner[c] for c in range(3))]
        total = total + (weights[0] * weights[1] * weights[2])[None] * jnp.moveaxis(colors, -1, 0)
    return total
