"""Training of chains: photographs, losses, optimizers."""

from collections.abc import Callable
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, Key, PRNGKeyArray, UInt8

from ..._extras import extra
from ...parameters import frozen
from ...train.fit import fit
from ...train.history import History
from ..chain import Chain
from ..demosaicing.bayer import mosaic
from ..demosaicing.denoising_network import DenoisingDemosaic
from ..demosaicing.linear import malvar
from ..pretrained import with_noise_level
from ..sensor import LEVELS, SPAN, noise_level, unprocess
from . import patches

BATCH, BORDER = 8, 6
CONSTANTS, CONSTANTS_RATE = 300, 3e-2  # steps that train all but the network, and their rate
GROWTH = 0.9  # factors of two by which the squared error grows with a level of noise, about
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


def squares(size: int = 72, stride: int = 24) -> UInt8[Array, "n 3 size size"]:
    """Returns the patches of the training photographs."""
    return jnp.asarray(patches.cut(photographs(), size, stride))


def schedule(steps: int, rate: float = 3e-3) -> optax.GradientTransformation:
    """Returns Adam with a warm-up, its rate falling to zero as a cosine."""
    warm = min(200, steps // 4)
    rates = optax.warmup_cosine_decay_schedule(0.0, rate, warm, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates))


def orthogonal(steps: int, rate: float = 1e-2) -> optax.GradientTransformation:
    """Returns Muon for stencils, each a matrix of outputs by inputs, and Adam for the rest, with falling rates.

    Muon steps are equally long along all directions of a matrix: on this chain, Adam needs several times as many.
    """
    rates = lambda peak: optax.warmup_cosine_decay_schedule(0.0, peak, min(200, steps // 4), steps)
    stencil = optax.contrib.MuonDimensionNumbers((1, 2, 3), (0,))
    matrices = lambda tree: jax.tree.map(lambda x: stencil if x.ndim == 4 else None, tree)
    return optax.contrib.muon(
        rates(rate), adam_learning_rate=rates(0.15 * rate), muon_weight_dimension_numbers=matrices
    )


def clean_loss(model: tuple[Chain, Array], keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """Returns the mean squared error of demosaicking a batch; the patches are a frozen part of the model."""
    chain, squares = model
    return patches.mean_over(lambda x, _: _mean_square(chain(mosaic(x)) - x), squares, keys)


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
    """Returns the mean over a batch of raws of the squared error, divided by its usual size at their noise level."""
    chain, squares = model

    def one(picture, key):
        given, noise = _noisy_raw(picture, key)
        difference = on_patches(with_noise_level(chain, noise))(given) - target(picture)
        return _mean_square(difference) / 2.0 ** (GROWTH * noise_level(noise))

    return patches.mean_over(one, squares, keys)


def train(
    task: str, chain: Chain, squares: Array, steps: int, *, key: PRNGKeyArray, state: Callable | None = None
) -> tuple[Chain, History]:
    """Returns the chain trained through all its stages on patches, and the history of the last part of the training.

    The constants of the noisy chain are trained first, in `CONSTANTS` cheap steps more: see `with_constants`. Those of
    the camera are then frozen: noise would bias them.

    Args:
        task: "noisy" or "demosaic".
        chain: the chain of the task, untrained.
        squares: the patches.
        steps: of the last part.
        key: of the batches.
        state: `state(part)` is the file to which a part of the training is saved, and from which it resumes.
    """
    saved = (lambda part: None) if state is None else state
    first, second = jr.split(key)
    learn = partial(fit_patches, steps=steps, key=second, checkpoint=saved("fit"))
    if task == "demosaic":
        (chain, _), history = learn(clean_loss, (chain, squares), schedule(steps, 4e-3))
        return chain, history
    model = (with_constants(chain, squares, key=first, checkpoint=saved("constants")), squares)
    free = frozen(model, "0.stages.balance", "0.stages.color")
    (chain, _), history = learn(noisy_loss, model, orthogonal(steps), filter_spec=free)
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
    """Returns the noisy chain without mirroring at edges, for patches whose border does not count."""
    return chain.replace(demosaic=cast(DenoisingDemosaic, chain.stages["demosaic"]).inside)


def _noisy_raw(picture: Float[Array, "3 s s"], key: PRNGKeyArray) -> tuple[Float[Array, "s s"], Float[Array, " 2"]]:
    """A raw of the picture at a random noise level, and its noise."""
    strength, noise = jr.split(key)
    times = 2.0 ** jr.uniform(strength, (), picture.dtype, -SPAN, SPAN)
    middle = LEVELS["middle"]
    noise_of_raw = jnp.stack([middle.shot * times**2, middle.read * times])
    return unprocess(picture, noise_of_raw, key=noise), noise_of_raw


def _mean_square(difference):
    return jnp.mean(difference[..., BORDER:-BORDER, BORDER:-BORDER] ** 2)
