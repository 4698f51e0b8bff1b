"""Stages that look at a pixel's surroundings: guided filter, unsharp mask."""

from functools import cache

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar
from ..parameters import param
from .blocks import by_blocks
from .box import held, sums
from .colour import LUMA, luma


class GuidedFilter(eqx.Module):
    """Smoothing that keeps the edges of the luma: around every pixel, each colour as a straight line of the luma.

    `smoothing` is the variance of the luma below which structure is taken for noise. Source: He, Sun, Tang, "Guided
    image filtering" (2013). Good values: 1e-5 to 1e-2.
    """

    smoothing: Scalar = param(1e-3, bounds=(1e-7, 1.0))
    radius: int = eqx.field(static=True, default=4)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The smoothed picture."""
        return _guided(self.radius)(self.smoothing, picture)


@cache
def _guided(radius: int):
    halo = 2 * radius
    inner = lambda x: x[..., halo:-halo, halo:-halo]

    def guided(smoothing, picture, place):
        guide, _, (averages, level, _, slopes) = _lines(smoothing, picture, place, radius)
        offsets = held(averages - level * slopes)
        return (sums(slopes, radius) * inner(guide) + sums(offsets, radius)) * _shares(place, radius, halo)

    def adjoint(smoothing, picture, cotangent, place):
        guide, near, (averages, level, share, slopes) = _lines(smoothing, picture, place, radius)
        bars = held(cotangent * _shares(place, radius, 0))
        to_offsets = sums(bars, radius)
        to_products = held((sums(held(guide * bars), radius) - level * to_offsets) * share)
        to_variance = held(-_dot(to_products, slopes))
        to_level = held(-_dot(to_offsets, slopes) - _dot(to_products, averages) - 2.0 * level * to_variance)
        weights = jnp.array(LUMA, picture.dtype)[:, None, None]
        straight = sums(held((to_offsets - level * to_products + weights * to_level) * near), radius)
        by_guide = sums(held((to_products + weights * to_variance) * near), radius)
        own = _shares(place, radius, halo)
        to_guide = held(_dot(inner(cotangent), sums(slopes, radius)) * own + _dot(inner(picture), by_guide))
        found = straight + inner(guide) * by_guide + weights * to_guide
        return to_variance[0, radius:-radius, radius:-radius], found

    return by_blocks(guided, adjoint, halo)


def _lines(smoothing, picture, place, radius: int):
    """The guide, one over the pixels in every window, and the lines of the guide that the colours are there."""
    near = held(_shares(place, radius, radius))
    guide = held(luma(picture)[None])
    averages, products = held(sums(picture, radius) * near), held(sums(held(guide * picture), radius) * near)
    level = held(luma(averages)[None])
    share = held(1.0 / (luma(products)[None] - level * level + smoothing))
    return guide, near, (averages, level, share, held((products - level * averages) * share))


def _shares(place, radius: int, within: int):
    """One over the number of pixels in the window around every one, and 0 beyond the picture's edge: (1, h, w).

    Of the block's places all but `within` at each side.
    """
    lines = []
    for at, size in zip((place.rows, place.columns), place.size, strict=True):
        at = at[within : at.size - within]
        count = jnp.minimum(at + radius, size - 1) - jnp.maximum(at - radius, 0) + 1
        lines.append(held(jnp.where((at >= 0) & (at < size), 1.0 / jnp.maximum(count, 1), 0.0)))
    down, across = lines
    return (down[:, None] * across[None])[None]


def _dot(picture, other):
    """The sum over the colours of the products."""
    return (picture[0] * other[0] + picture[1] * other[1] + picture[2] * other[2])[None]
