"""One fit on one and several devices or processes: `python tests/benchmarks/bench_devices.py [CASE ...] [--write]`.

Cases: `controller` (the cart-pole's policy, 64 starts a step), `large controller` (1,024 starts), `trebuchet` (the
aimer, 64 targets a step) and `large trebuchet` (512 targets, as many as its scenario trains with), all by Adam. Each is
fitted on 1 CPU device, on 8 virtual devices of one process, and by 2 processes on loopback with one device each, the
total batch being the same. Printed are the greatest relative difference of the losses and of the parameters
from those of one device, the least wall time of a step in five fits, and its ratio to that on one device. Exits with 1
if a difference exceeds 1e-12. A process may use all cores, so that the ratio says what sharing costs only where
nobody else needs them: with fewer cores than devices, these wait for each other at every step.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from timing import WORDS, keep, name_of

STEPS, PER_CALL = 60, 20
ITEMS = {"controller": 64, "large controller": 1024, "trebuchet": 64, "large trebuchet": 512}
# Devices of each process, and the number of processes.
WAYS = {"1 device": (1, 1), "8 virtual devices": (8, 1), "2 processes": (1, 2)}


def work(case: str, devices: int, count: int, index: int, port: int) -> dict:
    """The losses, parameters and seconds a step of the fit in this process."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
    import jax

    import diffsim as ds

    jax.config.update("jax_num_cpu_devices", devices)
    if count > 1:
        ds.train.join_processes(f"127.0.0.1:{port}", count, index, seconds=120)
    jax.config.update("jax_enable_x64", True)
    import equinox as eqx
    import optax
    from jax.flatten_util import ravel_pytree

    loss, model, batches = trebuchet(ITEMS[case]) if "trebuchet" in case else controller(ITEMS[case])
    options = {"filter_spec": ds.trainable(model, "layers"), "steps_per_call": PER_CALL, "progress": False}
    optimizer, seconds = optax.adam(1e-3), []
    for _ in range(5):
        shared = jax.devices() if len(jax.devices()) > 1 else None
        fitted, history = ds.fit(loss, model, optimizer, batches, devices=shared, **options)
        seconds.append(history.seconds / STEPS)
    layers = eqx.filter(fitted.layers, eqx.is_array)
    return {"loss": history.loss.tolist(), "x": ravel_pytree(layers)[0].tolist(), "seconds": min(seconds)}


def controller(items: int):
    """The loss, model and batches of the cart-pole's policy."""
    import cartpole
    import jax.random as jr

    weights, starts = jr.split(jr.key(0))
    drawn = cartpole.control.sample_initial_states(starts, STEPS, items, cartpole.NEAR, cartpole.WIDE)
    return cartpole.loss_over(cartpole.HORIZON), cartpole.network(weights), drawn


def trebuchet(items: int):
    """The loss, model and batches of the aimer."""
    import jax.numpy as jnp
    import jax.random as jr
    import trebuchet

    draw = np.random.default_rng(0)
    targets = np.stack([draw.uniform(25.0, 55.0, (STEPS, items)), draw.normal(size=(STEPS, items))], axis=-1)
    loss = lambda model, targets: jnp.mean(trebuchet.misses(model, targets) ** 2)
    return loss, trebuchet.network(jr.key(0)), jnp.asarray(targets)


def run(case: str, devices: int, count: int) -> dict:
    """The result of the first of `count` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, __file__, "work", case, str(devices), str(count)]
    start = lambda index: subprocess.Popen(
        [*words, str(index), str(port)], stdout=subprocess.PIPE, text=True, env=environment
    )
    processes = [start(index) for index in range(count)]
    try:
        outputs = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        sys.exit(f"{case}: a process ended with {[process.returncode for process in processes]}")
    return json.loads(outputs[0].splitlines()[-1])


def main(cases: list[str]) -> int:
    worst = 0.0
    print(f"{'case':18s}{'on':20s}{'losses':>10s}{'parameters':>12s}{'ms a step':>11s}{'ratio':>7s}")
    for case in cases:
        one, rows = None, {}
        for way, (devices, count) in WAYS.items():
            result = run(case, devices, count)
            one = one or result
            differences = [
                np.max(np.abs(np.subtract(result[key], one[key])) / np.max(np.abs(one[key]))) for key in ("loss", "x")
            ]
            worst = max(worst, *differences)
            ratio = result["seconds"] / one["seconds"]
            numbers = f"{differences[0]:10.1e}{differences[1]:12.1e}{1e3 * result['seconds']:11.3f}{ratio:7.2f}"
            print(f"{case:18s}{way:20s}{numbers}", flush=True)
            rows[name_of(way)] = {"step_ms": 1e3 * result["seconds"], "difference": float(max(differences))}
        keep("devices", "bench_devices.py --write", cases={name_of(case): rows})
    return int(worst > 1e-12)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        print(json.dumps(work(sys.argv[2], *map(int, sys.argv[3:]))))
        sys.exit()
    sys.exit(main(WORDS or list(ITEMS)))
