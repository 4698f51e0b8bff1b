"""Exported files: called from this process, and measured."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import numpy as np
from jaxtyping import Array, PyTree

from .onnx_model import session

CALLS = 200
SECONDS = 1.0


def load_exported(path: str | Path) -> Callable[..., PyTree]:
    """Returns the function in a file that `export` wrote; that of an ONNX model returns a list of NumPy's arrays."""
    data = Path(path).read_bytes()
    if Path(path).suffix != ".onnx":
        return jax.jit(jax.export.deserialize(bytearray(data)).call)
    model = session(data)
    names = [given.name for given in model.get_inputs()]
    return lambda *args: model.run(None, dict(zip(names, map(np.asarray, jax.tree.leaves(args)), strict=True)))


def seconds_per_call(function: Callable, *args: PyTree[Array | np.ndarray]) -> float:
    """Returns the median time of a call after the first, of up to 200 calls in about a second."""
    jax.block_until_ready(function(*args))
    times, began = [], time.perf_counter()
    while len(times) < CALLS and time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measured(path: Path, *args: PyTree[Array | np.ndarray]) -> dict[str, str | float]:
    """Returns the path of an exported file, its size and the time of a call, by name."""
    seconds = seconds_per_call(load_exported(path), *args)
    return {"file": str(path), "bytes": path.stat().st_size, "microseconds_per_call": 1e6 * seconds}
