"""Experiments of equal structure as one batch: grouping, padding to a common length, and the way back."""

import heapq
import types
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._jax.tracers import is_tracer
from .._trees import is_key
from ..signals.signal import Signal
from .experiment import Experiment
from .validate import are_resolved

RATIO = 4  # by which lengths may differ within a group: a program to compile costs more than rows of padding


class Group(eqx.Module):
    """Experiments of equal structure, padded to one length.

    Attributes:
        batch: The experiments as one, whose arrays have a leading axis that counts them; its name is empty.
        members: Their numbers in the list of all experiments.
        rows: For each experiment, which rows of the batch are its own; the others are padding.
    """

    batch: Experiment
    members: tuple[int, ...] = eqx.field(static=True)
    rows: tuple[tuple[int, ...], ...] = eqx.field(static=True)


def grouped(experiments: Sequence[Experiment]) -> tuple[Group, ...]:
    """The experiments in groups of equal structure and, but for a factor of 4, of equal length.

    Each group is padded to its longest experiment.
    """
    inputs = _padded([experiment.inputs for experiment in experiments])
    padded = [_with_inputs(experiment, own) for experiment, own in zip(experiments, inputs, strict=True)]
    classes: dict[Any, list[int]] = {}
    for number, experiment in enumerate(padded):
        classes.setdefault(_structure(experiment), []).append(number)
    groups = []
    for numbers in classes.values():
        while numbers:
            longest = max(len(padded[number].ts) for number in numbers)
            pairs = {n: pad_times(padded[n].ts, longest) for n in numbers if RATIO * len(padded[n].ts) > longest}
            members = {number: pair for number, pair in pairs.items() if pair is not None}
            groups.append(_group(padded, members))
            numbers = [number for number in numbers if number not in members]
    return tuple(groups)


def pad_times(
    ts: Float[Array, " n"], length: int
) -> tuple[Float[Array | np.ndarray, " length"], Int[np.ndarray, " n"]] | None:
    """Times with others between them, and the rows of the given ones; None if their format does not resolve so many.

    The widest gap is divided in two, again and again: the first and the last time stay.
    """
    if length == len(ts):
        return ts, np.arange(length)
    if is_tracer(ts) or len(ts) < 2:
        return None
    values = np.asarray(ts)
    gaps = [(a - b, a, b) for a, b in zip(values[:-1].tolist(), values[1:].tolist(), strict=True)]
    heapq.heapify(gaps)  # of negative widths, so that the first is the widest
    between = []
    for _ in range(length - len(values)):
        _, a, b = heapq.heappop(gaps)
        middle = a + (b - a) / 2
        between.append(middle)
        heapq.heappush(gaps, (a - middle, a, middle))
        heapq.heappush(gaps, (middle - b, middle, b))
    padded = np.sort(np.concatenate([values, np.asarray(between, values.dtype)]))
    return (padded, np.searchsorted(padded, values)) if are_resolved(padded) else None


def _padded(inputs: Sequence[PyTree]) -> Sequence[PyTree]:
    """The inputs of all experiments, with held and linear signals of the same kind brought to the longest length."""
    is_signal = lambda x: isinstance(x, Signal)
    flat = [jax.tree.flatten(own, is_leaf=is_signal) for own in inputs]
    keys = [[(tree, place, _kind(leaf)) for place, leaf in enumerate(leaves)] for leaves, tree in flat]
    longest: dict[Any, int] = {}
    for (leaves, _), own in zip(flat, keys, strict=True):
        for leaf, key in zip(leaves, own, strict=True):
            if is_signal(leaf):
                longest[key] = max(longest.get(key, 0), leaf.times.shape[0])
    pad = lambda leaf, key: leaf.padded(longest[key]) if _can_be_padded(leaf) else leaf
    return [
        jax.tree.unflatten(tree, [pad(leaf, key) for leaf, key in zip(leaves, own, strict=True)])
        for (leaves, tree), own in zip(flat, keys, strict=True)
    ]


