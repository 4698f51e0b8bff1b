"""The two chains that ship trained, and parameters of chains in files."""

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
from .._files import write_whole
from ..parameters import parameters, replace
from .chain import Chain
from .colour import Balance, ColourMatrix, Gamma, Saturation, ToneCurve, root, square
from .demosaic import Demosaic
from .restore import Restore
from .sensor import Noise, level
from .sharpen import Sharpen

WIDTHS = {"noisy": (32, 64), "demosaic": (18, 18)}


def untrained(task: str, widths: tuple[int, ...] | None = None, *, key: PRNGKeyArray) -> Chain:
    """The chain of a task before training: "noisy" develops a raw, "demosaic" fills in a clean mosaic.

    The first starts from wrong constants on purpose: those of no camera.
    """
    if task not in WIDTHS:
        raise InputError(f"task={task!r}: give one of {', '.join(WIDTHS)}")
    widths = WIDTHS[task] if widths is None else widths
    if min(widths, default=1) < 1:
        raise InputError(f"widths={widths}: a layer has at least one channel")
    if task == "demosaic":
        return Chain(demosaic=Demosaic(widths, key=key))
    return Chain(
        balance=Balance(),
        root=root,
        demosaic=Restore(widths, key=key),
        square=square,
        colour=ColourMatrix(),
        gamma=Gamma(),
        tone=ToneCurve(),
        saturation=Saturation(),
        sharpen=Sharpen(),
    )


def told(chain: Chain, noise: Noise | Float[Array, " 2"]) -> Chain:
    """The noisy chain, told the noise of the raws to come; `noise` may be a pair of traced numbers."""
    network = cast(Restore, chain.stages["demosaic"])
    return chain.replace(demosaic=eqx.tree_at(lambda n: n.level, network, level(noise).astype(network.level.dtype)))


def save(path: Path | str, task: str, chain: Chain) -> Path:
    """The path, where the chain's parameters now are, in single precision."""
    network = cast(Demosaic | Restore, chain.stages["demosaic"])
    about = json.dumps({"task": task, "widths": network.widths})
    values: dict[str, Any] = {name: np.asarray(entry.value, np.float32) for name, entry in parameters(chain).items()}
    return write_whole(Path(path), lambda out: np.savez_compressed(out, about=np.array(about), **values))


def load(path: Path | str) -> tuple[str, Chain]:
    """The task and the chain in a file that `save` wrote; raises InputError for any other."""
    try:
        return _load(Path(path).read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read, {error.strerror}") from error
    except Exception as error:  # the ways in which a zip archive can be damaged are many
        raise InputError(f"{path}: holds no parameters of a chain ({type(error).__name__})") from error


def trained(task: str) -> Chain:
    """The chain of a task, "noisy" or "demosaic", with the parameters that ship with the package."""
    if task not in WIDTHS:
        raise InputError(f"task={task!r}: give one of {', '.join(WIDTHS)}")
    return _load(resources.files("diffsim.image").joinpath("parameters", f"{task}.npz").read_bytes())[1]


def chosen(task: str, path: Path | None) -> Chain:
    """The chain of a task with parameters from a file, or as shipped; raises InputError for those of another task."""
    if path is None:
        return trained(task)
    kind, chain = load(path)
    if kind != task:
        raise InputError(f"{path}: was trained for the task {kind!r}, not {task!r}")
    return chain


def _load(data: bytes) -> tuple[str, Chain]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        values = {name: file[name] for name in file.files if name != "about"}
    chain = untrained(about["task"], tuple(about["widths"]), key=jr.key(0))
    chain = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if eqx.is_inexact_array(x) else x, chain)
    if values.keys() != parameters(chain).keys():
        raise InputError("the parameters are not those of this chain, as of another version; train again")
    return about["task"], replace(chain, values)
