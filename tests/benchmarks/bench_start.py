"""What a second process saves by the compilation cache: `python tests/benchmarks/bench_start.py [FOLDER]`.

Two processes, one after the other, begin the trebuchet's fit (`fit_least_squares`, 512 targets) with the cache in a
folder, a new one if none is named, and make one step of it; factorisations have one thread, as in the command line.
Printed are the CPU seconds of that first step, from the call of the fit to its end, and the wall seconds of tracing, of
lowering, and of compiling or reading. Exits with 1 if the second process takes more than 1.5 s with jax 0.12, or 2.5 s
with an earlier one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling or reading",
}


def first_step(folder: str) -> dict:
    """The CPU seconds of the first step in this process, and the wall seconds of its parts."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    import trebuchet  # sets double precision

    import diffsim as ds

    ds.compilation.cache_compilation(folder)

    draw = np.random.default_rng(0)
    targets = jnp.asarray(np.column_stack([draw.uniform(20.0, 60.0, 512), draw.normal(size=512)]))
    model = trebuchet.network(jr.key(0))
    chosen = ds.trainable(model, "layers")
    spent = {name: [0.0] for name in PARTS.values()}
    note = lambda event, seconds, **_: spent[PARTS[event]].append(seconds) if event in PARTS else None
    jax.monitoring.register_event_duration_secs_listener(note)
    began, wall = time.process_time(), time.perf_counter()
    options = {"solver": trebuchet.OPTIMIZER, "steps": 1, "filter_spec": chosen, "progress": False}
    ds.fit_least_squares(trebuchet.misses, model, targets, **options)
    seconds = {"CPU": time.process_time() - began, "wall": time.perf_counter() - wall}
    # Traces within a trace are reported too: the longest is the total.
    return seconds | {name: max(times) if name == "tracing" else sum(times) for name, times in spent.items()}


def main(folder: str) -> int:
    import jax

    limit = 1.5 if jax.__version_info__ >= (0, 12) else 2.5
    for name in ("first", "second"):
        command = [sys.executable, __file__, "step", folder]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        seconds = json.loads(done.stdout.splitlines()[-1])
        print(f"{name} process: " + ", ".join(f"{what} {value:.2f} s" for what, value in seconds.items()), flush=True)
    return int(seconds["CPU"] > limit)


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        print(json.dumps(first_step(sys.argv[2])))
        sys.exit()
    with tempfile.TemporaryDirectory() as fresh:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else fresh))
