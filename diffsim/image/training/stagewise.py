"""The stages of the noisy chain trained one after the other, for comparison with training them together."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...parameters import parameters, trainable
from ..chain import Chain
from ..demosaicing.bayer import mosaic
from ..demosaicing.linear import malvar
from ..sensor import CAMERA, camera_colors, to_srgb
from ..stages.variance_stabilization import stabilize_variance
from .train_chain import (
    CONSTANTS,
    CONSTANTS_RATE,
    finished,
    fit_patches,
    noise_free_loss,
    noisy_loss,
    orthogonal,
    schedule,
)


def one_by_one(chain: Chain, squares: Array, steps: int, *, key: PRNGKeyArray, own_targets: bool = False) -> Chain:
    """Returns the chain whose stages were trained one after the other, in as many steps as `train` takes in all.

    Data and losses are those of `train`: the constants are trained on noise-free raws with Malvar's filters in place of
    the network, then the network on noisy ones, sharpening last. The target of every stage is that of `train`, the
    finished picture; with `own_targets` it is the picture of the camera after that stage, which is known only of a
    simulated camera. `shares` divides the steps.
    """
    network, few = shares(chain, steps)
    alone = partial(_alone, squares=squares, key=key, own_targets=own_targets)
    network_stage = chain.stages["demosaic"]
    chain = chain.replace(demosaic=malvar)
    for name in [name for name in _small(chain) if name != "sharpen"]:
        chain = alone(chain, name, noise_free_loss, schedule(few, CONSTANTS_RATE), few)
    chain = alone(chain.replace(demosaic=network_stage), "demosaic", noisy_loss, orthogonal(network), network)
    return alone(chain, "sharpen", noisy_loss, schedule(few, CONSTANTS_RATE), few)


def shares(chain: Chain, steps: int) -> tuple[int, int]:
    """Returns the steps of the network and of each other stage when trained one by one, in all those of `train`."""
    total, others = CONSTANTS + steps, len(_small(chain))
    few = min(CONSTANTS // 3, total // (2 * others))
    return total - others * few, few


def _small(chain: Chain) -> list[str]:
    """The names of the stages with parameters, except the network."""
    return [name for name in chain.stages if name != "demosaic" and parameters(chain.stages[name])]


def _alone(chain: Chain, name: str, loss, optimizer, steps: int, *, squares, key, own_targets: bool) -> Chain:
    """The chain with one stage trained, all others frozen."""
    part, target = (_upto(chain, name), partial(own_target, name)) if own_targets else (chain, finished)
    model = (part, squares)
    free = trainable(model, f"0.stages.{name}")
    (part, _), _ = fit_patches(partial(loss, target=target), model, optimizer, steps=steps, key=key, filter_spec=free)
    return chain.replace(**{name: part.stages[name]})


def _upto(chain: Chain, last: str) -> Chain:
    names = list(chain.stages)
    return Chain(remat=chain.remat, **{name: chain.stages[name] for name in names[: names.index(last) + 1]})


def own_target(name: str, picture: Float[Array, "3 s s"]) -> Float[Array, "..."]:
    """Returns the picture of the camera after a stage: mosaic, camera colours, linear sRGB, or the finished picture."""
    seen = camera_colors(picture, CAMERA) * jnp.array([CAMERA.red, 1.0, CAMERA.blue], picture.dtype)[:, None, None]
    linear = jnp.einsum("ij,jhw->ihw", jnp.array(CAMERA.matrix, picture.dtype), seen)
    targets = {"balance": mosaic(seen), "demosaic": stabilize_variance(seen)}
    targets |= {"color": linear, "gamma": to_srgb(linear)}
    return targets.get(name, picture)
