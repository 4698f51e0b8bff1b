"""The noisy chain's stages trained in their order, each alone: what training them together is measured against."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from .._errors import InputError
from ..parameters import parameters, trainable
from . import patches
from .bayer import mosaic
from .chain import Chain
from .colour import root
from .sensor import CAMERA, camera_colours, to_srgb
from .trained import told
from .training import CONSTANTS, CONSTANTS_RATE, fit_patches, noisy_raw, on_patches, orthogonal, schedule, weighed


def one_by_one(chain: Chain, squares: Array, steps: int, *, key: PRNGKeyArray) -> Chain:
    """The chain whose stages were trained in their order, each alone, in as many steps as `train` takes in all.

    The stages beside the network have few parameters: `shares` says how many of the steps they get.
    """
    network, few = shares(chain, steps)
    for name in _learned(chain):
        free = trainable((chain, squares), f"0.stages.{name}")
        count = network if name == "demosaic" else few
        optimizer = orthogonal(count) if name == "demosaic" else schedule(count, CONSTANTS_RATE)
        loss, model = stage_loss(name), (chain, squares)
        (chain, _), _ = fit_patches(loss, model, optimizer, steps=count, key=key, train=free)
    return chain


def shares(chain: Chain, steps: int) -> tuple[int, int]:
    """The steps of the network and of each other stage when they train one by one, in all those of `train`."""
    total, others = CONSTANTS + steps, len(_learned(chain)) - 1
    few = min(CONSTANTS // 3, total // (2 * others))
    return total - others * few, few


def _learned(chain: Chain) -> list[str]:
    """The names of the stages that have parameters."""
    return [name for name in chain.stages if parameters(chain.stages[name])]


def stage_loss(name: str):
    """The loss of one stage alone, against what the camera itself has at its place."""

    def loss(model, keys):
        chain, squares = model

        def one(picture, key):
            # The stages before are done learning.
            given, noise = noisy_raw(picture, key)
            informed = on_patches(told(chain, noise))
            found = jax.lax.stop_gradient(_upto(informed, name, given))
            return weighed(informed.stages[name](found) - _target(name, picture), noise)

        return patches.mean_over(one, squares, keys)

    return loss


def _upto(chain: Chain, name: str, x):
    """What the stages before `name` make of a raw."""
    for before, stage in chain.stages.items():
        if before == name:
            return x
        x = stage(x)
    raise InputError(f"no stage {name!r}")


def _target(name: str, picture):
    """The true picture after a stage: of the mosaic, of the camera's colours, of light, or the finished one."""
    seen = camera_colours(picture, CAMERA) * jnp.array([CAMERA.red, 1.0, CAMERA.blue], picture.dtype)[:, None, None]
    linear = jnp.einsum("ij,jhw->ihw", jnp.array(CAMERA.matrix, picture.dtype), seen)
    places = {"balance": mosaic(seen), "demosaic": root(seen), "colour": linear}
    return places.get(name, to_srgb(linear) if name == "gamma" else picture)
