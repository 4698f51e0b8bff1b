"""A picture at any places, with an adjoint by hand.

Automatic differentiation would add up each of the pixels that a place reads on its own, and read the picture several
times for the derivatives of the weights. The adjoint adds whole windows of pixels, and takes the derivatives with
respect to row and column forward.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax import lax

from ..._jax.custom_adjoint import with_adjoint
from ..values import check_floating

STRIP = 32  # rows of places whose windows are in memory at once


def _linear(share):
    return [1.0 - share, share]


def _cubic(share):
    """The weights of the pixels before, at and behind a place that lies by `share` behind the second of them."""
    s, r = share, 1.0 - share
    return [-0.5 * s * r * r, 1.0 - s * s * (2.5 - 1.5 * s), 1.0 - r * r * (2.5 - 1.5 * r), -0.5 * r * s * s]


def _lanczos(share):
    """The weights of the three pixels on each side of a place: a sinc windowed by a wider one, scaled to sum to 1."""
    values = [jnp.sinc(share - k) * jnp.sinc((share - k) / 3.0) for k in range(-2, 4)]
    total = sum(values)
    return [value / total for value in values]


TAPS: dict[str, tuple[int, Callable]] = {"linear": (0, _linear), "cubic": (-1, _cubic), "lanczos": (-2, _lanczos)}
"""For each method the first pixel that it reads, from that before the place, and its weights."""


@cache
def resampling(method: str):
    """Returns `resample(places, picture)`: the values (c, h2, w2) of a picture (c, h, w) at places (2, h2, w2).

    Beyond the edge, the outermost pixels are repeated. Places that are not finite give NaN, without derivatives.
    """
    first, weights = TAPS[method]

    def windows(places, height: int, width: int):
        """The row and column before each place, within the picture, and the weights of the rows and columns read."""
        # Places beyond the edge do not move their pixel.
        inside = [jnp.clip(x, 0.0, n - 1.0) for x, n in zip(places, (height, width), strict=True)]
        cells = (jnp.floor(lax.stop_gradient(x)) for x in inside)
        low = [jnp.clip(x, 0, max(n - 2, 0)) for x, n in zip(cells, (height, width), strict=True)]
        return [i.astype(jnp.int32) for i in low], [weights(x - i) for x, i in zip(inside, low, strict=True)]

    def resample(places, picture):
        channels, height, width = picture.shape
        flat = picture.reshape(channels, -1)
        low, (rows, columns) = windows(places, height, width)
        total = jnp.zeros((channels, *places.shape[1:]), picture.dtype)
        for i, row_weight in enumerate(rows):
            row = jnp.clip(low[0] + first + i, 0, height - 1) * width
            along = jnp.zeros_like(total)
            for j, weight in enumerate(columns):
                along = along + weight[None] * flat[:, row + jnp.clip(low[1] + first + j, 0, width - 1)]
            total = total + row_weight[None] * along
        return jnp.where(_is_finite(places)[None], total, jnp.nan)

    def to_picture(places, picture, cotangent):
        size, (channels, height, width) = len(weights(jnp.zeros(()))), picture.shape
        edges = (-first, size - 1 + first)
        wider = lambda picture: jnp.pad(picture.transpose(1, 2, 0), (edges, edges, (0, 0)), mode="edge")
        layout = lax.ScatterDimensionNumbers((2, 3, 4), (), (0, 1))

        def strip(total, both):
            places, cotangent = both
            low, shares = windows(places, height, width)
            rows, columns = (jnp.stack(x, axis=-1) for x in shares)
            each = cotangent.transpose(1, 2, 0)[:, :, None, None] * columns[:, :, None, :, None]
            updates = rows[..., None, None] * each
            return lax.scatter_add(total, jnp.stack(low, axis=-1), updates, layout, mode="promise_in_bounds"), None

        finite = _is_finite(places)[None]
        planes = (jnp.where(finite, x, 0.0) for x in (places, cotangent))
        in_strips = lambda x: jnp.pad(x, ((0, 0), (0, -x.shape[1] % STRIP), (0, 0))).reshape(
            len(x), -1, STRIP, x.shape[2]
        )
        start = jnp.zeros((height + size - 1, width + size - 1, channels), picture.dtype)
        total = lax.scan(strip, start, tuple(in_strips(x).swapaxes(0, 1) for x in planes))[0]
        return jax.linear_transpose(wider, picture)(total)[0]

    def adjoint(places, picture, cotangent):
        along = jnp.eye(2, dtype=places.dtype)[:, :, None, None] * jnp.ones_like(places)[None]
        slope = lambda tangent: jax.jvp(lambda places: resample(places, picture), (places,), (tangent,))[1]
        to_places = jnp.stack([jnp.sum(cotangent * slope(direction), axis=0) for direction in along])
        return to_places, to_picture(places, picture, cotangent)

    return with_adjoint(resample, adjoint, check_floating)


def _is_finite(places):
    return jnp.all(jnp.isfinite(places), axis=0)
