"""Development of a raw stage by stage with the true constants of the camera, for comparison with learned chains."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..._extras import extra
from ..demosaicing.bayer import mosaic
from ..demosaicing.linear import malvar
from ..demosaicing.menon import menon
from ..sensor import Camera, to_srgb
from ..stages.variance_stabilization import stabilize_variance, unstabilize_variance
from ..values import check_floating

STRENGTHS = (0.8, 1.0, 1.3, 1.7, 2.2)
"""Multiples of the estimated noise given to a denoiser, of which the best result counts."""


def develop(
    raw: Float[np.ndarray, "h w"],
    camera: Camera,
    denoiser: str = "",
    strength: float = 1.0,
    demosaic: Callable | None = None,
):
    """Returns the picture (3, h, w) of an RGGB raw: white balance, demosaicking, a denoiser, colour matrix, sRGB, tone.

    Args:
        raw: its mosaic, black level included.
        camera: that took it.
        denoiser: "" for none, after Malvar's demosaicking; "nlm" for non-local means or "bm3d", both after Menon's and
            between `stabilize_variance` and its inverse.
        strength: of the denoiser, as a multiple of the estimated noise.
        demosaic: between `stabilize_variance` and its inverse, instead of the above.
    """
    check_floating(raw)
    gains = np.array([camera.red, 1.0, camera.blue], np.float32)
    ones = np.broadcast_to(gains[:, None, None], (3, *raw.shape))
    balanced = np.asarray((raw - camera.black) / (1.0 - camera.black) * np.asarray(mosaic(ones)), np.float32)
    if denoiser:
        demosaic = lambda stabilized: _denoised(menon(stabilized), denoiser, strength)
    if demosaic is not None:
        stabilized = np.asarray(stabilize_variance(jnp.asarray(balanced)))
        picture = unstabilize_variance(jnp.asarray(demosaic(stabilized)))
    else:
        picture = np.asarray(malvar(balanced))
    linear = np.clip(np.einsum("ij,jhw->ihw", np.array(camera.matrix), np.asarray(picture)), 0.0, 1.0)
    display = np.clip(np.asarray(to_srgb(linear)), 0.0, 1.0)
    return 3 * display**2 - 2 * display**3 if camera.tone else display


def _denoised(picture: np.ndarray, denoiser: str, strength: float) -> np.ndarray:
    restoration = extra("skimage.restoration", "scenarios")
    colors = np.moveaxis(picture, 0, 2).astype(np.float64)
    sigma = strength * restoration.estimate_sigma(colors, channel_axis=2, average_sigmas=True)
    if denoiser == "bm3d":
        return np.moveaxis(extra("bm3d", "bench").bm3d_rgb(colors, sigma), 2, 0)
    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": 2}
    return np.moveaxis(restoration.denoise_nl_means(colors, h=0.8 * sigma, sigma=sigma, **options), 2, 0)
