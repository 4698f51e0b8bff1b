"""Pictures too large for memory, computed tile by tile."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .chain import Stage
from .values import Pixels


@eqx.filter_jit
def _run(stage: Stage, tile: Array) -> Array:
    return stage(tile)


def in_tiles(
    stage: Stage,
    image: Float[Pixels, "*c h w"],
    *,
    size: int = 1024,
    halo: int = 24,
    progress: Callable[[float], None] | None = None,
) -> Float[np.ndarray, "c2 h w"]:
    """Returns `stage(image)`, computed tile by tile: the same if no pixel depends on others more than `halo` away.

    Every tile begins at a multiple of four pixels: on red, and where the quads of quads of a network begin. All have
    one shape and compile once; a tile that would reach beyond the edge is moved inward, so that edges of the picture
    are edges of a tile.

    Args:
        stage: a chain or a stage.
        image: a picture or a mosaic.
        size: of a tile, in pixels, a multiple of four.
        halo: pixels that a tile sees beyond its own on all sides, a multiple of four.
        progress: called after every tile, with the share of the picture that is done.

    Raises:
        InputError: for another size or halo, and for an empty picture.

    Examples:
        >>> raw = jr.uniform(jr.key(0), (64, 48))
        >>> picture = ds.image.in_tiles(ds.image.malvar, raw, size=16, halo=4)
        >>> picture.shape, bool(np.allclose(picture, ds.image.malvar(raw)))
        ((3, 64, 48), True)
    """
    height, width = image.shape[-2:]
    if size % 4 or halo % 4 or size <= 0 or halo < 0:
        raise InputError(f"size={size}, halo={halo}: both must be multiples of four, and the size above 0")
    # Larger by as much as makes the last tile begin at a multiple of four, too.
    rows, columns = (min(size + 2 * halo + (full - size) % 4, full) for full in (height, width))
    picture, done, tiles = None, 0, -(-height // size) * -(-width // size)
    for y in range(0, height, size):
        for x in range(0, width, size):
            top, left = (
                min(max(a - halo, 0), full - part) for a, full, part in ((y, height, rows), (x, width, columns))
            )
            tile = np.asarray(_run(stage, jnp.asarray(image[..., top : top + rows, left : left + columns])))
            if picture is None:
                picture = np.empty((*tile.shape[:-2], height, width), tile.dtype)
            place = np.s_[..., y : y + size, x : x + size]
            picture[place] = tile[..., y - top : y - top + size, x - left : x - left + size]
            done += 1
            if progress is not None:
                progress(done / tiles)
    if picture is None:
        raise InputError(f"a picture of {height} x {width} pixels has no tiles")
    return picture
