"""One process of a fit that many devices share: `python sharing.py FOLDER DEVICES COUNT INDEX PORT [TASK]`.

Saves its result as FOLDER/result-INDEX. The task "stop" interrupts the fit in all processes, "die" kills the last
process in the middle of it, "minutes" has no time; "stream" has the batches from a stream, in each process its own part
of them, "stop-stream" interrupts that fit, and "short" gives the last process fewer batches.
"""

import os
import sys
import time
from pathlib import Path

import jax


def main(folder: str, devices: str, count: str, index: str, port: str, task: str = "") -> None:
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", int(devices))
    import diffsim as ds

    if int(count) > 1:
        ds.train.join_processes(f"127.0.0.1:{port}", int(count), int(index), seconds=20)
    import optax

    loss, model, batches = problem()
    path = Path(folder)

    def validation(model):
        if task == "die" and int(index) == int(count) - 1:
            while not (path / "fit.npz").exists():  # of the first process, which may be slower
                time.sleep(0.1)
            os._exit(9)
        return loss(model, jax.tree.map(lambda leaf: leaf[0], batches))

    def callback(progress):
        metrics(progress)
        if task in ("stop", "stop-stream") and progress.step >= 6:
            os._exit(7)

    def own_part(step):
        size = 8 // int(count)
        own = slice(int(index) * size, (int(index) + 1) * size)
        last = 7 if task == "short" and int(index) == int(count) - 1 else 10
        return (jax.tree.map(lambda leaf: leaf[i, own], batches) for i in range(step, last))

    metrics, is_stream = ds.train.MetricsFile(path / "metrics.jsonl"), task in ("stream", "stop-stream", "short")
    model, history = ds.fit(
        loss,
        model,
        optax.adam(1e-2, eps=1e-3),  # the default eps multiplies the rounding of small gradients
        ds.train.ResumableStream(own_part) if is_stream else batches,
        steps=10 if is_stream else None,
        steps_per_call=3,
        devices=jax.devices() if task != "one" else None,
        checkpoint=ds.Checkpoint(path / "fit.npz", seconds=0.0),
        early_stopping=ds.EarlyStopping(validation=validation, minutes=0.0 if task == "minutes" else None),
        callback=callback,
    )
    ds.save(path / f"result-{index}", (model, history.loss, history.validation))


def problem():
    """The loss, model and batches: an adaptive solve of each item under a network's command, with keys for noise."""
    import jax.numpy as jnp
    import jax.random as jr

    import diffsim as ds

    def one(model, item):
        key, start = item
        noise = 0.1 * jr.normal(key)
        push = lambda t, y, model: model(jnp.stack([y, noise])) - y**3
        return ds.integrate(push, start, jnp.array([0.0, 1.0]), model, max_steps=64)[-1] ** 2

    def loss(model, batch):
        return jnp.mean(jax.vmap(lambda item: one(model, item))(batch))

    steps, items = 10, 8
    batches = jr.split(jr.key(1), (steps, items)), jnp.tile(jnp.linspace(-1.0, 2.0, items), (steps, 1))
    return loss, ds.BoundedMLP(2, -1.0, 1.0, width=4, key=jr.key(0)), batches


if __name__ == "__main__":
    main(*sys.argv[1:])
