"""Training of chains: photographs, losses, optimizers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, Key, PRNGKeyArray, UInt8

from ..._errors import InputError
from ..._extras import extra
from ...parameters import frozen
from ...train.fit import fit
from ...train.history import History
from ..chain import Chain
from ..demosaicing.bayer import mosaic
from ..demosaicing.linear import malvar
from ..demosaicing.noise_conditioned import GREATEST, LEAST
from ..io.pictures import picture_files, read_picture
from ..pretrained import Network, with_noise_level
from ..sensor import LEVELS, deviation_of_roots, relative_noise, unprocess
from . import patches

BATCH, BORDER = 8, 6
RATE = 1e-2
CONSTANTS, CONSTANTS_RATE = 300, 3e-2  # steps that train all but the network, and their rate
WITHOUT_NOISE, GROWTH = 0.3, 0.45  # the squared error grows about as WITHOUT_NOISE + (relative noise)^GROWTH
CLEAN_SHARE = {"noisy": 0.15, "demosaic": 0.5}  # of the patches of a training, without noise
QUANTILES, LEVELS_TRAINED = (0.0, 0.3, 1.0), (LEAST, -1.2, GREATEST)
"""Shares of the noisy patches, and the noise levels up to which they go: most are at those that need most."""
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "stereo_motorcycle")
COMPRESSED = ("rocket",)  # a JPEG file, whose colours are stored at half the size
HELD_OUT = ("china.jpg", "flower.jpg")


def photographs() -> list[UInt8[np.ndarray, "3 _ _"]]:
    """Returns the training photographs: those in colour that come with scikit-image.

    Its pictures of cells, of a retina and of galaxies are left out: their statistics are not those of photographs.
    """
    data = extra("skimage.data", "scenarios")
    read = lambda name: np.moveaxis(data.stereo_motorcycle()[0] if "stereo" in name else getattr(data, name)(), 2, 0)
    return [read(name) for name in PHOTOGRAPHS] + [patches.halve(read(name)) for name in COMPRESSED]


def held_out() -> dict[str, Float[np.ndarray, "3 _ _"]]:
    """Returns the photographs held out from training: those of scikit-learn, at half their size, in [0, 1]."""
    load = extra("sklearn.datasets", "scenarios").load_sample_image
    return {name: patches.halve(np.moveaxis(load(name), 2, 0)) / np.float32(255) for name in HELD_OUT}


def squares(
    folder: Path | None = None, mined: bool = False, size: int = 72, stride: int = 24
) -> UInt8[Array, "n 3 size size"]:
    """Returns the patches of the training photographs.

    Args:
        folder: of more photographs, which also give patches at half their size, where patterns are finer.
        mined: whether the half of the patches of each photograph that is easy to demosaick is left out.
        size: of a patch in pixels.
        stride: from patch to patch.

    Raises:
        InputError: for a folder without pictures, and a picture that cannot be read or is smaller than two patches.
    """
    parts = [patches.cut(photographs(), size, stride)]
    for path in [] if folder is None else picture_files(folder):
        photograph = np.round(255 * read_picture(path)).astype(np.uint8)
        if min(photograph.shape[1:]) < 2 * size:
            found = f"{photograph.shape[2]} x {photograph.shape[1]} pixels"
            raise InputError(f"{path}: {found} are too few; give at least {2 * size} x {2 * size}")
        parts += [patches.cut([x], size, stride) for x in (photograph, patches.halve(photograph))]
    return jnp.asarray(np.concatenate([patches.worst(part) if mined else part for part in parts]))


def schedule(steps: int, rate: float = 3e-3) -> optax.GradientTransformation:
    """Returns Adam with a warm-up, its rate falling to zero as a cosine."""
    warm = min(200, steps // 4)
    rates = optax.warmup_cosine_decay_schedule(0.0, rate, warm, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates))


def orthogonal(steps: int, rate: float = RATE) -> optax.GradientTransformation:
    """Returns Muon for stencils, each a matrix of outputs by inputs, and Adam for the rest, with falling rates.

    Muon steps are equally long along all directions of a matrix: on this chain, Adam needs several times as many.
    """
    rates = lambda peak: optax.warmup_cosine_decay_schedule(0.0, peak, min(200, steps // 4), steps)
    stencil = optax.contrib.MuonDimensionNumbers((1, 2, 3), (0,))
    matrices = lambda tree: jax.tree.map(lambda x: stencil if x.ndim == 4 else None, tree)
    return optax.contrib.muon(
        rates(rate), adam_learning_rate=rates(0.15 * rate), muon_weight_dimension_numbers=matrices
    )


def mosaic_loss(model: tuple[Chain, Array], keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """Returns the mean error of demosaicking a batch of mosaics, relative to that usual for their noise.

    The patches are a frozen part of the model.
    """
    chain, squares = model

    def one(picture, key):
        level, random = jr.split(key)
        noise = random_noise(level, CLEAN_SHARE["demosaic"])
        given = mosaic(picture)
        given = given + deviation_of_roots(noise) * jr.normal(random, given.shape, given.dtype)
        return relative_error(on_patches(with_noise_level(chain, noise))(given) - picture, noise)

    return patches.mean_over(one, squares, keys)


def finished(picture: Float[Array, "3 s s"]) -> Float[Array, "3 s s"]:
    """Returns the target of a chain for a raw of the picture: the picture."""
    return picture


def noise_free_loss(
    model: tuple[Chain, Array], keys: Key[Array, " batch"], target: Callable = finished
) -> Float[Array, ""]:
    """Returns the mean over a batch of noise-free raws of the logarithm of the mean squared error.

    The logarithm gives most weight to smooth patches, where errors of demosaicking do not hide those of the constants.
    """
    chain, squares = model
    one = lambda picture, _: jnp.log(_mean_square(chain(unprocess(picture)) - target(picture)) + 1e-5)
    return patches.mean_over(one, squares, keys)


def noisy_loss(model: tuple[Chain, Array], keys: Key[Array, " batch"], target: Callable = finished) -> Float[Array, ""]:
    """Returns the mean error of developing a batch of raws, relative to that usual for their noise."""
    chain, squares = model

    def one(picture, key):
        level, random = jr.split(key)
        noise = random_noise(level, CLEAN_SHARE["noisy"])
        given = unprocess(picture, noise, key=random)
        return relative_error(on_patches(with_noise_level(chain, noise))(given) - target(picture), noise)

    return patches.mean_over(one, squares, keys)


def relative_error(difference: Float[Array, "..."], noise: Float[Array, " 2"]) -> Float[Array, ""]:
    """Returns the root of the mean square of a patch's error, divided by its usual size at this noise."""
    usual = WITHOUT_NOISE + relative_noise(noise) ** GROWTH
    return jnp.sqrt((_mean_square(difference) + 1e-8) / usual)  # smooth at 0


