"""How close a picture is to the true one, by the definitions in common use."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import safe
from .._errors import InputError
from .ops.correlate import correlate
from .ops.halved import halved
from .values import Pixels, check_floating

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The powers of the scales of `ms_ssim`, from the finest."""


def psnr(
    picture: Float[Pixels, "c h w"], true: Float[Pixels, "c h w"], *, border: int = 10, bits: int | None = 8
) -> float:
    """Returns the peak signal-to-noise ratio over all colours together, -10 log10 of the mean squared error (dB).

    Args:
        picture: values in [0, 1].
        true: the true ones, in the same colour space.
        border: pixels left out on every side; published figures differ by 1 dB with it.
        bits: to which both pictures are rounded, as in a file; None compares them as they are.

    Raises:
        InputError: for pictures of different shapes, of whole numbers, and with nothing within the border.

    Examples:
        >>> true = jnp.full((3, 32, 32), 0.5)
        >>> print(f"{ds.image.psnr(true + 0.1, true, bits=None):.2f}")  # -10 log10(0.1^2)
        20.00
    """
    check_pair(picture, true)
    _check_border(picture, border)
    a, b = (_inner(np.asarray(x, np.float64), border) for x in (picture, true))
    if bits is not None:
        peak = 2**bits - 1
        a, b = (np.round(np.clip(x, 0.0, 1.0) * peak) / peak for x in (a, b))
    error = np.mean((a - b) ** 2)
    return float(-10.0 * np.log10(error)) if error > 0 else float("inf")


def ssim(picture: Float[Pixels, "c h w"], true: Float[Pixels, "c h w"]) -> Float[Array, ""]:
    """Returns the mean structural similarity over all colours, 1 for equal pictures; differentiable.

    Gaussian windows of 11 x 11 pixels with a standard deviation of 1.5, where they lie within the picture.
    Source: Wang, Bovik, Sheikh, Simoncelli (2004).

    Args:
        picture: values in [0, 1].
        true: the true ones, in the same colour space.

    Raises:
        InputError: for pictures of different shapes, of whole numbers, and smaller than a window.

    Examples:
        >>> true = jr.uniform(jr.key(0), (3, 32, 32))
        >>> noisy = true + 0.1 * jr.normal(jr.key(1), true.shape)
        >>> print(f"{ds.image.ssim(true, true):.3f}", bool(ds.image.ssim(noisy, true) < 1.0))
        1.000 True
    """
    check_pair(picture, true)
    _check_border(picture, 5)
    return jnp.mean(jnp.prod(jnp.stack(_similarities(picture, true)), axis=0))


def ms_ssim(picture: Float[Pixels, "c h w"], true: Float[Pixels, "c h w"]) -> Float[Array, ""]:
    """Returns the structural similarity at five scales, 1 for equal pictures; differentiable.

    Contrast and structure are compared at each scale, brightness at the coarsest; each scale is half the one before.
    Negative means of contrast and structure count as zero. Source: Wang, Simoncelli, Bovik (2003).

    Args:
        picture: values in [0, 1], at least 176 pixels high and wide.
        true: the true ones, in the same colour space.

    Raises:
        InputError: for pictures of different shapes, of whole numbers, and smaller than a window at the coarsest scale.

    Examples:
        >>> true = jr.uniform(jr.key(0), (1, 180, 180))
        >>> bool(ds.image.ms_ssim(true + 0.1, true) < ds.image.ms_ssim(true, true))
        True
    """
    check_pair(picture, true)
    least = 11 * 2 ** (len(SCALES) - 1)
    if min(picture.shape[1:]) < least:
        raise InputError(f"{picture.shape[1]} x {picture.shape[2]} pixels: give at least {least} x {least}")
    value = jnp.ones(len(picture), jnp.result_type(picture))
    for number, power in enumerate(SCALES):
        brightness, structure = _similarities(picture, true)
        last = number == len(SCALES) - 1
        mean = jnp.mean(brightness * structure if last else structure, axis=(1, 2))
        value = value * safe.power(jnp.maximum(mean, 0.0), power)
        picture, true = halved(picture), halved(true)
    return jnp.mean(value)


def _similarities(picture, true):
    """The similarity of brightness, and that of contrast and structure, in a window about every pixel."""
    offsets = np.arange(-5, 6)
    window = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = jnp.asarray(window / window.sum(), jnp.result_type(picture))

    def mean(x):
        planes = x[:, None]
        blurred = [correlate(correlate(p, window[None, None, :, None]), window[None, None, None]) for p in planes]
        return jnp.concatenate(blurred)

    a, b = mean(picture), mean(true)
    var_a, var_b, covariance = mean(picture**2) - a**2, mean(true**2) - b**2, mean(picture * true) - a * b
    c1, c2 = 0.01**2, 0.03**2
    return (2 * a * b + c1) / (a**2 + b**2 + c1), (2 * covariance + c2) / (var_a + var_b + c2)


def _inner(x, border: int):
    return x[:, border : x.shape[1] - border, border : x.shape[2] - border]


def check_pair(picture: Pixels, true: Pixels) -> None:
    """Checks that two pictures can be compared.

    Raises:
        InputError: for pictures of different shapes and of whole numbers.
    """
    check_floating(picture)
    check_floating(true)
    if picture.shape != true.shape:
        raise InputError(f"pictures of shapes {picture.shape} and {true.shape} cannot be compared")


def _check_border(picture, border: int) -> None:
    if min(picture.shape[1:]) <= 2 * border:
        raise InputError(
            f"nothing of {picture.shape[1]} x {picture.shape[2]} pixels is left within a border of {border}"
        )
