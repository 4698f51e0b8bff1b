"""The checks of the arrays of an experiment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .._jax.tracers import is_tracer

SEPARATION = 64  # units of eps * |t|: the steps between nearer times have rounding errors of more than a percent


def as_floats(name: str, value: Any) -> Any:
    """Floating-point numbers of the format of the value; the default one for integers.

    Arrays of NumPy until all is checked: operations of JAX, `asarray` too, would be compiled for each length.
    """
    array = _as_numbers(name, value)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.result_type(float)
    try:
        return array.astype(jax.dtypes.canonicalize_dtype(dtype))
    except (TypeError, ValueError):
        raise InputError(f"{name}={value!r:.60}: give an array of real numbers") from None


def _as_numbers(name: str, value: Any) -> Any:
    """An array of NumPy, or what is traced."""
    try:
        array = value if is_tracer(value) else np.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}={value!r:.60}: give an array, without rows of different lengths") from None
    if jnp.issubdtype(array.dtype, np.complexfloating):
        raise InputError(f"{name}={value!r:.60}: give an array of real numbers")
    return array


def check_shapes(ts: Any, data: Any, weights: Any, columns: tuple[str, ...]) -> None:
    """Raises InputError for shapes and names of columns that do not agree."""
    if ts.ndim != 1 or ts.size == 0:
        raise InputError(f"ts has shape {ts.shape}: give at least one time, in one dimension")
    if data.ndim not in (1, 2) or data.shape[0] != ts.size:
        expected = f"({ts.size},) or ({ts.size}, columns)"
        raise InputError(f"data has shape {data.shape} at {ts.size} times, expected {expected}; NaN is a gap")
    if weights.shape not in (data.shape, data.shape[:1]):
        raise InputError(f"weights has shape {weights.shape}, expected {data.shape} or {data.shape[:1]}")
    count = data.shape[1] if data.ndim == 2 else 1
    if columns and len(columns) != count:
        raise InputError(f"columns={columns} are {len(columns)} names for {count} columns of data: give one for each")
    once = tuple(dict.fromkeys(columns))
    if once and columns != once * (len(columns) // len(once)):
        raise InputError(f"columns={columns}: give replicates in blocks, each of {once}")


def check_times(ts: Any) -> None:
    """Raises InputError for known times that are not finite or do not increase, in the format in which they come."""
    if is_tracer(ts):
        return
    values = _as_numbers("ts", ts)
    values = values if values.dtype.kind in "fiu" else as_floats("ts", ts)
    if not np.all(np.isfinite(values)):
        where = int(np.argmin(np.isfinite(values)))
        raise InputError(f"ts[{where}]={values.flat[where]}: give finite times")
    late = np.flatnonzero(np.diff(values) <= 0) if values.ndim == 1 else []
    for where in late[:1]:
        pair = f"ts[{where}]={values[where]:g}, ts[{where + 1}]={values[where + 1]:g}"
        raise InputError(f"ts must increase: {pair}; sort the rows, and give replicates as columns of one name")


def are_resolved(ts: np.ndarray) -> bool:
    """Whether times increase and are far enough from each other for their format."""
    separation = SEPARATION * np.finfo(ts.dtype).eps * np.maximum(np.abs(ts[1:]), np.abs(ts[:-1]))
    return bool(np.all(np.diff(ts) > separation))


def check_separation(ts: Any) -> None:
    """Raises InputError for known times that are too near to each other for their format."""
    if is_tracer(ts) or are_resolved(ts):
        return
    where = int(np.argmin(np.diff(ts) / np.maximum(np.abs(ts[1:]), np.abs(ts[:-1]))))
    pair = f"ts[{where}]={ts[where]:g} and ts[{where + 1}]={ts[where + 1]:g}"
    raise InputError(f"{pair} are too near to each other for {ts.dtype}: count them from the first, or use float64")


def check_numbers(data: Any, weights: Any) -> None:
    """Raises InputError for known data that are infinite, and for weights that are negative or not finite."""
    if not is_tracer(data) and np.isinf(data).any():
        where = tuple(int(i) for i in np.argwhere(np.isinf(data))[0])
        raise InputError(f"data{list(where)}={data[where]}: give finite numbers, or NaN for a gap")
    bad = ~((weights >= 0) & np.isfinite(weights)) if not is_tracer(weights) else np.zeros(0)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(f"weights{list(where)}={weights[where]:g}: give finite numbers from 0 up")
