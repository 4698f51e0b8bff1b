"""From light to display values."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..ops.pointwise import by_strips


class Gamma(eqx.Module):
    """Light to display values: (1 + a) x^(1/exponent) - a above the toe, straight below it and below 0.

    `a` makes value and slope continuous at the toe. The defaults give a = 0.055 and a slope of 12.9232: within 1e-5 the
    curve of sRGB (IEC 61966-2-1), whose own toe, 0.0031308 with a slope of 12.92, has a small corner.
    """

    exponent: Scalar = param(2.4, bounds=(1.0, 4.0))
    toe: Scalar = param(0.0030399346, bounds=(1e-4, 0.1))

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """The picture as displays want it."""
        rate = 1.0 / self.exponent
        at_toe = self.toe**rate
        a = at_toe * (1.0 - rate) / (1.0 - at_toe * (1.0 - rate))
        slope = (1.0 + a) * rate * at_toe / self.toe
        # As one plane: for three, every operation would be compiled and called three times.
        plane = picture.reshape(1, -1, picture.shape[2])
        return _lit(jnp.stack([self.toe, rate, a, slope]), plane).reshape(picture.shape)


@by_strips
def _lit(numbers, planes):
    toe, rate, a, slope = numbers

    def lit(x):
        # The power has no slope at 0, where it is not used: it sees the toe there.
        power = (1.0 + a) * jnp.exp(rate * jnp.log(jnp.maximum(x, toe))) - a
        return jnp.where(x <= toe, slope * x, power)

    return [lit(x) for x in planes]
