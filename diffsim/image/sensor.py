"""Synthetic raws: a finished picture taken back to what a sensor would have measured, with its noise.

The steps of a camera in reverse order (Brooks and others, "Unprocessing images for learned raw denoising", 2019).
They are no part of what is trained: a raw is data.
"""

from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .demosaicing.bayer import mosaic
from .values import check_floating


class Camera(NamedTuple):
    """A camera's constants: gains of red and blue over green, its matrix to linear sRGB, black level, bits.

    The matrix takes balanced camera colours to linear sRGB; its rows sum to 1. `tone` says whether the camera
    applies the smoothstep 3 x^2 - 2 x^3 to its finished pictures, which is then undone too.
    """

    red: float = 1.9
    blue: float = 1.6
    matrix: tuple[tuple[float, float, float], ...] = ((1.6, -0.5, -0.1), (-0.25, 1.55, -0.3), (0.05, -0.65, 1.6))
    black: float = 0.0625
    bits: int | None = 14
    tone: bool = True


class Noise(NamedTuple):
    """The noise of a sensor: its variance is shot x + read^2 at the signal x, of which 1 is white."""

    shot: float = 0.01
    read: float = 0.002


LEVELS = {"low": Noise(0.000625, 0.0005), "middle": Noise(0.0025, 0.001), "high": Noise(0.01, 0.002)}
CLEAN = Noise(0.0, 0.0)
SPAN = 1.15  # of levels that chains are trained on, either way
CAMERA = Camera()


def noise_level(noise: Noise | Float[Array, " 2"]) -> Float[Array, ""]:
    """How noisy: 0 at the middle level, one more for four times the variance (of a grey of 0.18 of white).

    Cut to the span that the shipped parameters were trained on, 0.15 beyond the low and the high level.
    """
    variance = lambda shot, read: 0.18 * shot + read**2
    shot, read = noise
    ratio = variance(shot, read) / variance(*LEVELS["middle"])
    # No noise at all has no logarithm.
    return jnp.clip(jnp.log(jnp.maximum(ratio, 1e-6)) / np.log(4.0), -SPAN, SPAN)


def to_linear(srgb: Float[Array, "..."]) -> Float[Array, "..."]:
    """Light from sRGB values in [0, 1] (IEC 61966-2-1)."""
    check_floating(srgb)
    # The power is not smooth at 0, where the other branch holds: it sees a safe value there.
    return jnp.where(srgb <= 0.04045, srgb / 12.92, ((jnp.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Float[Array, "..."]) -> Float[Array, "..."]:
    """sRGB values from light; the straight part goes on below 0, the power above 1."""
    check_floating(linear)
    power = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055  # as in `to_linear`
    return jnp.where(linear <= 0.0031308, 12.92 * linear, power)


def camera_colors(picture: Float[Array, "3 h w"], camera: Camera) -> Float[Array, "3 h w"]:
    """What the sensor's three colours see of an sRGB picture: light in [0, 1], before balance."""
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
    """The RGGB mosaic in [0, 1], black level included, that the camera records of an sRGB picture in [0, 1].

    `noise` may be a pair of traced numbers. Without `key` there is no noise.
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
