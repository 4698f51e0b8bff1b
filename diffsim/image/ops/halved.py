"""Pictures at half their size."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..values import Pixels


def halved(picture: Float[Pixels, "c h w"]) -> Float[Array, "c h2 w2"]:
    """Returns the picture at half its size, by means of four; the last row or column of an odd size is left out."""
    rows, columns = picture.shape[1] // 2, picture.shape[2] // 2
    cut = jnp.asarray(picture)[:, : 2 * rows, : 2 * columns]
    return cut.reshape(-1, rows, 2, columns, 2).mean(axis=(2, 4))
