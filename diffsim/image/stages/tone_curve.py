"""Tone curves: a monotone curve on every value, one for all colours or one for each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...parameters import param
from ..ops.piecewise_linear import curve


class ToneCurve(eqx.Module):
    """A monotone curve through 16 equally spaced knots, from 0 at 0 to 1 at 1, straight between and beyond them.

    `rises` are the logarithms of the rises from knot to knot, up to a common factor; if all are equal, the picture is
    unchanged.

    Examples:
        >>> curve = ds.image.ToneCurve(rises=jnp.linspace(1.0, -1.0, 15))  # lifts the shadows
        >>> curve.knots.shape, bool(curve(jnp.full((3, 2, 2), 0.2)).min() > 0.2)
        ((16,), True)
    """

    rises: Float[Array, " 15"] = param(np.zeros(15))

    @property
    def knots(self) -> Float[Array, " 16"]:
        """The curve's values at 0, 1/15, ... 1."""
        return jnp.concatenate([jnp.zeros(1, self.rises.dtype), jnp.cumsum(jax.nn.softmax(self.rises))])

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """Returns the picture with the curve applied to every value."""
        return curve(jax.nn.softmax(self.rises), picture)


class ColorCurves(eqx.Module):
    """A monotone curve for each of red, green and blue, as a `ToneCurve` has one for all.

    `rises` are the logarithms of each colour's rises from knot to knot, up to a common factor.

    Examples:
        >>> warm = jnp.stack([jnp.linspace(0.5, -0.5, 15), jnp.zeros(15), jnp.linspace(-0.5, 0.5, 15)])
        >>> red, green, blue = ds.image.ColorCurves(rises=warm)(jnp.full((3, 2, 2), 0.4))[:, 0, 0]
        >>> bool(red > green), bool(green > blue), round(float(green), 3)
        (True, True, 0.4)
    """

    rises: Float[Array, "3 15"] = param(np.zeros((3, 15)))

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture with each colour's curve applied to its values."""
        planes = [curve(jax.nn.softmax(rises), plane[None]) for rises, plane in zip(self.rises, picture, strict=True)]
        return jnp.concatenate(planes)
