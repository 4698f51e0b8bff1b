"""Wiener's filter, the classical deconvolution."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import ScalarLike
from .blur import Kernel, check_kernel, check_positive
from .values import Pixels


def wiener(picture: Float[Pixels, "c h w"], kernel: Kernel, noise_to_signal: ScalarLike) -> Float[Array, "c h w"]:
    """Returns the picture deconvolved by Wiener's filter, conj(H) / (|H|^2 + noise_to_signal) in Fourier space.

    The picture is continued by its mirror image to twice its size, which is periodic without jumps. Nearer to the edge
    than the kernel's radius the result is not to be trusted unless the kernel is symmetric.

    Args:
        picture: blurred and noisy.
        kernel: the point spread function, of odd sizes, with sum 1.
        noise_to_signal: the ratio of the power of the noise to that of the scene, above 0. Good values for 1% of noise:
            1e-3 to 1e-2.

    Raises:
        InputError: for a ratio that is not positive, a kernel of even size, larger than the picture or of another sum,
            and for a picture of whole numbers.

    Examples:
        >>> scene = jnp.zeros((1, 24, 24)).at[:, 8:16, 8:16].set(1.0)
        >>> kernel = ds.image.motion_kernel(4.0, 0.0)
        >>> sharp = ds.image.wiener(ds.image.blur(scene, kernel), kernel, 1e-4)
        >>> bool(jnp.max(jnp.abs(sharp - scene[:, 2:-2, 2:-2])) < 0.2)
        True
    """
    check_kernel(picture, kernel)
    check_positive("noise_to_signal", noise_to_signal)
    picture = jnp.asarray(picture)
    height, width = picture.shape[1:]
    wide = jnp.pad(picture, ((0, 0), (0, height), (0, width)), mode="symmetric")
    centred = jnp.zeros(wide.shape[1:], picture.dtype).at[: kernel.shape[0], : kernel.shape[1]].set(kernel)
    centred = jnp.roll(centred, [-(n // 2) for n in kernel.shape], (0, 1))
    spectrum = jnp.fft.rfft2(centred)
    filtered = jnp.conj(spectrum) / (jnp.abs(spectrum) ** 2 + jnp.asarray(noise_to_signal, picture.dtype))
    whole = jnp.fft.irfft2(jnp.fft.rfft2(wide) * filtered[None], wide.shape[1:])
    return whole[:, :height, :width]
