"""Highlights in which some of a camera's colours are saturated."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..ops.pointwise import by_strips

EPSILON = 1e-12  # makes the roots differentiable at grey
SHARE = 1e-3  # of what is cut off: with it, a saturated grey stays grey when one colour changes


class Highlights(eqx.Module):
    """Balanced colours, of which some may be saturated, without the false hue of those: they keep their brightness.

    At `white` the first of the balanced colours saturates, and the others do above it. A highlight in which all are
    saturated would have the colour of the gains, which is magenta. Where a colour exceeds `white`, the distance of all
    from their mean is multiplied by that of the colours cut at `white`, over that of the colours themselves. So the
    colours become grey as they saturate, and no brightness is cut off. The result is divided by `white`.

    Source: the blend of highlights in D. Coffin's dcraw.

    Examples:
        >>> highlights = ds.image.Highlights(1.0)
        >>> saturated, orange = jnp.array([1.9, 1.0, 1.6]), jnp.array([0.8, 0.5, 0.1])
        >>> highlights(jnp.stack([saturated, orange], axis=1)[..., None]).round(3)[..., 0].T.tolist()
        [[1.5, 1.5, 1.5], [0.8, 0.5, 0.1]]
    """

    white: Scalar = param(1.0, bounds=(0.01, 100.0))

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture, in which white is 1 and highlights exceed it."""
        return _keep_brightness(self.white[None], picture)


@by_strips
def _keep_brightness(numbers, planes):
    (white,) = numbers
    mean, deviations, size = _about_mean(planes)
    cut = [jnp.minimum(plane, white) for plane in planes]
    _, _, size_of_cut = _about_mean(cut)
    off = sum((plane - low) ** 2 for plane, low in zip(planes, cut, strict=True))
    ratio = jnp.sqrt((size_of_cut + EPSILON) / (size + SHARE * off + EPSILON))
    return [(mean + ratio * deviation) / white for deviation in deviations]


def _about_mean(planes):
    """The mean of three planes, their deviations from it, and the sum of the squares of those."""
    red, green, blue = planes
    mean = (red + green + blue) / 3.0
    deviations = red - mean, green - mean, blue - mean
    return mean, deviations, deviations[0] ** 2 + deviations[1] ** 2 + deviations[2] ** 2
