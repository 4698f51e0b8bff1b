"""CPU time, compile time and memory of every image stage and of the whole chain, forward and with gradients.

    python tests/benchmarks/bench_image.py [--megapixels 1] [--stage NAME]

CPU milliseconds per megapixel: the least of five runs, in single precision. The gradient is that of a sum of squares in
the picture and in all parameters. Memory is what the compiled program sets aside beside its arguments.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from diffsim import image
from diffsim.image import trained


class Stencil(eqx.Module):
    """A 5 x 5 stencil from one channel to three."""

    weight: jax.Array

    def __call__(self, picture):
        """The stencil on the first colour."""
        return image.stencil(picture[:1], self.weight)


def cases():
    """Stages and whether each takes a mosaic."""
    demosaic = trained.trained("demosaic").stages["demosaic"]
    return {
        "stencil 5x5 1->3": (Stencil(jr.normal(jr.key(0), (3, 1, 5, 5))), False),
        "balance": (image.Balance(), True),
        "malvar": (image.malvar, True),
        "demosaic (18, 18)": (demosaic, True),
        "guided filter r4": (image.GuidedFilter(), False),
        "bilateral grid 16 px, 8 deep": (image.BilateralGrid(), False),
        "local Laplacian": (image.LocalLaplacian(), False),
        "colour matrix": (image.ColourMatrix(), False),
        "gamma": (image.Gamma(), False),
        "tone curve": (image.ToneCurve(), False),
        "saturation": (image.Saturation(), False),
        "sharpen": (image.Sharpen(), False),
        "whole noisy chain": (trained.untrained("noisy", key=jr.key(0)), True),
    }


def compiled(function, *args):
    """The compiled program and the CPU seconds of tracing and compiling it."""
    began = time.process_time()
    program = jax.jit(function).lower(*args).compile()
    return program, time.process_time() - began


def cpu_ms(program, args, runs: int = 5) -> float:
    """The least CPU time of one run, in ms."""
    jax.block_until_ready(program(*args))
    times = []
    for _ in range(runs):
        began = time.process_time()
        jax.block_until_ready(program(*args))
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def measure(stage, x) -> list[float]:
    """CPU ms forward and with gradient, compile seconds of the latter, MB of memory of both."""
    arrays, static = eqx.partition(stage, eqx.is_inexact_array)
    forward = lambda p, x: eqx.combine(p, static)(x)
    loss = lambda p, x: jnp.sum(forward(p, x) ** 2)
    row = []
    for function in (forward, lambda p, x: jax.value_and_grad(loss, (0, 1))(p, x)):
        program, seconds = compiled(function, arrays, x)
        memory = program.memory_analysis()
        size = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
        row.append((cpu_ms(program, (arrays, x)), seconds, size))
    return [row[0][0], row[1][0], row[1][1], row[0][2], row[1][2]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--stage", default="")
    options = parser.parse_args()
    side = round(np.sqrt(options.megapixels * 1e6) / 16) * 16
    size = side * side / 1e6
    picture = jr.uniform(jr.key(1), (3, side, side), jnp.float32)
    print(f"per MP, at {side} x {side}")
    heads = ("forward ms", "+ gradient", "ratio", "compile s", "MB", "MB grad")
    print(f"{'stage':30s} " + " ".join(f"{head:>10s}" for head in heads))
    for name, (stage, takes_mosaic) in cases().items():
        if options.stage in name:
            x = image.mosaic(picture) if takes_mosaic else picture
            ahead, both, seconds, memory, memory_both = measure(stage, x)
            row = (ahead / size, both / size, both / ahead, seconds, memory / size, memory_both / size)
            print(f"{name:30s} " + " ".join(f"{value:10.1f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
