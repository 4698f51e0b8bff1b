"""Saturation: colours moved away from grey or towards it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..ops.luma import LUMA, weighted_mean
from ..ops.pointwise import by_strips


class Saturation(eqx.Module):
    """Colours moved away from grey: luma + factor (x - luma), the factor saturation + vibrance exp(-10 chroma).

    Chroma is the root mean square of x - luma, so that vibrance lifts pale colours and leaves strong ones.

    Examples:
        >>> picture = jr.uniform(jr.key(0), (3, 4, 4))
        >>> grey = ds.image.Saturation(saturation=0.0)(picture)
        >>> bool(jnp.allclose(grey[0], ds.image.luma(picture))), bool(jnp.allclose(grey[2], grey[0]))
        (True, True)
    """

    saturation: Scalar = param(1.0, bounds=(0.0, 4.0))
    vibrance: Scalar = param(0.0, bounds=(-2.0, 2.0))

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture with its colours strengthened."""
        return _saturate(jnp.stack([self.saturation, self.vibrance]), picture)


@by_strips
def _saturate(numbers, planes):
    saturation, vibrance = numbers
    grey = weighted_mean(LUMA, planes)
    red, green, blue = colors = [plane - grey for plane in planes]
    # The small number makes the root differentiable at grey.
    chroma = jnp.sqrt((red**2 + green**2 + blue**2) / 3.0 + 1e-6)
    factor = saturation + vibrance * jnp.exp(-10.0 * chroma)
    return [grey + factor * color for color in colors]
