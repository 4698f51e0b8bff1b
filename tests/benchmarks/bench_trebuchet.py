"""Times of the trebuchet: single and batched throws with gradients, aiming, inference, against SciPy.

    python tests/benchmarks/bench_trebuchet.py [--write]

All cases live in one process and are run in turns, each once untimed before it is timed; the table gives minimum
and median wall time and the least CPU
time without compilation. The numbers depend on the machine's load: ratios are more reliable.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import trebuchet as scenario  # sets double precision

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from scipy_trebuchet import value_and_differences

import diffsim as ds
from diffsim.systems.trebuchet import FAST, aim, throw
from timing import keep, name_of, program

BATCH = 512
CONTROLS = np.array([np.pi / 4, 44.492875573300005, 0.0])


def range_of(x):
    """Range (m) for angle (rad), mass (kg) and wind (m/s), at the training tolerance."""
    p = scenario.shot(*x)
    return throw(p, check=False, stepsize_controller=FAST, solver=dfx.Tsit5(), mode="forward").range


def value_and_slopes(x):
    """Range and its derivatives in the three controls."""
    return jax.vmap(lambda v: jax.jvp(range_of, (x,), (v,)), out_axes=(None, 0))(jnp.eye(3))


def measure(cases, rounds: int = 20):
    """For each case the wall times and CPU times of all rounds, the cases taking turns."""
    times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, count, _) in cases.items():
            jax.block_until_ready(run())  # SciPy's turn clears the caches
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            times[name].append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return times


def main():
    x = jnp.asarray(CONTROLS)
    rng = np.random.default_rng(0)
    many = jnp.asarray(
        np.column_stack([rng.uniform(0.4, 1.0, BATCH), rng.uniform(20, 110, BATCH), rng.normal(0, 5, BATCH)])
    )
    model = scenario.network(jax.random.key(0))
    targets = jnp.asarray(np.column_stack([rng.uniform(20, 100, 1000), rng.normal(0, 5, 1000)]))
    aimed = scenario.shot(np.deg2rad(32.0), 40.0, -3.0), jnp.asarray(60.0)
    programs = {
        "throw, value": (ds.compilation.compile_whole(range_of), (x,), 1),
        "throw, value + 3 derivatives": (ds.compilation.compile_whole(value_and_slopes), (x,), 1),
        f"throws, value + 3 derivatives, batch {BATCH}": (
            ds.compilation.compile_whole(lambda m: jax.lax.map(value_and_slopes, m)),
            (many,),
            BATCH,
        ),
        "aim one target to 1e-7": (ds.compilation.compile_whole(lambda p, x: aim(p, x, *scenario.MASSES)), aimed, 1),
        "network, batch 1,000": (lambda t: jax.vmap(model)(t), (targets,), 1000),
    }
    cases = {}
    for name, (function, args, count) in programs.items():
        compiled, seconds = program(function, *args)
        jax.block_until_ready(compiled(*args))
        cases[name] = (lambda p=compiled, a=args: p(*a), count, seconds)
    cases["SciPy, value + central differences"] = (lambda: value_and_differences(CONTROLS), 1, 0.0)
    times = measure(cases)
    reference = min(t for t, _ in times["SciPy, value + central differences"])
    print(f"{'case':46s} {'min us':>10s} {'median us':>10s} {'CPU us':>10s} {'compile CPU s':>14s} {'SciPy/this':>11s}")
    rows = {}
    for name, (_, _, seconds) in cases.items():
        walls, cpus = zip(*times[name], strict=True)
        row = [1e6 * f for f in (min(walls), np.median(walls), min(cpus))]
        print(f"{name:46s} {row[0]:10.1f} {row[1]:10.1f} {row[2]:10.1f} {seconds:14.1f} {reference / min(walls):11.0f}")
        rows[name_of(name)] = {"min_us": row[0], "median_us": row[1], "cpu_us": row[2], "compile_seconds": seconds}
    keep("trebuchet_times", "bench_trebuchet.py --write", rows=rows)
    value, slopes = value_and_differences(CONTROLS)
    ours, ours_slopes = jax.jit(value_and_slopes)(x)
    print(f"ranges differ by {abs(float(ours) - value):.1e} m, derivatives by {np.abs(ours_slopes - slopes).max():.1e}")


if __name__ == "__main__":
    main()
