"""Stages that look at a pixel's surroundings: guided filter, unsharp mask."""

from functools import cache

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar
from ..parameters import param
from .box import counted, fill, held, window
from .colour import luma
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
    def guided(smoothing, rows, inside):
        near, far = rows.shape[1] - 2 * radius, rows.shape[1] - 4 * radius
        middle = inside[radius:-radius]
        mean = _means(inside, radius, near, rows.shape[2])
        # Colour by colour, so that nothing is spread over the colours, and in the adjoint summed over them; what is
        # used more than once is held, or the compiler would compute it again for each use.
        colours = [held(colour) for colour in rows]
        guide = held(luma(colours))
        averages, products = [mean(x) for x in colours], [mean(guide * x) for x in colours]
        level = held(luma(averages))
        share = held(middle[:, None] / (luma(products) - level * level + smoothing))
        mean = _means(middle, radius, far, rows.shape[2])
        shown = guide[2 * radius : -2 * radius]
        made = []
        for average, product in zip(averages, products, strict=True):
            slope = held((product - level * average) * share)
            made.append(mean(slope) * shown + mean(average * middle[:, None] - slope * level))
        return jnp.stack(made)

    return in_strips(guided, 2 * radius)


def _means(inside, radius: int, rows: int, width: int):
    """The local mean of a plane, fewer by `radius` rows above and below, over what is inside the picture."""
    size = 2 * radius + 1
    down = 1.0 / jnp.maximum(sum(inside[i : i + rows] for i in range(size)), 1.0)
    across = (1.0 / counted(width, radius)).astype(inside.dtype)
    return lambda x: window(fill(window(x, size, -2), radius, radius, -1), size, -1) * (down[:, None] * across[None])


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
