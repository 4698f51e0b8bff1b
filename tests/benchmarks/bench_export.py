"""Size and latency of exported functions: `python tests/benchmarks/bench_export.py [SIDE]`.

The policy of CartPole over a batch of one state, and the noisy image chain on a mosaic of SIDE x SIDE pixels, by
default 256, both in single precision: compiled by `jax.jit`, from the file of `jax.export`, and as an ONNX model in
onnxruntime. The cases take turns; the table gives the size of the file, the seconds of export, the median and the least
time of a call, and the largest difference from the values of `jax.jit`, as a part of the largest value. For scale, the
last column is the same difference from the function in double precision, which that of `jax.jit` itself has, too.
"""

import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim.image import pretrained
from diffsim.io.exported import load_exported

ROUNDS = 200


def cases(side: int):
    """The functions by name, each in single and double precision, with shapes and an input."""
    policy = ds.BoundedMLP(4, -10.0, 10.0, width=24, key=jr.key(0))
    batch = jax.export.symbolic_shape("batch, 4")
    chain = pretrained.trained("noisy")
    across = np.linspace(0.05, 0.9, side, dtype=np.float32)
    mosaic = np.outer(across, across)
    yield "policy, batch 1", policy, jax.vmap, jax.ShapeDtypeStruct(batch, jnp.float32), np.full((1, 4), 0.1, "f4")
    yield f"chain, {side} x {side}", chain, lambda chain: lambda x: chain(x), mosaic, mosaic


def double(model, function, x):
    """The values in double precision."""
    with jax.enable_x64(True):
        cast = lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array(x) else x
        return np.asarray(jax.jit(function(jax.tree.map(cast, model)))(jnp.asarray(x, jnp.float64)))


def timed(calls, x, rounds: int):
    """The times of each call (s), which take turns."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call(x))
            times[name].append(time.perf_counter() - began)
    return times


def main(side: int = 256) -> None:
    folder = Path(tempfile.mkdtemp())
    heads = ("bytes", "export s", "median us", "least us", "error", "of double")
    print(f"{'case':20s}{'by':14s}" + "".join(f"{head:>12s}" for head in heads))
    for name, model, function, shape, x in cases(side):
        calls, facts = {"jax.jit": jax.jit(function(model))}, {"jax.jit": (0, 0.0)}
        for by, file in (("jax.export", "f.jax"), ("onnxruntime", "f.onnx")):
            began = time.perf_counter()
            path = ds.export(function(model), shape, path=folder / file)
            facts[by] = path.stat().st_size, time.perf_counter() - began
            calls[by] = load_exported(path)
        values = {by: np.asarray(jax.tree.leaves(call(x))[0]) for by, call in calls.items()}
        exact, own = double(model, function, x), values["jax.jit"]
        times = timed(calls, x, ROUNDS if x.size < 1000 else 20)
        for by, (size, seconds) in facts.items():
            error, of_double = (np.abs(values[by] - other).max() / np.abs(exact).max() for other in (own, exact))
            median, least = 1e6 * np.median(times[by]), 1e6 * min(times[by])
            numbers = f"{size:12d}{seconds:12.2f}{median:12.1f}{least:12.1f}{error:12.1e}{of_double:12.1e}"
            print(f"{name:20s}{by:14s}{numbers}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
