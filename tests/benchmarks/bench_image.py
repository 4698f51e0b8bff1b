"""CPU time, compile time and memory of every image stage and of the full chain, forward and with gradients.

    python tests/benchmarks/bench_image.py [--megapixels 1] [--stage NAME] [--torch | --compile] [--fresh] [--write]

CPU milliseconds per megapixel in single precision: the least of five rounds, each the mean of some runs. The gradient
is the picture together with the pull-back of a given picture to the stage's input and all its parameters: what a stage
does within a chain. Memory is what the compiled program allocates in addition to its arguments.
The process retains freed memory; with --fresh the allocator returns it to the system and requests it again. With
--torch, the rows that PyTorch and kornia have too run in turns with theirs, in this process. With --compile nothing
runs, and the table is of the CPU seconds of tracing and compiling; the allocator is left as it is, since the one heap
of all threads makes those that compile wait for each other.
"""

import argparse
import ctypes
import importlib.util
import time
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from diffsim import image
from diffsim.image import pretrained
from timing import keep, name_of, program


# Settings of glibc's allocator: one heap for all threads, which does not return freed blocks to the system.
ARENA_MAX, TRIM_THRESHOLD, MMAP_THRESHOLD = -8, -1, -3


class Stencil(eqx.Module):
    """A 5 x 5 stencil from one channel to three."""

    weight: jax.Array

    def __call__(self, picture):
        """The stencil's three sums."""
        return image.stencil(picture, self.weight)


def cases():
    """Stages and how many channels each takes: a mosaic has none of its own."""
    demosaic = pretrained.trained("demosaic").stages["demosaic"]
    return {
        "stencil 5x5 1->3": (Stencil(jr.normal(jr.key(0), (3, 1, 5, 5))), 1),
        "balance": (image.WhiteBalance(), 0),
        "malvar": (image.malvar, 0),
        "demosaic, small": (demosaic, 0),
        "guided filter r4": (image.GuidedFilter(), 3),
        "guided filter r4, one plane": (image.GuidedFilter(), 1),
        "bilateral grid 16 px, 8 deep": (image.BilateralGrid(), 3),
        "local Laplacian": (image.LocalLaplacian(), 3),
        "colour matrix": (image.ColorMatrix(), 3),
        "gamma": (image.Gamma(), 3),
        "tone curve": (image.ToneCurve(), 3),
        "saturation": (image.Saturation(), 3),
        "sharpen": (image.UnsharpMask(), 3),
        "retouch network": (image.RetouchNetwork(key=jr.key(0)), 3),
        "whole noisy chain": (pretrained.trained("noisy"), 0),
    }


def keep_memory() -> None:
    """Keeps freed memory for the next program: otherwise a run may request every page again, which takes time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((ARENA_MAX, 1), (TRIM_THRESHOLD, 2**31 - 1), (MMAP_THRESHOLD, 2**31 - 1)):
            mallopt(setting, value)


def cpu_ms(run, rounds: int = 5) -> float:
    """The least CPU time of one run over some rounds, in ms."""
    began = time.process_time()
    run()
    first = time.process_time() - began
    runs = int(np.clip(0.1 / max(first, 1e-3), 1, 20))
    times = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(runs):
            run()
        times.append((time.process_time() - began) / runs)
    return 1e3 * min(times)


def programs(stage, x):
    """The stage, and the stage with the pull-back of a picture, as functions of arrays, and their arguments."""
    arrays, static = eqx.partition(stage, eqx.is_inexact_array)
    arrays = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), arrays)
    forward = lambda p, x: eqx.combine(p, static)(x)

    def both(p, x, cotangent):
        picture, pull = jax.vjp(forward, p, x)
        return picture, pull(cotangent)

    shape = jax.eval_shape(forward, arrays, x).shape
    return (forward, (arrays, x)), (both, (arrays, x, jr.normal(jr.key(2), shape, jnp.float32)))


def compile_seconds(stage, x) -> list[float]:
    """CPU seconds of tracing and compiling, forward and with gradient."""
    return [program(function, *args)[1] for function, args in programs(stage, x)]


def measure(stage, x, size: float) -> list[float]:
    """For each of `size` megapixels: CPU ms forward and with gradient, their ratio, MB of memory of both."""
    times, sizes = [], []
    for function, args in programs(stage, x):
        compiled, _ = program(function, *args)
        memory = compiled.memory_analysis()
        sizes.append((memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6 / size if memory else np.nan)
        times.append(cpu_ms(lambda p=compiled, a=args: jax.block_until_ready(p(*a))) / size)
    return [*times, times[1] / times[0], *sizes]


def compare_with_torch(x, size: float, only: str) -> None:
    """Prints forward and backward CPU ms per megapixel of both, and their ratio."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("kornia") is None:
        print("PyTorch or kornia is not installed: nothing to compare with")
        return
    from torch_image import STAGES, rival

    print(f"{'forward and backward':30s} " + " ".join(f"{head:>10s}" for head in ("ours ms", "torch ms", "times")))
    for name in (name for name in STAGES if only in name):
        stage, channels = cases()[name]
        function, args = programs(stage, x[:channels])[1]
        compiled, _ = program(function, *args)
        theirs = rival(name, np.asarray(x), np.asarray(args[2]))
        pairs = [(cpu_ms(lambda: jax.block_until_ready(compiled(*args)), 1), cpu_ms(theirs, 1)) for _ in range(5)]
        ours, others = (min(times) / size for times in zip(*pairs, strict=True))
        print(f"{name:30s} {ours:10.1f} {others:10.1f} {others / ours:10.1f}", flush=True)


def table(heads: tuple[str, ...], row, picture, only: str) -> None:
    """Prints and keeps `row(stage, input)` for every stage."""
    rows = {}
    print(f"{'stage':30s} " + " ".join(f"{head:>10s}" for head in heads))
    for name, (stage, channels) in cases().items():
        if only in name:
            values = row(stage, picture[:channels] if channels else image.mosaic(picture))
            print(f"{name:30s} " + " ".join(f"{value:10.1f}" for value in values), flush=True)
            rows[name_of(name)] = {name_of(head): float(value) for head, value in zip(heads, values, strict=True)}
    group = "compile" if "forward_s" in next(iter(rows.values())) else "stages"
    keep("images", f"bench_image.py{' --compile' * (group == 'compile')} --write", **{group: rows})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--stage", default="")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--torch", action="store_true")
    kind.add_argument("--compile", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--write", action="store_true", help="also keep the table in docs/results/")
    options = parser.parse_args()
    if not (options.fresh or options.compile):
        keep_memory()
    side = round(np.sqrt(options.megapixels * 1e6) / 16) * 16
    picture = jr.uniform(jr.key(1), (3, side, side), jnp.float32)
    size = side * side / 1e6
    print(f"{side} x {side} pixels" + ("" if options.compile else "; per MP"))
    if options.compile:
        table(("forward s", "+ gradient s"), compile_seconds, picture, options.stage)
    elif options.torch:
        compare_with_torch(picture, size, options.stage)
    else:
        heads = ("forward ms", "+ gradient ms", "ratio", "MB", "MB grad")
        table(heads, partial(measure, size=size), picture, options.stage)


if __name__ == "__main__":
    main()
