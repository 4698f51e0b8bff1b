"""Gamma: from linear light to display values."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..ops.pointwise import by_strips


class Gamma(eqx.Module):
    """Linear light to display values: (1 + a) x^(1/exponent) - a above the toe, straight below it and below 0.

    `a` makes value and slope continuous at the toe. The defaults give a = 0.055 and a slope of 12.9232: within 1e-5 the
    curve of sRGB (IEC 61966-2-1), whose own toe, 0.0031308 with a slope of 12.92, has a small corner.

    Examples:
        >>> print(f"{ds.image.Gamma()(jnp.full((3, 2, 2), 0.18)).max():.3f}")  # 1.055 0.18^(1 / 2.4) - 0.055
        0.461
    """

    exponent: Scalar = param(2.4, bounds=(1.0, 4.0))
    toe: Scalar = param(0.0030399346, bounds=(1e-4, 0.1))

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """Returns the picture in display values."""
        rate = 1.0 / self.exponent
        at_toe = self.toe**rate
        a = at_toe * (1.0 - rate) / (1.0 - at_toe * (1.0 - rate))
        slope = (1.0 + a) * rate * at_toe / self.toe
        # As one plane: of three, every operation would be compiled and called three times.
        plane = picture.reshape(1, -1, picture.shape[2])
        return _encoded(jnp.stack([self.toe, rate, a, slope]), plane).reshape(picture.shape)


@by_strips
def _encoded(numbers, planes):
    toe, rate, a, slope = numbers

    def encode(x):
        # The power has no finite slope at 0, where it is not used: below the toe it is computed at the toe.
        power = (1.0 + a) * jnp.exp(rate * jnp.log(jnp.maximum(x, toe))) - a
        return jnp.where(x <= toe, slope * x, power)

    return [encode(x) for x in planes]
