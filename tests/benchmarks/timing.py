"""Timing: cases in one process and in turns, minimum and median wall time, CPU time, and compilation separately.

What is measured is printed and, with `--write`, kept in docs/results/, which the documents read.
"""

import re
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from results_files import write


def program(function, *args):
    """The compiled program of a function of such arguments, and the CPU seconds of tracing and compiling it."""
    began = time.process_time()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.process_time() - began


def compiled(function, *args):
    """A call of the compiled function, and the CPU seconds of tracing and compiling it."""
    call, seconds = program(function, *args)
    return lambda: jax.block_until_ready(call(*args)), seconds


def name_of(title: str) -> str:
    """A title as a name in a results file: its letters and numbers in lower case, joined by underscores."""
    return "_".join(re.findall("[a-z0-9]+", title.replace(",", "").lower()))


WORDS = [word for word in sys.argv[1:] if word != "--write"]
"""The arguments of the command line that choose what is measured."""


def keep(file: str, command: str, **measured) -> None:
    """Writes groups of results to docs/results/FILE.json if the command line has `--write`."""
    if "--write" in sys.argv:
        write(file, f"python tests/benchmarks/{command}", measured)


def table(title: str, cases: dict, rounds: int = 30) -> dict[str, dict[str, float]]:
    """Times every case in turns; prints and returns the rows, with the differences of the gradients from the first."""
    runs = {name: case if isinstance(case, tuple) else (case, 0.0) for name, case in cases.items()}
    walls, cpus = {name: [] for name in runs}, {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            run()
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    first = next(iter(runs))
    reference = np.array(runs[first][0]()[1], copy=True)
    heads = "".join(f"{head:>11s}" for head in ("min us", "median us", "CPU us", "ratio", "compile s", "error"))
    print(f"\n{title}\n{'case':28s}{heads}")
    rows = {}
    for name, (run, seconds) in runs.items():
        error = np.max(np.abs(np.asarray(run()[1]) - reference)) / np.max(np.abs(reference))
        low, middle, cpu = (1e6 * x for x in (min(walls[name]), np.median(walls[name]), min(cpus[name])))
        ratio = min(walls[name]) / min(walls[first])
        print(f"{name:28s}{low:11.1f}{middle:11.1f}{cpu:11.1f}{ratio:11.2f}{seconds:11.2f}{error:11.1e}", flush=True)
        rows[name_of(name)] = {"min_us": low, "median_us": middle, "cpu_us": cpu, "compile_seconds": seconds}
        rows[name_of(name)]["error"] = float(error)
    return rows
