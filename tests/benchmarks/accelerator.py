"""Measures the default device in one command: `python tests/benchmarks/accelerator.py [--short] [--minutes 8]`.

Measures on whatever JAX finds first, a GPU, a TPU or the CPU, and in order of interest:

- throws of the trebuchet, aiming and the network, as in docs/performance.md;
- batches of 1 to 65,536 Lotka-Volterra trajectories with gradients: on the device, on the CPU, and by diffrax;
- the noisy image chain of 1 to 24 megapixels, and its gradient;
- one training step of the trebuchet, of a controller and of the image chain;
- errors in single precision, as in docs/float32.md.

Every row is compiled first, then timed until it has had a tenth of a second, at least three times: least and median.
What fails or does not fit is a row with its reason. Rows that the time does not suffice for are left out, and named.
Writes docs/results/<device>.json; with --short, for tests, small sizes and no file unless --out names one.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import cartpole
import trebuchet  # sets double precision

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from bench_float32 import TOLERANCES, row
from bench_trebuchet import value_and_slopes

import diffsim as ds
from diffsim.image import pretrained
from diffsim.image.training import train_chain
from diffsim.systems.trebuchet import aim
from diffsim.optimize.iterations import run_iterations

RESULTS = Path(__file__).parents[2] / "docs" / "results"
Case = tuple[str, Callable, tuple]
CPU = jax.devices("cpu")[0]


def throws(short: bool) -> Iterator[Case]:
    """The rows of docs/performance.md."""
    one = jnp.array([np.pi / 4, 44.49, 0.0])
    rng, count = np.random.default_rng(0), 16 if short else 512
    many = np.column_stack([rng.uniform(0.4, 1.0, count), rng.uniform(20, 110, count), rng.normal(0, 5, count)])
    yield "one throw, value + 3 derivatives", value_and_slopes, (one,)
    yield f"{count} throws, one after another", lambda xs: jax.lax.map(value_and_slopes, xs), (many,)
    yield f"{count} throws, side by side", jax.vmap(value_and_slopes), (many,)
    yield "aim one target to 1e-7", lambda p, d: aim(p, d, *trebuchet.MASSES), (trebuchet.shot(0.56, 20.0, 0.0), 60.0)
    model = trebuchet.network(jr.key(0))
    yield "network, batch of 1,000", jax.vmap(model), (jnp.ones((1000, 2)),)


def batches(short: bool) -> Iterator[Case]:
    """Lotka-Volterra, Tsit5, rtol 1e-6, value and gradient of the sum of all ends in all rates."""
    ts = jnp.linspace(0.0, 10.0, 2)
    field = lambda t, y, p: jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[2] * y[0] * y[1] - p[3] * y[1]])
    start = jnp.array([1.0, 1.0])

    def by_diffsim(p):
        return jnp.sum(ds.integrate(field, start, ts, p, rtol=1e-6)[-1])

    def by_diffrax(p):
        controller = dfx.PIDController(rtol=1e-6, atol=1e-9)
        term, ends = dfx.ODETerm(field), (ts[0], ts[-1], None, start, p)
        return jnp.sum(dfx.diffeqsolve(term, dfx.Tsit5(), *ends, stepsize_controller=controller).ys)

    for count in (1, 8) if short else (1, 16, 256, 4096, 65536):
        factors = 1 + 0.1 * jr.uniform(jr.key(0), (count, 4))
        rates = jnp.array([1.1, 0.4, 0.1, 0.4]) * factors
        for name, solve in (("diffsim", by_diffsim), ("diffrax", by_diffrax)):
            gradient = jax.grad(lambda ps, solve=solve: jnp.sum(jax.vmap(solve)(ps)))
            yield f"{count} trajectories, {name}", gradient, (rates,)
            if jax.devices()[0].platform != "cpu" and count <= 4096:
                yield f"{count} trajectories, {name}, on the CPU", gradient, (jax.device_put(rates, CPU),)


def pictures(short: bool) -> Iterator[Case]:
    """The trained chain, from a mosaic in single precision to a picture."""
    chain = pretrained.with_noise_level(pretrained.trained("noisy"), jnp.array([1e-3, 1e-4], jnp.float32))
    develop = lambda mosaic: chain(mosaic)
    for megapixels in (0.01,) if short else (1, 4, 12, 24):
        side = int(1000 * np.sqrt(megapixels)) // 8 * 8
        mosaic = jr.uniform(jr.key(0), (side, side), jnp.float32)
        yield f"noisy chain, {megapixels} MP", develop, (mosaic,)
        if megapixels <= 4:
            yield f"noisy chain with gradient, {megapixels} MP", jax.grad(lambda m: jnp.sum(develop(m) ** 2)), (mosaic,)


def training_steps(short: bool) -> Iterator[Case]:
    """One training step of each of the largest scenarios."""
    model = trebuchet.network(jr.key(0))
    which = ds.trainable(model, "layers")
    rng, count = np.random.default_rng(0), 16 if short else 512
    targets = jnp.asarray(np.column_stack([rng.uniform(20, 60, count), rng.normal(size=count)]))
    step = lambda t, targets: run_iterations(
        trebuchet.misses, trebuchet.OPTIMIZER, t, eqx.filter(model, which, inverse=True), targets, 1, jnp.array(True)
    )
    yield f"trebuchet, Levenberg-Marquardt, {count} targets", step, (eqx.filter(model, which), targets)

    policy = cartpole.network(jr.key(0))
    chosen, rest = eqx.partition(policy, ds.trainable(policy, "layers"))
    state = cartpole.OPTIMIZER.init(chosen)

    def update(chosen, state, starts):
        loss = lambda chosen: cartpole.loss_over(cartpole.HORIZON)(eqx.combine(chosen, rest), starts)
        updates, _ = cartpole.OPTIMIZER.update(jax.grad(loss)(chosen), state, chosen)
        return optax.apply_updates(chosen, updates)

    yield "CartPole, a batch of starts", update, (chosen, state, jnp.zeros((cartpole.BATCH, 4)))

    chain = jax.tree.map(
        lambda x: x.astype(jnp.float32), pretrained.untrained("noisy", (4, 4) if short else None, key=jr.key(0))
    )
    squares = jnp.full((4, 3, 48, 48), 100, jnp.uint8)
    loss = lambda chain, keys: train_chain.noisy_loss((chain, squares), keys)
    yield "noisy chain, a batch of patches", eqx.filter_grad(loss), (chain, jr.split(jr.key(1), train_chain.BATCH))


def measured(function: Callable, args: tuple) -> dict:
    """Seconds of compiling, least and median milliseconds of a call, and megabytes that the program allocates."""
    arrays, rest = eqx.partition(args, eqx.is_array)
    run = jax.jit(lambda arrays: eqx.filter(function(*eqx.combine(arrays, rest)), eqx.is_array))
    began = time.perf_counter()
    compiled = run.lower(arrays).compile()
    seconds, spent = time.perf_counter() - began, []
    memory = compiled.memory_analysis()
    jax.block_until_ready(compiled(arrays))
    while len(spent) < 3 or (sum(spent) < 0.1 and len(spent) < 1000):
        began = time.perf_counter()
        jax.block_until_ready(compiled(arrays))
        spent.append(time.perf_counter() - began)
    return {
        "compile_s": round(seconds, 2),
        "min_ms": round(1e3 * min(spent), 4),
        "median_ms": round(1e3 * float(np.median(spent)), 4),
        "program_mb": round(memory.temp_size_in_bytes / 1e6, 1) if memory else None,
    }


def main(words: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small sizes, and no file unless --out names one")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further row begins")
    parser.add_argument("--out", type=Path, help="file to write, by default docs/results/<device>.json")
    options = parser.parse_args(words)
    device, began = jax.devices()[0], time.monotonic()
    about = {"device": device.device_kind, "platform": device.platform, "machine": platform.machine()}
    result = {**about, "jax": jax.__version__, "rows": [], "left_out": []}
    parts = throws, batches, training_steps, pictures
    for name, function, args in (case for part in parts for case in part(options.short)):
        if time.monotonic() - began > 60 * options.minutes:
            result["left_out"].append(name)
            continue
        try:
            figures = measured(function, args)
        except Exception as error:  # of any type: devices report missing operations or memory in different ways
            figures = {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:200]}
        result["rows"].append({"work": name} | figures)
        print(f"{name:44s} " + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    result["float32"] = [row(rtol) for rtol in (TOLERANCES[:1] if options.short else TOLERANCES)]
    if statistics := device.memory_stats():
        result["peak_mb"] = round(statistics.get("peak_bytes_in_use", 0) / 1e6, 1)
    file = options.out or (None if options.short else RESULTS / f"{device.device_kind.replace(' ', '-').lower()}.json")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {file}")
    return result


if __name__ == "__main__":
    main()
