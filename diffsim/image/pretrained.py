"""The two chains that ship trained, and the parameters of chains in files."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import msgspec
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._errors import InputError
from ..io.checkpoint import CheckpointContents, misfits, parse, read_bytes, write
from ..io.leaves import Leaf
from ..parameters import parameters, replace
from .chain import Chain
from .demosaicing.denoising_network import DenoisingDemosaic
from .demosaicing.network import DemosaicNetwork
from .sensor import Noise, relative_noise
from .stages.color_matrix import ColorMatrix
from .stages.gamma import Gamma
from .stages.saturation import Saturation
from .stages.tone_curve import ToneCurve
from .stages.unsharp_mask import UnsharpMask
from .stages.variance_stabilization import stabilize_variance, unstabilize_variance
from .stages.white_balance import WhiteBalance

WIDTHS = {"noisy": (24, 56), "demosaic": (16,) * 5}

Network = DemosaicNetwork | DenoisingDemosaic


class About(msgspec.Struct):
    """What a file of parameters says of its chain: the task, and the channels between the layers of the network."""

    task: Literal["noisy", "demosaic"]
    widths: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1024)], ...], msgspec.Meta(max_length=16)]


def untrained(task: str, widths: tuple[int, ...] | None = None, *, key: PRNGKeyArray) -> Chain:
    """Returns the chain of a task before training, whose constants are those of no camera.

    Args:
        task: "noisy" develops a raw into a picture, "demosaic" demosaicks a mosaic of finished values.
        widths: channels between the layers of the network; None are the task's own.
        key: of the weights.

    Raises:
        InputError: for an unknown task and for widths that it does not have.
    """
    if task not in WIDTHS:
        raise InputError(f"task={task!r}: give one of {', '.join(WIDTHS)}")
    widths = WIDTHS[task] if widths is None else widths
    if min(widths, default=1) < 1:
        raise InputError(f"widths={widths}: a layer has at least one channel")
    if task == "demosaic":
        return Chain(demosaic=DemosaicNetwork(widths, key=key))
    return Chain(
        balance=WhiteBalance(),
        stabilize_variance=stabilize_variance,
        demosaic=DenoisingDemosaic(widths, key=key),
        unstabilize_variance=unstabilize_variance,
        color=ColorMatrix(),
        gamma=Gamma(),
        tone=ToneCurve(),
        saturation=Saturation(),
        sharpen=UnsharpMask(),
    )


def with_noise_level(chain: Chain, noise: Noise | Float[Array, " 2"]) -> Chain:
    """Returns the chain for raws of this noise, which may be none, or a pair of traced numbers.

    The mosaics of the task "demosaic" are square roots of light, whose noise has the standard deviation
    `sensor.deviation_of_roots(noise)`.
    """
    network = cast(Network, chain.stages["demosaic"])
    variance = relative_noise(noise).astype(network.noise.dtype)
    return chain.replace(demosaic=eqx.tree_at(lambda n: n.noise, network, variance))


def save(path: Path | str, task: str, chain: Chain) -> Path:
    """Writes the parameters of a chain in single precision, as a checkpoint, and returns the path."""
    network = cast(Network, chain.stages["demosaic"])
    leaves = {name: Leaf(np.asarray(entry.value, np.float32)) for name, entry in parameters(chain).items()}
    return write(path, leaves, {"task": task, "widths": network.widths})


def load(path: Path | str) -> tuple[str, Chain]:
    """Returns the task and the chain in a file that `save` wrote.

    Raises:
        InputError: For any other file. Names and shapes are compared with those of the chain of the task before the
            chain is built.
    """
    return _chain(path, parse(path, read_bytes(path)))


def trained(task: str) -> Chain:
    """Returns the chain of a task, "noisy" or "demosaic", with the parameters that ship with the package."""
    if task not in WIDTHS:
        raise InputError(f"task={task!r}: give one of {', '.join(WIDTHS)}")
    file = resources.files("diffsim.image").joinpath("parameters", f"{task}.npz")
    return _chain(file.name, parse(file.name, file.read_bytes()))[1]


def load_for_task(task: str, path: Path | str | None) -> Chain:
    """Returns the chain of a task with the parameters in a file, or with those that ship if there is none.

    Raises:
        InputError: for a file with the parameters of another task.
    """
    if path is None:
        return trained(task)
    trained_for, chain = load(path)
    if trained_for != task:
        raise InputError(f"{path}: was trained for the task {trained_for!r}, not {task!r}")
    return chain


def _chain(path: Path | str, contents: CheckpointContents) -> tuple[str, Chain]:
    try:
        about = msgspec.convert(contents.about, About)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} holds no parameters of a chain: {error!s:.200}") from error
    single = lambda chain: jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, chain)
    build = lambda: single(untrained(about.task, about.widths, key=jr.key(0)))
    # Traced, so that a file with wide layers and few parameters is refused before their memory is taken.
    expected = jax.eval_shape(lambda: {name: entry.value for name, entry in parameters(build()).items()})
    wrong = misfits(contents, expected)
    if wrong:
        raise InputError(f"{path}: the parameters are not those of this chain, {wrong[0]}; train again")
    return about.task, replace(build(), {name: leaf.value for name, leaf in contents.leaves.items()})
