"""Stages that look at a pixel's surroundings: guided filter, unsharp mask."""

from functools import cache

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar
from ..parameters import param
from .box import counted, held, sums
from .colour import LUMA, luma
from .stencil import stencil
from .strips import in_strips


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
    def guided(smoothing, picture):
        guide, lines, _ = _lines(smoothing, picture, radius)
        mean = _mean(picture, radius)
        return jnp.stack([mean(slope) * guide + mean(offset) for slope, offset in lines])

    def adjoint(smoothing, picture, cotangent):
        guide, lines, (averages, level, share) = _lines(smoothing, picture, radius)
        mean, spread = _mean(picture, radius), _mean_adjoint(picture, radius)
        bars = [held(bar) for bar in cotangent]
        to_offsets = [spread(bar) for bar in bars]
        to_products = [
            held((spread(guide * bar) - to_offset * level) * share)
            for bar, to_offset in zip(bars, to_offsets, strict=True)
        ]
        slopes = [slope for slope, _ in lines]
        to_variance = held(-_dot(to_products, slopes))
        to_level = held(-_dot(to_offsets, slopes) - _dot(to_products, averages) - 2.0 * level * to_variance)
        made = []
        for weight, to_offset, to_product in zip(LUMA, to_offsets, to_products, strict=True):
            through_average = spread(to_offset - to_product * level + weight * to_level)
            made.append((through_average, spread(to_product + weight * to_variance)))
        to_guide = held(_dot(bars, [mean(slope) for slope in slopes]) + _dot(picture, [product for _, product in made]))
        found = [a + guide * b + weight * to_guide for weight, (a, b) in zip(LUMA, made, strict=True)]
        return to_variance, jnp.stack(found)

    return in_strips(guided, adjoint, 2 * radius)


def _lines(smoothing, picture, radius: int):
    """The guide, every colour's slope and offset at every pixel, and what they came from.

    Colour by colour, so that nothing is spread over the colours, and in the adjoint summed over them.
    """
    mean = _mean(picture, radius)
    colours = [held(colour) for colour in picture]
    guide = held(luma(colours))
    averages, products = [mean(x) for x in colours], [mean(guide * x) for x in colours]
    level = held(luma(averages))
    share = held(1.0 / (luma(products) - level * level + smoothing))
    slopes = [held((product - level * x) * share) for x, product in zip(averages, products, strict=True)]
    lines = [(slope, held(x - slope * level)) for x, slope in zip(averages, slopes, strict=True)]
    return guide, lines, (averages, level, share)


def _mean(picture, radius: int):
    """The local mean of planes of this size."""
    down, across = ((1.0 / counted(size, radius)).astype(picture.dtype) for size in picture.shape[1:])
    return lambda x: held(sums(held(x), radius) * down[:, None] * across[None])


def _mean_adjoint(picture, radius: int):
    down, across = ((1.0 / counted(size, radius)).astype(picture.dtype) for size in picture.shape[1:])
    return lambda x: sums(held(x * down[:, None] * across[None]), radius)


def _dot(planes, others):
    """The sum over the colours of the products of planes."""
    return sum(a * b for a, b in zip(planes, others, strict=True))


class Sharpen(eqx.Module):
    """Unsharp mask: to every colour is added `amount` times what a Gaussian blur takes from the luma."""

    amount: Scalar = param(0.0, bounds=(-2.0, 4.0))
    width: Scalar = param(1.0, "px", bounds=(0.3, 3.0))
    radius: int = eqx.field(static=True, default=4)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The sharpened picture."""
        grey = luma(picture)[None]
        at = jnp.arange(-self.radius, self.radius + 1, dtype=picture.dtype)
        window = jnp.exp(-0.5 * (at / self.width) ** 2)
        window = window / jnp.sum(window)
        blurred = stencil(stencil(grey, window[None, None, :, None]), window[None, None, None])
        return picture + self.amount * (grey - blurred)
