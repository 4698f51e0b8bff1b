"""Predictions beside data: their shapes, gaps, other data, and the order of the list."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._errors import InputError
from .experiment import Experiment
from .groups import Group


def as_predictions(value: Any, experiment: Experiment, names: Sequence[str]) -> Array:
    """What a simulation returned, checked; `names` are those of the experiments that it stands for."""
    count, tail = len(experiment.ts), experiment.noise_shape
    expected = (count, *tail)
    shapes = [expected, (count,)] if experiment.replicates > 1 and tail == (1,) else [expected]
    where = f"{'experiments' if len(names) > 1 else 'experiment'} {', '.join(map(repr, names)):.100}"
    per_time = f"{tail[0]} numbers" if tail else "one number"
    cure = f"expected {expected}, {per_time} for each of the {count} times in experiment.ts"
    if not (eqx.is_array(value) or isinstance(value, np.ndarray)):
        raise InputError(f"simulate returned a {type(value).__name__} for {where}: return one array; {cure}")
    if value.shape not in shapes:
        raise InputError(f"simulate returned shape {value.shape} for {where}; {cure}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"simulate returned {value.dtype} for {where}: return real floating-point numbers")
    return jnp.asarray(value)


def aligned(experiment: Experiment, prediction: Array) -> tuple[Array, Array, Array, Bool[Array, "..."]]:
    """Prediction, data and weights of one shape and format, with harmless numbers in gaps, and where the data are.

    The shape is that of the data, with an axis for replicates before that of the columns if there are any.
    """
    data, measured = experiment.data, experiment.measured
    shape = data.shape
    if experiment.replicates > 1:
        columns = len(experiment.observables)
        shape = (data.shape[0], experiment.replicates, columns)
        prediction = prediction.reshape(-1, 1, columns)
    measured = measured.reshape(shape)
    # The choice comes before the arithmetic, so that NaN in a gap has no derivative. At 1 logarithms are defined, too.
    safe = lambda x: jnp.where(measured, x.reshape(shape).astype(prediction.dtype), 1.0)
    return safe(jnp.broadcast_to(prediction, shape)), safe(data), safe(experiment.weights), measured


def in_list_order(groups: Sequence[Group], values: Sequence[Array]) -> Float[Array, " n"]:
    """Values of all groups, each of shape (experiments, rows, ...), as one vector in the order of the list."""
    flat = jnp.concatenate([value.ravel() for value in values])
    starts = np.cumsum([0, *(value.size for value in values)])
    by_number = {
        number: start + _positions(value.shape, place, rows)
        for group, value, start in zip(groups, values, starts, strict=False)
        for place, (number, rows) in enumerate(zip(group.members, group.rows, strict=True))
    }
    order = np.concatenate([by_number[number] for number in sorted(by_number)])
    return flat if np.array_equal(order, np.arange(flat.size)) else flat[order]


def with_data(
    groups: Sequence[Group], experiments: Sequence[Experiment], labels: Sequence[str], data: Any
) -> list[Group]:
    """The groups with other data, a sequence of arrays or a dictionary by name."""
    arrays = _in_list(data, experiments, labels)
    flat = jnp.concatenate([*(array.ravel() for array in arrays), jnp.full(1, jnp.nan)])
    starts = np.cumsum([0, *(array.size for array in arrays)])
    changed = []
    for group in groups:
        old = group.batch.data
        # Padding takes the last of all numbers, which is NaN.
        source = np.full((*old.shape[:2], int(np.prod(old.shape[2:]))), flat.size - 1)
        for place, (number, rows) in enumerate(zip(group.members, group.rows, strict=True)):
            source[place, list(rows)] = np.arange(starts[number], starts[number + 1]).reshape(len(rows), -1)
        changed.append(eqx.tree_at(lambda g: g.batch.data, group, flat[source.reshape(old.shape)].astype(old.dtype)))
    return changed


def _positions(shape: tuple[int, ...], place: int, rows: tuple[int, ...]) -> Int[np.ndarray, " n"]:
    """The positions in a flat array of some rows of one experiment."""
    width = int(np.prod(shape[2:]))
    first = (place * shape[1] + np.array(rows)) * width
    return (first[:, None] + np.arange(width)).ravel()


def _in_list(data: Any, experiments: Sequence[Experiment], labels: Sequence[str]) -> list[Array]:
    if isinstance(data, Mapping):
        if set(data) != set(labels):
            raise InputError(f"data of {', '.join(map(str, data)):.200}: give those of {', '.join(labels):.200}")
        data = [data[label] for label in labels]
    if not isinstance(data, Sequence) or len(data) != len(experiments):
        raise InputError(f"data must be arrays for {len(experiments)} experiments, in a sequence or by name")
    arrays = [jnp.asarray(array) for array in data]
    for array, experiment, label in zip(arrays, experiments, labels, strict=True):
        if array.shape != experiment.data.shape:
            expected = f"that of experiment.data, {experiment.data.shape}"
            raise InputError(f"data of experiment {label!r} have shape {array.shape}, expected {expected}")
    return arrays
