"""A camera's raw developed into a picture: levels, noise, colours, orientation and crop as the file says."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._trees import is_real_array
from .._types import Scalar
from ..parameters import replace
from .chain import Chain
from .demosaicing.bayer import cut_back, to_rggb
from .hot_pixels import without_hot_pixels
from .io.raw import Raw
from .noise_estimate import estimate_noise
from .pretrained import trained, with_noise_level
from .sensor import Noise, to_srgb
from .stages.color_matrix import ColorMatrix
from .stages.highlights import Highlights
from .stages.white_balance import WhiteBalance
from .tiled import in_tiles

GREYS = np.linspace(0.0, 1.0, 33) ** 2
"""Values of flat mosaics, closer to each other where it is dark."""

LOOKS = ("neutral", "trained")
BRIGHT = 0.99  # the share of the pixels that an automatic exposure leaves below white
MOST_STOPS = 4.0


class Calibration(eqx.Module):
    """The picture in which flat grey has the value that its mosaic has.

    The network was trained together with stages that make up for its brightness; `response` is what it makes of flat
    mosaics of the values `GREYS`, in each colour, and is undone.
    """

    response: Float[Array, "3 greys"]

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture, in linear light."""
        inside = jnp.clip(picture, self.response[:, :1, None], self.response[:, -1:, None])
        greys = jnp.asarray(GREYS, picture.dtype)
        return jax.vmap(lambda x, own: jnp.interp(x, own, greys))(inside, self.response) + (picture - inside)


class Exposure(eqx.Module):
    """Linear light multiplied by 2 to the number of stops.

    Examples:
        >>> float(ds.image.Exposure(1.0)(jnp.full((3, 2, 2), 0.25)).max())
        0.5
    """

    stops: Scalar

    def __init__(self, stops: float = 0.0):
        self.stops = jnp.asarray(stops, jnp.float32)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture."""
        return picture * jnp.exp2(self.stops).astype(picture.dtype)


def develop(
    raw: Raw,
    noise: Noise | None = None,
    look: Literal["neutral", "trained"] = "neutral",
    *,
    exposure: float | Literal["auto"] = 0.0,
    chain: Chain | None = None,
    progress: Callable[[float], None] | None = None,
) -> Float[np.ndarray, "3 h w"]:
    """Returns the sRGB picture of a raw, in [0, 1], upright and cropped as its file says.

    Hot pixels are replaced, the mosaic is balanced, demosaicked and denoised for its noise, highlights lose the false
    hue of saturated colours, and the camera's matrix takes it to sRGB.

    Args:
        raw: as `read_raw` returns it.
        noise: of the mosaic; by default that of the file, or else what `estimate_noise` measures.
        look: "neutral" has the scene's contrast and colours; "trained" adds the tone curve, saturation and sharpening
            that the chain has learned for pictures of its simulated camera.
        exposure: in stops, added to that of the file; "auto" brightens as far as one pixel in a hundred is white.
        chain: a trained noisy chain; by default the one that ships.
        progress: called with the share that is done.

    Raises:
        InputError: For another look, an exposure that is not finite, and gains that are not positive.

    Examples:
        >>> raw = ds.image.Raw(np.full((64, 64), 0.25), gains=(2.0, 1.0, 1.5))
        >>> picture = ds.image.develop(raw, ds.image.Noise(0.001, 0.001))
        >>> picture.shape
        (3, 64, 64)
    """
    if look not in LOOKS:
        raise InputError(f"look={look!r}: give one of {', '.join(LOOKS)}")
    if exposure != "auto" and not np.isfinite(exposure):
        raise InputError(f"exposure={exposure}: give a finite number of stops, or 'auto'")
    if not min(raw.gains) > 0:
        raise InputError(f"gains={raw.gains}: give three numbers above 0")
    noise = noise or raw.noise or estimate_noise(raw)
    chain = chain or trained("noisy")
    mosaic = np.asarray(to_rggb(without_hot_pixels(raw, noise), raw.pattern), np.float32)
    light = in_tiles(_single(_to_light(chain, raw, noise, look)), mosaic, size=1024, halo=32, progress=progress)
    light = raw.cropped(np.asarray(cut_back(light, raw.pattern, raw.mosaic.shape)))
    stops = automatic_stops(light) if exposure == "auto" else raw.exposure + exposure
    picture = in_tiles(_single(_finish(chain, look, float(stops))), light, size=1024, halo=32)
    return np.ascontiguousarray(np.clip(np.rot90(picture, raw.quarter_turns, axes=(1, 2)), 0.0, 1.0))


def automatic_stops(light: Float[np.ndarray, "3 h w"]) -> float:
    """Returns the stops by which linear light is brightened until one pixel in a hundred is white: from 0 to 4."""
    brightest = np.quantile(light.max(axis=0), BRIGHT)
    return float(np.clip(-np.log2(brightest), 0.0, MOST_STOPS)) if brightest > 0 else 0.0


def _single(chain: Chain) -> Chain:
    """The chain with parameters in single precision, in which pictures are."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_real_array(x) else x, chain)


def _to_light(chain: Chain, raw: Raw, noise: Noise, look: str) -> Chain:
    """From a mosaic to linear sRGB; for the trained look, as bright as the stages that follow were trained for."""
    fitted = with_noise_level(chain, noise)
    names = ("stabilize_variance", "demosaic", "unstabilize_variance")
    stages = {name: fitted.stages[name] for name in names}
    if look == "neutral":
        flat = lambda grey: Chain(remat=False, **stages)(jnp.full((48, 48), grey, jnp.float32))
        inner = jax.vmap(lambda grey: flat(grey)[:, 20:28, 20:28].mean(axis=(1, 2)))
        measured = jax.jit(inner)(jnp.asarray(GREYS, jnp.float32)).T
        response = jnp.maximum.accumulate(measured + 1e-6 * jnp.arange(GREYS.size)[None], axis=1)  # increases
        stages["calibration"] = Calibration(response)
    return Chain(
        remat=False,
        balance=replace(WhiteBalance(), {"black": 0.0, "red": raw.gains[0], "blue": raw.gains[2]}),
        **stages,
        highlights=replace(Highlights(), {"white": min(1.0, *raw.gains)}),
        color=replace(ColorMatrix(), {"mixing": np.asarray(raw.matrix)[~np.eye(3, dtype=bool)]}),
    )


def _finish(chain: Chain, look: str, stops: float) -> Chain:
    """From linear sRGB to the finished picture."""
    names = ("gamma", "tone", "saturation", "sharpen") if look == "trained" else ()
    learned = {name: chain.stages[name] for name in names}
    return Chain(remat=False, exposure=Exposure(stops), **(learned or {"gamma": to_srgb}))