def _can_be_padded(leaf: Any) -> bool:
    is_table = isinstance(leaf, Signal) and leaf.kind in ("hold", "linear") and leaf.period is None
    return is_table and not is_tracer(leaf.times) and not is_tracer(leaf.values) and leaf.times.shape[0] > 1


def _kind(leaf: Any) -> tuple:
    """What signals have in common that can be brought to one length."""
    if not isinstance(leaf, Signal):
        return ()
    return leaf.kind, leaf.outside, leaf.unit, leaf.values.shape[1:], _can_be_padded(leaf)


def _with_inputs(experiment: Experiment, inputs: PyTree) -> Experiment:
    return eqx.tree_at(lambda e: e.inputs, experiment, inputs, is_leaf=lambda leaf: leaf is None)


def _structure(experiment: Experiment) -> tuple:
    """What experiments of one group have in common."""
    leaves, tree = jax.tree.flatten((experiment.y0, experiment.inputs, experiment.noise))
    kinds = tuple((leaf.shape, leaf.dtype) if eqx.is_array(leaf) else _static(leaf) for leaf in leaves)
    data = experiment.data
    return tree, kinds, data.shape[1:], data.dtype, experiment.ts.dtype, experiment.columns


def _static(leaf: Any) -> Any:
    """A key that is equal for what means the same: functions that one line has defined several times do."""
    if isinstance(leaf, types.FunctionType) and not leaf.__kwdefaults__:
        cells = tuple(id(cell.cell_contents) for cell in leaf.__closure__ or ())
        return leaf.__code__, id(leaf.__globals__), tuple(map(id, leaf.__defaults__ or ())), cells
    try:
        hash(leaf)
    except TypeError:
        return "object", id(leaf)
    return type(leaf), leaf


def _group(experiments: Sequence[Experiment], members: dict[int, tuple[Any, np.ndarray]]) -> Group:
    first = experiments[next(iter(members))]
    padded = [_lengthened(experiments[number], ts, rows) for number, (ts, rows) in members.items()]
    tree = jax.tree.structure(_without_name(first))
    columns = zip(*(jax.tree.leaves(experiment) for experiment in padded), strict=True)
    leaves = [_stacked(column) if eqx.is_array(column[0]) else column[0] for column in columns]
    rows = tuple(tuple(rows.tolist()) for _, rows in members.values())
    return Group(jax.tree.unflatten(tree, leaves), tuple(members), rows)


def _lengthened(experiment: Experiment, ts: Any, rows: np.ndarray) -> Experiment:
    """An experiment with more times, and gaps there."""
    if len(ts) == len(rows):
        return experiment
    data = _fill(experiment.data, np.nan, len(ts), rows)
    weights = _fill(experiment.weights, 1.0, len(ts), rows)
    return eqx.tree_at(lambda e: (e.ts, e.data, e.weights), experiment, jax.device_put((ts, data, weights)))


def _fill(array: Array, value: float, length: int, rows: np.ndarray) -> Array | np.ndarray:
    """An array with so many rows, of which the given ones are its own and the others have a value."""
    filled = np.full((length, *array.shape[1:]), value, array.dtype)
    if is_tracer(array):
        return jnp.asarray(filled).at[rows].set(array)
    filled[rows] = array
    return filled


def _stacked(arrays: Sequence[Array]) -> Array:
    """Arrays along a new first axis; by NumPy if that can be, without a program to compile for each number of them."""
    if is_key(arrays[0]) or any(is_tracer(array) for array in arrays):
        return jnp.stack(arrays)
    return jnp.asarray(np.stack([np.asarray(array) for array in arrays]))


def _without_name(experiment: Experiment) -> Experiment:
    """The experiment without its name, in which experiments of one group differ."""
    copy = jax.tree.unflatten(jax.tree.structure(experiment), jax.tree.leaves(experiment))
    object.__setattr__(copy, "name", "")
    return copy
