"""Local parameters: those of which each experiment has its own, along a leading axis of the parameter."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .._types import Model
from ..parameters import parameters, trainable


def repeated(model: Model, paths: Sequence[str], count: int) -> Model:
    """The model with each local parameter repeated `count` times along a leading axis."""
    is_local = _is_local(model, paths)
    repeat = lambda leaf, local: jnp.broadcast_to(leaf, (count, *leaf.shape)) if local else leaf
    return jax.tree.map(repeat, model, is_local)


def split(model: Model, paths: Sequence[str], count: int) -> tuple[Model, Model]:
    """The local parameters of a model, whose leading axes count the experiments, and the rest.

    Raises InputError for a local parameter with another leading axis.
    """
    local, shared = eqx.partition(model, _is_local(model, paths))
    for path, entry in parameters(local).items():
        if entry.value.shape[:1] != (count,):
            raise InputError(
                f"{path} has shape {entry.value.shape}, but is local to {count} experiments, which its first axis "
                "counts: start from problem.start(model)"
            )
    return local, shared


def entries(model: Model, paths: Sequence[str], labels: tuple[str, ...]) -> dict[str, str]:
    """The label of the experiment for each entry of the local parameters, as in {'offset[1]': 'hot'}."""
    local, _ = split(model, paths, len(labels))
    return {
        f"{path}{list(index)}": labels[index[0]]
        for path, entry in parameters(local).items()
        for index in np.ndindex(entry.value.shape)
    }


def _is_local(model: Model, paths: Sequence[str]) -> PyTree[bool]:
    return trainable(model, *paths) if paths else jax.tree.map(lambda _: False, model)