def random_noise(key: PRNGKeyArray, clean_share: float) -> Float[Array, " 2"]:
    """Returns the noise of a patch for training: none in a share of them, else of a random level."""
    clean, at = jr.split(key)
    level = jnp.interp(jr.uniform(at), jnp.array(QUANTILES), jnp.array(LEVELS_TRAINED))
    relative = jnp.where(jr.bernoulli(clean, clean_share), 0.0, 4.0**level)
    middle = LEVELS["middle"]
    return jnp.stack([middle.shot * relative, middle.read * jnp.sqrt(relative)])


def train(
    task: str,
    chain: Chain,
    squares: Array,
    steps: int,
    *,
    key: PRNGKeyArray,
    state: Callable | None = None,
    trained_before: bool = False,
) -> tuple[Chain, History]:
    """Returns the chain trained through all its stages on patches, and the history of the last part of the training.

    The constants of the noisy chain are trained first, in `CONSTANTS` cheap steps more: see `with_constants`. Those of
    the camera are then frozen: noise would bias them. A chain that was trained before has its constants, and is trained
    at half the rate.

    Args:
        task: "noisy" or "demosaic".
        chain: the chain of the task.
        squares: the patches.
        steps: of the last part.
        key: of the batches.
        state: `state(part)` is the file to which a part of the training is saved, and from which it resumes.
        trained_before: whether the chain comes from an earlier training.
    """
    saved = (lambda part: None) if state is None else state
    first, second = jr.split(key)
    learn = partial(fit_patches, steps=steps, key=second, checkpoint=saved("fit"))
    optimizer = orthogonal(steps, RATE / 2 if trained_before else RATE)
    if task == "demosaic":
        (chain, _), history = learn(mosaic_loss, (chain, squares), optimizer)
        return chain, history
    if not trained_before:
        chain = with_constants(chain, squares, key=first, checkpoint=saved("constants"))
    model = (chain, squares)
    free = frozen(model, "0.stages.balance", "0.stages.color")
    (chain, _), history = learn(noisy_loss, model, optimizer, filter_spec=free)
    return chain, history


def fit_patches(loss: Callable, model, optimizer, *, steps: int, key: PRNGKeyArray, **options) -> tuple:
    """Returns the result of `fit` over batches of random patches, divided among as many devices as divide a batch."""
    keys = jax.vmap(lambda key: jr.split(key, BATCH))(jr.split(key, steps))
    devices = jax.devices()
    count = max(n for n in range(1, min(BATCH, len(devices)) + 1) if BATCH % n == 0)
    return fit(loss, model, optimizer, keys, devices=devices[:count] if count > 1 else None, **options)


def with_constants(chain: Chain, squares: Array, *, key: PRNGKeyArray, checkpoint=None) -> Chain:
    """Returns the chain with its constants trained on noise-free raws, with Malvar's filters in place of the network.

    With noise and no denoiser, constants that blur and fade the picture are the best ones, and a network trained with
    them compensates for them. Sharpening is frozen: it would compensate for Malvar's filters.
    """
    model = (chain.replace(demosaic=malvar), squares)
    free, optimizer = frozen(model, "0.stages.sharpen"), schedule(CONSTANTS, CONSTANTS_RATE)
    (trained, _), _ = fit_patches(
        noise_free_loss, model, optimizer, steps=CONSTANTS, key=key, filter_spec=free, checkpoint=checkpoint
    )
    return trained.replace(demosaic=chain.stages["demosaic"])


def smoothed(history: History) -> Float[np.ndarray, " n"]:
    """Returns the means of the loss over twenty steps each, of the last ones over fewer."""
    return np.array([np.mean(history.loss[at : at + 20]) for at in range(0, len(history.loss), 20)])


def on_patches(chain: Chain) -> Chain:
    """Returns the chain without mirroring at edges, for patches whose border does not count."""
    return chain.replace(demosaic=cast(Network, chain.stages["demosaic"]).inside)


def _mean_square(difference):
    return jnp.mean(difference[..., BORDER:-BORDER, BORDER:-BORDER] ** 2)
