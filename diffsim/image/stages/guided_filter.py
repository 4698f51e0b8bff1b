"""The guided filter: edge-preserving smoothing, block by block, with its adjoint by hand."""

from functools import cache, reduce
from operator import add

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._errors import InputError
from ..._jax.buffers import materialize
from ..._types import Scalar
from ...parameters import param
from ..ops.blockwise import by_blocks
from ..ops.box_filter import box_sums
from ..ops.luma import LUMA

GUIDES = {1: (1.0,), 3: LUMA}  # weights of the guide, by how many planes there are


class GuidedFilter(eqx.Module):
    """Smoothing that preserves the edges of a guide: around every pixel each plane is a linear function of the guide.

    The guide of three colours is their luma, that of one plane the plane itself. `smoothing` is the variance of the
    guide below which structure counts as noise; good values are 1e-5 to 1e-2. `radius` is half the width of the windows
    in pixels. Source: He, Sun, Tang, "Guided image filtering" (2013).

    Examples:
        >>> edge = jnp.broadcast_to(jnp.arange(32) // 16, (3, 32, 32)).astype(float)
        >>> noisy = edge + 0.01 * jr.normal(jr.key(0), edge.shape)
        >>> smooth = ds.image.GuidedFilter(smoothing=1e-3)(noisy)
        >>> bool(jnp.std(smooth - edge) < 0.7 * jnp.std(noisy - edge)), bool(smooth[0, 0, 16] - smooth[0, 0, 15] > 0.9)
        (True, True)
    """

    smoothing: Scalar = param(1e-3, bounds=(1e-7, 1.0))
    radius: int = eqx.field(static=True, default=4)

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """Returns the smoothed picture.

        Raises:
            InputError: unless the picture has one plane or three, of floating-point numbers.
        """
        if picture.shape[0] not in GUIDES:
            raise InputError(f"a picture of {picture.shape[0]} planes has no guide: give one plane or three colours")
        return _guided(self.radius)(self.smoothing, picture)


@cache
def _guided(radius: int):
    halo = 2 * radius
    inner = lambda x: x[..., halo:-halo, halo:-halo]

    def guided(smoothing, picture, place):
        guide, _, (averages, level, _, slopes) = _lines(smoothing, picture, place, radius)
        offsets = materialize(averages - level * slopes)
        return (box_sums(slopes, radius) * inner(guide) + box_sums(offsets, radius)) * _shares(place, radius, halo)

    def adjoint(smoothing, picture, cotangent, place):
        guide, near, (averages, level, share, slopes) = _lines(smoothing, picture, place, radius)
        shared = materialize(cotangent * _shares(place, radius, 0))
        to_offsets = materialize(box_sums(shared, radius))
        to_products = materialize((box_sums(guide * shared, radius) - level * to_offsets) * share)
        to_variance = materialize(-_dot(to_products, slopes))
        to_level = materialize(-_dot(to_offsets, slopes) - _dot(to_products, averages) - 2.0 * level * to_variance)
        weights = jnp.array(GUIDES[len(picture)], picture.dtype)[:, None, None]
        direct = box_sums(materialize((to_offsets - level * to_products + weights * to_level) * near), radius)
        by_guide = materialize(box_sums(materialize((to_products + weights * to_variance) * near), radius))
        share_here = _shares(place, radius, halo)
        to_guide = materialize(
            _dot(inner(cotangent), box_sums(slopes, radius)) * share_here + _dot(inner(picture), by_guide)
        )
        to_picture = direct + inner(guide) * by_guide + weights * to_guide
        return to_variance[0, radius:-radius, radius:-radius], to_picture

    return by_blocks(guided, adjoint, halo)


def _lines(smoothing, picture, place, radius: int):
    """The guide, one over the pixels in every window, and the linear functions of the guide that fit the planes."""
    near = materialize(_shares(place, radius, radius))
    guide = materialize(_guide(picture))
    averages, products = (
        materialize(box_sums(picture, radius) * near),
        materialize(box_sums(guide * picture, radius) * near),
    )
    level = materialize(_guide(averages))
    share = materialize(1.0 / (_guide(products) - level * level + smoothing))
    return guide, near, (averages, level, share, materialize((products - level * averages) * share))


def _shares(place, radius: int, within: int):
    """One over the number of pixels in the window around every one, and 0 beyond the picture's edge: (1, h, w).

    Of all places of the block but `within` at each side.
    """
    lines = []
    for at, size in zip((place.rows, place.columns), place.size, strict=True):
        at = at[within : at.size - within]
        count = jnp.minimum(at + radius, size - 1) - jnp.maximum(at - radius, 0) + 1
        lines.append(materialize(jnp.where((at >= 0) & (at < size), 1.0 / jnp.maximum(count, 1), 0.0)))
    down, across = lines
    return (down[:, None] * across[None])[None]


def _guide(planes):
    """The guide of planes: their weighted sum, (1, h, w)."""
    return reduce(add, [weight * planes[i] for i, weight in enumerate(GUIDES[len(planes)])])[None]


def _dot(picture, other):
    """The sum over the planes of the products: (1, h, w)."""
    return reduce(add, [picture[i] * other[i] for i in range(len(picture))])[None]
