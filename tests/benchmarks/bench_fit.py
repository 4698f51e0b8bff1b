"""The cost of `fit` compared with a scan by hand: `python tests/benchmarks/bench_fit.py [ROUNDS]`.

A network with 337 parameters learns a function from minibatches of 64, 1,000 steps of Adam. By hand: a jitted scan with
donated state, once in calls of 50 steps as `fit` makes them, and once over all 1,000. The cases take turns; the table
gives the least and the median microseconds a step, and their ratios to the hand-written calls of 50. Exits with 1
if the least time of `fit` without options is more than 1.1 times that. At last the memory of the process is taken
during a fit of 10,000 compiled calls, each of which is saved.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds

STEPS, PER_CALL, LIMIT = 1000, 50, 1.1
OPTIMIZER = optax.adam(1e-2)
MODEL = ds.BoundedMLP(2, -1.0, 1.0, key=jr.key(0))
X = jr.normal(jr.key(1), (STEPS, 64, 2))
BATCHES = X, jnp.sin(X[..., 0])


def loss(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def by_hand(per_call: int):
    """The losses of a fit written for this problem alone."""
    leaves, tree = jax.tree.flatten(MODEL)
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def value(arrays, batch):
        full = [arrays[at.index(i)] if i in at else leaf for i, leaf in enumerate(leaves)]
        return loss(jax.tree.unflatten(tree, full), batch)

    def step(state, batch):
        arrays, memory = state
        result, gradient = jax.value_and_grad(value)(arrays, batch)
        updates, memory = OPTIMIZER.update(gradient, memory)
        return (optax.apply_updates(arrays, updates), memory), result

    program = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)
    chunks = [jax.tree.map(lambda b: b[i : i + per_call], BATCHES) for i in range(0, STEPS, per_call)]

    def run():
        arrays = [jnp.array(leaves[i]) for i in at]
        state, losses = (arrays, OPTIMIZER.init(arrays)), []
        began = time.perf_counter()
        for chunk in chunks:
            state, values = program(state, chunk)
            losses.append(values)
        losses = np.concatenate(losses)
        jax.block_until_ready(state)
        return losses, time.perf_counter() - began

    return run


def by_fit(**options):
    def run():
        history = ds.fit(loss, MODEL, OPTIMIZER, BATCHES, steps_per_call=PER_CALL, progress=False, **options)[1]
        return history.loss, history.seconds

    return run


def memory(path: str) -> None:
    """Prints the resident memory in MB after some of 10,000 compiled calls."""
    resident, page = {}, resource.getpagesize()

    def callback(progress):
        if progress.step in (100, 1_000, 5_000, 10_000):
            resident[progress.step] = int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6

    options = {"progress": False, "checkpoint": ds.Checkpoint(path, seconds=0.0), "callback": callback}
    batches = jax.tree.map(lambda b: jnp.tile(b[:100], (100, *[1] * (b.ndim - 1))), BATCHES)
    ds.fit(loss, MODEL, OPTIMIZER, batches, steps_per_call=1, **options)
    print("MB after calls: " + ", ".join(f"{calls}: {size:.1f}" for calls, size in resident.items()))


def main(rounds: int = 20) -> int:
    folder = tempfile.TemporaryDirectory()
    fresh = iter(range(10**6))

    def saved():
        options = ds.Checkpoint(f"{folder.name}/{next(fresh)}", seconds=0.0)
        return by_fit(checkpoint=options)()

    cases = {
        "by hand, calls of 50": by_hand(PER_CALL),
        "by hand, one call": by_hand(STEPS),
        "fit": by_fit(),
        "fit, non_finite=skip": by_fit(non_finite="skip"),
        "fit, non_finite=shrink": by_fit(non_finite="shrink"),
        "fit, saved after every call": saved,
    }
    times = {name: [] for name in cases}
    reference = cases["by hand, calls of 50"]()[0]
    for _ in range(rounds + 1):
        for name, case in cases.items():
            losses, seconds = case()
            np.testing.assert_allclose(losses, reference, rtol=1e-9)
            times[name].append(1e6 * seconds / STEPS)
    base = {name: np.array(values[1:]) for name, values in times.items()}
    first = base["by hand, calls of 50"]
    print(f"{'us a step':30s}{'least':>9s}{'median':>9s}{'ratio':>8s}{'ratio':>8s}")
    for name, values in base.items():
        ratios = values.min() / first.min(), np.median(values) / np.median(first)
        print(f"{name:30s}{values.min():9.2f}{np.median(values):9.2f}{ratios[0]:8.2f}{ratios[1]:8.2f}")
    memory(f"{folder.name}/memory")
    folder.cleanup()
    return int(base["fit"].min() > LIMIT * first.min())


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
