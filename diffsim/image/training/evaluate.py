"""How good a chain is: its PSNR on photographs beside that of the classical chains."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from ..._errors import InputError
from ...parameters import replace
from ..chain import Chain
from ..demosaicing.bayer import cut_back, mosaic, to_rggb
from ..demosaicing.linear import bilinear, malvar
from ..demosaicing.menon import menon
from ..io.raw import Raw
from ..metrics import psnr
from ..pretrained import with_noise_level
from ..sensor import CAMERA, LEVELS, unprocess
from ..stages.color_matrix import ColorMatrix
from ..stages.white_balance import WhiteBalance
from ..tiled import in_tiles
from ..values import check_floating
from . import baselines

Scenes = dict[str, Float[np.ndarray, "3 _ _"]]

synthesize_raw = jax.jit(lambda scene, noise, key: unprocess(scene, noise, key=key))


def run_tiles(chain: Chain, mosaic: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "3 h w"]:
    """The chain's picture of a mosaic, tile by tile."""
    check_floating(mosaic)
    return in_tiles(chain, np.asarray(mosaic, np.float32), size=1024, halo=32)


def develop_raw(chain: Chain, given: Raw) -> Float[np.ndarray, "3 h w"]:
    """The picture of a raw, the chain's camera exchanged for the one that took it."""
    fitted = chain.replace(
        balance=replace(WhiteBalance(), {"black": 0.0, "red": given.gains[0], "blue": given.gains[2]}),
        color=replace(ColorMatrix(), {"mixing": given.matrix[~np.eye(3, dtype=bool)]}),
    )
    picture = run_tiles(fitted, np.asarray(to_rggb(given.mosaic, given.pattern)))
    rows, columns = given.mosaic.shape
    return np.asarray(cut_back(picture, given.pattern, (rows, columns)))


def crop_even(scene) -> Float[np.ndarray, "3 _ _"]:
    """The scene without a last odd row or column; raises InputError for one of less than two pixels either way."""
    check_floating(scene)
    if min(scene.shape[1:]) < 2:
        raise InputError(f"a picture of {scene.shape[1]} x {scene.shape[2]} pixels is too small for a colour mosaic")
    return np.asarray(scene[:, : scene.shape[1] // 2 * 2, : scene.shape[2] // 2 * 2], np.float32)


def clean_mosaics(scenes: Scenes):
    """Pairs (mosaic, scene) without noise, of the finished values."""
    return [(np.asarray(mosaic(crop_even(s))), crop_even(s)) for s in scenes.values()]


def raws(scenes: Scenes, noise, seed: int = 1000):
    """Pairs (raw, scene) as the camera records them; the noise is the same for every method."""
    keys = jr.split(jr.key(seed), len(scenes))
    pairs = zip(map(crop_even, scenes.values()), keys, strict=True)
    return [(np.asarray(synthesize_raw(scene, jnp.array(noise), key)), scene) for scene, key in pairs]


def mean_psnr(method, pairs) -> float:
    """The mean over all pairs: 8 bits, finished sRGB values, a border of 10 pixels left out."""
    return float(np.mean([psnr(np.asarray(method(mosaic)), scene) for mosaic, scene in pairs]))


def judge(task: str, chain: Chain, scenes: Scenes) -> dict[str, float]:
    """Mean PSNR (dB) over the scenes, ours and the classical ones; for noise one figure for each level."""
    if task == "demosaic":
        methods = {"ours": lambda m: run_tiles(chain, m), "bilinear": bilinear, "malvar": malvar, "menon": menon}
        return {name: mean_psnr(method, clean_mosaics(scenes)) for name, method in methods.items()}
    found = {}
    for level, noise in LEVELS.items():
        ours = with_noise_level(chain, noise)
        found[f"ours_{level}"] = mean_psnr(lambda m, ours=ours: run_tiles(ours, m), raws(scenes, noise))
        found[f"malvar_{level}"] = mean_psnr(lambda m: baselines.develop(m, CAMERA), raws(scenes, noise))
    return found


def judge_each(chain: Chain, scenes: Scenes) -> dict[str, float]:
    """The PSNR (dB) of our picture of every clean mosaic."""
    pairs = zip(scenes, clean_mosaics(scenes), strict=True)
    return {name: psnr(run_tiles(chain, mosaic), scene) for name, (mosaic, scene) in pairs}


def best_classical(denoiser: str, scenes: Scenes) -> dict[str, float]:
    """Mean PSNR (dB) of a classical noisy chain at each level of noise, with the best of all strengths for it."""
    found = {}
    for level, noise in LEVELS.items():
        pairs = raws(scenes, noise)
        tries = (lambda m, s=s: baselines.develop(m, CAMERA, denoiser, s) for s in baselines.STRENGTHS)
        found[f"menon_{denoiser}_{level}"] = max(mean_psnr(method, pairs) for method in tries)
    return found


def example(task: str, chain: Chain, scene: Float[np.ndarray, "3 h w"]):
    """What a camera records of a scene, the classical picture of it, and the chain, told the noise.

    For "demosaic" a clean mosaic and bilinear interpolation; for "noisy" a raw at the high level of noise and the
    classical chain without a denoiser.
    """
    if task == "demosaic":
        return mosaic(scene), bilinear(mosaic(scene)), chain
    noise = LEVELS["high"]
    given = synthesize_raw(scene, jnp.array(noise), jr.key(7))
    return given, baselines.develop(np.asarray(given), CAMERA), with_noise_level(chain, noise)
