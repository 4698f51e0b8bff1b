"""Stages that look at a pixel's surroundings: guided filter, unsharp mask."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar
from ..parameters import param
from .colour import luma
from .stencil import box, stencil


class GuidedFilter(eqx.Module):
    """Smoothing that keeps the edges of the luma: around every pixel, each colour as a straight line of the luma.

    `smoothing` is the variance of the luma below which structure is taken for noise. Source: He, Sun, Tang, "Guided
    image filtering" (2013). Good values: 1e-5 to 1e-2.
    """

    smoothing: Scalar = param(1e-3, bounds=(1e-7, 1.0))
    radius: int = eqx.field(static=True, default=4)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The smoothed picture."""
        guide = luma(picture)[None]
        means = box(jnp.concatenate([guide, guide * guide, picture, guide * picture]), self.radius)
        mean, second, colours, products = means[:1], means[1:2], means[2:5], means[5:]
        slope = (products - mean * colours) / (second - mean * mean + self.smoothing)
        lines = box(jnp.concatenate([slope, colours - slope * mean]), self.radius)
        return lines[:3] * guide + lines[3:]


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
