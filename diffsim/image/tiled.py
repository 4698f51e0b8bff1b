"""Pictures larger than memory allows at once: tile by tile, equal to the whole."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .chain import Stage


@eqx.filter_jit
def _run(stage: Stage, tile: Array) -> Array:
    return stage(tile)


def in_tiles(
    stage: Stage, image: Float[np.ndarray, "*c h w"], *, size: int = 1024, halo: int = 24
) -> Float[np.ndarray, "c2 h w"]:
    """The picture of a chain or a stage, from squares of `size` pixels that see `halo` more on all sides.

    Equal to the whole where no pixel depends on others more than `halo` away. Every tile begins at a multiple of four
    pixels: with red, and where a network's quads of quads begin. All have one shape and compile once; one that would
    reach beyond the edge is moved inward, so that the picture's edge stays the tile's edge.
    """
    height, width = image.shape[-2:]
    if size % 4 or halo % 4 or size <= 0 or halo < 0:
        raise InputError(f"size={size}, halo={halo}: both must be multiples of four, and the size above 0")
    # As much larger as lets the last tile, too, begin at a multiple of four.
    rows, columns = (min(size + 2 * halo + (full - size) % 4, full) for full in (height, width))
    picture = None
    for y in range(0, height, size):
        for x in range(0, width, size):
            top, left = (
                min(max(a - halo, 0), full - part) for a, full, part in ((y, height, rows), (x, width, columns))
            )
            done = np.asarray(_run(stage, jnp.asarray(image[..., top : top + rows, left : left + columns])))
            if picture is None:
                picture = np.empty((*done.shape[:-2], height, width), done.dtype)
            place = np.s_[..., y : y + size, x : x + size]
            picture[place] = done[..., y - top : y - top + size, x - left : x - left + size]
    if picture is None:
        raise InputError(f"a picture of {height} x {width} pixels has no tiles")
    return picture
