"""Synthetic raws: a finished picture unprocessed to the values of a sensor, with its noise.

The steps of a camera in reverse order (Brooks and others, "Unprocessing images for learned raw denoising", 2019).
They are not trained: a raw is data.
"""

from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .demosaicing.bayer import mosaic
from .demosaicing.noise_conditioned import GREATEST
from .values import Pixels, check_floating


class Camera(NamedTuple):
    """A camera's constants: gains of red and blue over green, its matrix to linear sRGB, black level, bits.

    The matrix takes balanced camera colours to linear sRGB; its rows sum to 1. `tone` says whether the camera
    applies the smoothstep 3 x^2 - 2 x^3 to its finished pictures, whose inverse `unprocess` then applies.

    Examples:
        >>> camera = ds.image.Camera(red=2.0, blue=1.6, black=0.1, bits=None)
        >>> raw = ds.image.unprocess(jnp.ones((3, 4, 4)), camera=camera)
        >>> quad = (raw[:2, :2] - 0.1) / 0.9
        >>> print(quad[0].round(4), quad[1].round(4))  # white is one over the gains
        [0.5 1. ] [1.    0.625]
    """

    red: float = 1.9
    blue: float = 1.6
    matrix: tuple[tuple[float, float, float], ...] = ((1.6, -0.5, -0.1), (-0.25, 1.55, -0.3), (0.05, -0.65, 1.6))
    black: float = 0.0625
    bits: int | None = 14
    tone: bool = True


class Noise(NamedTuple):
    """The noise of a sensor: its variance is shot x + read^2 at the signal x, of which 1 is white.

    Examples:
        >>> camera = ds.image.Camera(red=1.0, blue=1.0, black=0.0, bits=None)
        >>> raw = ds.image.unprocess(jnp.ones((3, 256, 256)), ds.image.Noise(0.01, 0.0), camera, key=jr.key(0))
        >>> print(f"{jnp.std(raw):.2f}")  # sqrt(shot) at white
        0.10
    """

    shot: float = 0.01
    read: float = 0.002


SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to the colours of the standard observer, IEC 61966-2-1."""

LEVELS = {"low": Noise(0.000625, 0.0005), "middle": Noise(0.0025, 0.001), "high": Noise(0.01, 0.002)}
CLEAN = Noise(0.0, 0.0)
CAMERA = Camera()


def at_level(level: float) -> Noise:
    """Returns the noise of a level: 0 is middle noise, and one more has four times its variance."""
    middle = LEVELS["middle"]
    return Noise(middle.shot * 4.0**level, middle.read * 2.0**level)


def relative_noise(noise: Noise | Float[Array, " 2"]) -> Float[Array, ""]:
    """Returns the noise's variance, at a grey of 0.18 of white, as a multiple of that of middle noise.

    It is 0 without noise, and at most the greatest that chains are trained on.

    Examples:
        >>> levels = {"none": ds.image.sensor.CLEAN} | ds.image.sensor.LEVELS
        >>> {name: round(float(ds.image.sensor.relative_noise(noise)), 4) for name, noise in levels.items()}
        {'none': 0.0, 'low': 0.25, 'middle': 1.0, 'high': 4.0}
    """
    variance = lambda shot, read: 0.18 * shot + read**2
    shot, read = noise
    return jnp.minimum(variance(shot, read) / variance(*LEVELS["middle"]), 4.0**GREATEST)


def deviation_of_roots(noise: Noise | Float[Array, " 2"]) -> Float[Array, ""]:
    """Returns the standard deviation of the noise in the square roots of light, about the same at every brightness."""
    # Shot noise of the variance a x is sqrt(a) / 2 in the root of x.
    return 0.5 * jnp.sqrt(LEVELS["middle"].shot * relative_noise(noise))


def to_linear(srgb: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    check_floating(srgb)
    # The power is not smooth at 0, where the other branch applies: there it is computed at a safe value.
    return jnp.where(srgb <= 0.04045, srgb / 12.92, ((jnp.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Float[Pixels, "*shape"]) -> Float[Array, "*shape"]:
    """Returns sRGB values of linear light, extended by the straight part below 0 and by the power above 1."""
    check_floating(linear)
    power = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055  # as in `to_linear`
    return jnp.where(linear <= 0.0031308, 12.92 * linear, power)


def camera_colors(picture: Float[Array, "3 h w"], camera: Camera) -> Float[Array, "3 h w"]:
    """Returns the sensor's colours of an sRGB picture: linear light in [0, 1], before white balance."""
    check_floating(picture)
    toned = 0.5 - jnp.sin(jnp.arcsin(1.0 - 2.0 * picture) / 3.0) if camera.tone else picture
    back = np.linalg.inv(np.asarray(camera.matrix)) / np.array([[camera.red], [1.0], [camera.blue]])
    return jnp.einsum("ij,jhw->ihw", jnp.asarray(back, picture.dtype), to_linear(toned))


def unprocess(
    picture: Float[Array, "3 h w"],
    noise: Noise | Float[Array, " 2"] = CLEAN,
    camera: Camera = CAMERA,
    *,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "h w"]:
    """Returns the RGGB mosaic in [0, 1], black level included, that the camera records of an sRGB picture.

    Args:
        picture: sRGB values in [0, 1].
        noise: shot and read noise of the sensor; may be a pair of traced numbers.
        camera: its constants.
        key: of the noise; without it there is none.

    Raises:
        InputError: for a picture of whole numbers or of odd size.

    Examples:
        >>> picture = jnp.full((3, 8, 8), 0.5)
        >>> raw = ds.image.unprocess(picture, ds.image.Noise(0.01, 0.002), key=jr.key(0))
        >>> raw.shape, bool(raw.min() >= 0.0), bool(raw.max() <= 1.0)
        ((8, 8), True, True)
    """
    light = mosaic(camera_colors(picture, camera))
    if key is not None:
        shot, read = noise
        light = light + jnp.sqrt(shot * jnp.maximum(light, 0.0) + read**2) * jr.normal(key, light.shape, light.dtype)
    stored = camera.black + (1.0 - camera.black) * light
    if camera.bits is None:
        return stored
    steps = 2**camera.bits - 1
    return jnp.clip(jnp.round(stored * steps) / steps, 0.0, 1.0)
