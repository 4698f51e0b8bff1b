"""Evaluation: the PSNR of a chain on photographs, compared with that of classical chains."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from ..._errors import InputError
from ..chain import Chain
from ..demosaicing.bayer import mosaic
from ..demosaicing.linear import bilinear, malvar
from ..demosaicing.menon import menon
from ..metrics import psnr
from ..pretrained import trained, with_noise_level
from ..sensor import CAMERA, CLEAN, LEVELS, Noise, at_level, deviation_of_roots, unprocess
from ..tiled import in_tiles
from ..values import Pixels, check_floating
from . import baselines

Scenes = dict[str, Float[np.ndarray, "3 _ _"]]
BETWEEN = {"none": CLEAN, "faint": at_level(-2.5), "low_to_middle": at_level(-0.5), "middle_to_high": at_level(0.5)}
"""Noise levels besides `LEVELS`."""

synthesize_raw = jax.jit(lambda scene, noise, key: unprocess(scene, noise, key=key))


def run_tiles(chain: Chain, mosaic: Float[Pixels, "h w"]) -> Float[np.ndarray, "3 h w"]:
    """Returns the picture of a mosaic by a chain, tile by tile."""
    check_floating(mosaic)
    return in_tiles(chain, np.asarray(mosaic, np.float32), size=1024, halo=32)


def crop_even(scene) -> Float[np.ndarray, "3 _ _"]:
    """Returns the scene without its last row or column where their number is odd, in single precision.

    Raises:
        InputError: for a scene of less than two pixels either way, and of whole numbers.
    """
    check_floating(scene)
    if min(scene.shape[1:]) < 2:
        raise InputError(f"a picture of {scene.shape[1]} x {scene.shape[2]} pixels is too small for a colour mosaic")
    return np.asarray(scene[:, : scene.shape[1] // 2 * 2, : scene.shape[2] // 2 * 2], np.float32)


def mosaics(scenes: Scenes, noise: Noise = CLEAN, seed: int = 1000):
    """Returns pairs (mosaic, scene) of sRGB values, with the noise that a raw has after `stabilize_variance`."""
    random, deviation = np.random.default_rng(seed), np.float32(deviation_of_roots(noise))
    pairs = [(np.asarray(mosaic(crop_even(scene))), crop_even(scene)) for scene in scenes.values()]
    return [(m + deviation * random.standard_normal(m.shape, np.float32), scene) for m, scene in pairs]


def raws(scenes: Scenes, noise, seed: int = 1000):
    """Returns pairs (raw, scene) as recorded by the camera, with the same noise for every method."""
    keys = jr.split(jr.key(seed), len(scenes))
    pairs = zip(map(crop_even, scenes.values()), keys, strict=True)
    return [(np.asarray(synthesize_raw(scene, jnp.array(noise), key)), scene) for scene, key in pairs]


def mean_psnr(method, pairs) -> float:
    """Returns the mean PSNR (dB) over all pairs: 8 bits, sRGB values, a border of 10 pixels left out."""
    return float(np.mean([psnr(np.asarray(method(mosaic)), scene) for mosaic, scene in pairs]))


def judge(task: str, chain: Chain, scenes: Scenes) -> dict[str, float]:
    """Returns mean PSNRs (dB) over the scenes, of the chain and of classical ones, at each noise level."""
    results = {}
    if task == "demosaic":
        methods = {"ours": lambda m: run_tiles(chain, m), "bilinear": bilinear, "malvar": malvar, "menon": menon}
        results = {name: mean_psnr(method, mosaics(scenes)) for name, method in methods.items()}
    for level, noise in LEVELS.items():
        results[f"ours_{level}"] = _psnr_at(task, chain, scenes, noise)
        if task == "noisy":
            results[f"malvar_{level}"] = mean_psnr(lambda m: baselines.develop(m, CAMERA), raws(scenes, noise))
    return results


def judge_between(chain: Chain, scenes: Scenes) -> dict[str, float]:
    """Returns mean PSNRs (dB) of the noisy chain without noise and at `BETWEEN`.

    `clean_network_none` has the demosaicker that ships between the camera's true constants.
    """
    results = {f"ours_{name}": _psnr_at("noisy", chain, scenes, noise) for name, noise in BETWEEN.items()}
    network = trained("demosaic")
    develop = lambda m: baselines.develop(m, CAMERA, demosaic=lambda stabilized: run_tiles(network, stabilized))
    return results | {"clean_network_none": mean_psnr(develop, raws(scenes, CLEAN))}


def _psnr_at(task: str, chain: Chain, scenes: Scenes, noise: Noise) -> float:
    """The mean PSNR of a chain at one noise level."""
    chain = with_noise_level(chain, noise)
    pairs = mosaics(scenes, noise) if task == "demosaic" else raws(scenes, noise)
    return mean_psnr(lambda m: run_tiles(chain, m), pairs)


def judge_each(chain: Chain, scenes: Scenes) -> dict[str, float]:
    """Returns the PSNR (dB) of the chain on every clean mosaic."""
    pairs = zip(scenes, mosaics(scenes), strict=True)
    return {name: psnr(run_tiles(chain, mosaic), scene) for name, (mosaic, scene) in pairs}


def best_classical(denoiser: str, scenes: Scenes) -> dict[str, float]:
    """Returns the mean PSNR (dB) of a classical noisy chain at each noise level, with the best of all strengths."""
    results = {}
    for level, noise in LEVELS.items():
        pairs = raws(scenes, noise)
        tries = (lambda m, s=s: baselines.develop(m, CAMERA, denoiser, s) for s in baselines.STRENGTHS)
        results[f"menon_{denoiser}_{level}"] = max(mean_psnr(method, pairs) for method in tries)
    return results


def example(task: str, chain: Chain, scene: Float[np.ndarray, "3 h w"]):
    """Returns what a camera records of a scene, the classical picture of it, and the chain for its noise level.

    For "demosaic" a clean mosaic and bilinear interpolation; for "noisy" a raw at the high noise level and the
    classical chain without a denoiser.
    """
    if task == "demosaic":
        return mosaic(scene), bilinear(mosaic(scene)), chain
    noise = LEVELS["high"]
    given = synthesize_raw(scene, jnp.array(noise), jr.key(7))
    return given, baselines.develop(np.asarray(given), CAMERA), with_noise_level(chain, noise)
