"""How different two colours look."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import safe
from .metrics import check_pair
from .sensor import SRGB_TO_XYZ, to_linear
from .values import Pixels


def delta_e(picture: Float[Pixels, "3 h w"], true: Float[Pixels, "3 h w"]) -> Float[Array, "h w"]:
    """Returns the colour difference CIEDE2000 at every pixel of two sRGB pictures; about 1 is just visible.

    Differentiable; the formula itself jumps where two hues are opposite, and its derivative is zero where both colours
    are equal. Source: Sharma, Wu, Dalal (2005), with the white of sRGB.

    Args:
        picture: values in [0, 1], sRGB.
        true: the true ones.

    Raises:
        InputError: for pictures of different shapes and of whole numbers.

    Examples:
        >>> grey = jnp.full((3, 1, 1), 0.5)
        >>> print(ds.image.delta_e(grey.at[0].add(0.02), grey).round(2))
        [[2.81]]
    """
    check_pair(picture, true)
    return ciede2000(to_lab(picture), to_lab(true))


def to_lab(picture: Float[Pixels, "3 h w"]) -> Float[Array, "3 h w"]:
    """Returns an sRGB picture in CIELAB, lightness from 0 to 100, for the white of sRGB."""
    light = to_linear(jnp.asarray(picture))
    of_white = SRGB_TO_XYZ / SRGB_TO_XYZ.sum(axis=1, keepdims=True)
    xyz = jnp.einsum("ij,jhw->ihw", jnp.asarray(of_white, light.dtype), light)
    bright = xyz > (6 / 29) ** 3
    x, y, z = jnp.where(bright, jnp.cbrt(jnp.where(bright, xyz, 1.0)), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(first: Float[Array, "3 *shape"], second: Float[Array, "3 *shape"]) -> Float[Array, "*shape"]:
    """Returns the colour difference CIEDE2000 of two colours in CIELAB."""
    (light1, a1, b1), (light2, a2, b2) = first, second
    chroma = lambda a, b: safe.sqrt(a**2 + b**2)
    seventh = lambda c: safe.sqrt(c**7 / (c**7 + 25.0**7))
    stretch = 1.5 - 0.5 * seventh((chroma(a1, b1) + chroma(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = chroma(a1, b1), chroma(a2, b2)
    degrees = lambda a, b: jnp.degrees(safe.atan2(b, a)) % 360.0
    h1, h2 = degrees(a1, b1), degrees(a2, b2)
    colored = (c1 > 0) & (c2 > 0)
    turn = jnp.where(colored, (h2 - h1 + 180.0) % 360.0 - 180.0, 0.0)
    # The product of the chromas' roots times the sine of half the angle between the hues, without roots.
    difference_h = safe.sqrt(c1 * c2) * 2.0 * jnp.sin(jnp.radians(turn) / 2)
    hue = jnp.where(colored, (h1 + turn / 2) % 360.0, h1 + h2)
    light, mean_c = (light1 + light2) / 2, (c1 + c2) / 2
    cos = lambda factor, shift: jnp.cos(jnp.radians(factor * hue + shift))
    t = 1 - 0.17 * cos(1, -30) + 0.24 * cos(2, 0) + 0.32 * cos(3, 6) - 0.20 * cos(4, -63)
    rotation = -2 * seventh(mean_c) * jnp.sin(jnp.radians(60 * jnp.exp(-(((hue - 275) / 25) ** 2))))
    by_light = (light2 - light1) / (1 + 0.015 * (light - 50) ** 2 / jnp.sqrt(20 + (light - 50) ** 2))
    by_chroma = (c2 - c1) / (1 + 0.045 * mean_c)
    by_hue = difference_h / (1 + 0.015 * mean_c * t)
    return safe.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue)
