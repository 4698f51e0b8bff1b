"""The two chains that ship trained, and the parameters of chains in files."""

import io
import json
from importlib import resources
from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._errors import InputError
from ..io.files import write_whole
from ..io.npz import Entry, read_arrays, read_headers
from ..parameters import parameters, replace
from .chain import Chain
from .demosaicing.denoising_network import DenoisingDemosaic
from .demosaicing.network import DemosaicNetwork
from .sensor import Noise, noise_level
from .stages.color_matrix import ColorMatrix
from .stages.gamma import Gamma
from .stages.saturation import Saturation
from .stages.tone_curve import ToneCurve
from .stages.unsharp_mask import UnsharpMask
from .stages.variance_stabilization import stabilize_variance, unstabilize_variance
from .stages.white_balance import WhiteBalance

LONGEST = 4000  # bytes of the text that names the task
LAYERS, WIDEST = 16, 1024  # at most, of a network in a file
WIDTHS = {"noisy": (32, 64), "demosaic": (18, 18)}


def untrained(task: str, widths: tuple[int, ...] | None = None, *, key: PRNGKeyArray) -> Chain:
    """Returns the chain of a task before training, whose constants are those of no camera.

    Args:
        task: "noisy" develops a raw into a picture, "demosaic" demosaicks a mosaic without noise.
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
    """Returns the noisy chain for raws of this noise, which may be a pair of traced numbers."""
    network = cast(DenoisingDemosaic, chain.stages["demosaic"])
    level = noise_level(noise).astype(network.noise_level.dtype)
    return chain.replace(demosaic=eqx.tree_at(lambda n: n.noise_level, network, level))


def save(path: Path | str, task: str, chain: Chain) -> Path:
    """Writes the parameters of a chain in single precision, and returns the path."""
    network = cast(DemosaicNetwork | DenoisingDemosaic, chain.stages["demosaic"])
    about = json.dumps({"task": task, "widths": network.widths})
    values: dict[str, Any] = {name: np.asarray(entry.value, np.float32) for name, entry in parameters(chain).items()}
    return write_whole(Path(path), lambda out: np.savez_compressed(out, about=np.array(about), **values))


def load(path: Path | str) -> tuple[str, Chain]:
    """Returns the task and the chain in a file that `save` wrote.

    Names, shapes and sizes are compared with those of the chain of the task before the parameters are unpacked.

    Raises:
        InputError: for any other file.
    """
    try:
        return _load(Path(path).read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read, {error.strerror}") from error


def trained(task: str) -> Chain:
    """Returns the chain of a task, "noisy" or "demosaic", with the parameters that ship with the package."""
    if task not in WIDTHS:
        raise InputError(f"task={task!r}: give one of {', '.join(WIDTHS)}")
    return _load(resources.files("diffsim.image").joinpath("parameters", f"{task}.npz").read_bytes())[1]


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


def _load(data: bytes) -> tuple[str, Chain]:
    headers = read_headers(data)
    task, widths = _about(data, headers.pop("about", None))
    chain = untrained(task, widths, key=jr.key(0))
    chain = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if eqx.is_inexact_array(x) else x, chain)
    expected = {name: entry.value.shape for name, entry in parameters(chain).items()}
    if headers.keys() != expected.keys():
        raise InputError("the parameters are not those of this chain, as of another version; train again")
    for name, (shape, dtype) in headers.items():
        if shape != expected[name] or dtype != np.float32:
            raise InputError(f"{name} has shape {shape} of {dtype}, expected {expected[name]} of float32; train again")
    values = read_arrays(data)
    return task, replace(chain, {name: values[name] for name in expected})


def _about(data: bytes, entry: Entry | None) -> tuple[str, tuple[int, ...]]:
    """The task and the widths of the chain in an archive."""
    if entry is None or entry.shape or entry.dtype.kind != "U" or entry.dtype.itemsize > LONGEST:
        raise InputError("holds no parameters of a chain: its task is missing")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
        task, widths = about["task"], about["widths"]
        valid = isinstance(task, str) and len(widths) <= LAYERS and all(type(n) is int and n <= WIDEST for n in widths)
    except Exception as error:  # an archive can be damaged in many ways
        raise InputError(f"holds no parameters of a chain ({type(error).__name__})") from error
    if not valid:
        raise InputError(f"holds no parameters of a chain: widths={widths!s:.80}, at most {LAYERS} up to {WIDEST}")
    return task, tuple(widths)
