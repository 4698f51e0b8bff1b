"""A neural ODE on windows: time with compiling to one validation loss, by `fit`, diffrax and optax, and torchdiffeq.

    python tests/benchmarks/bench_neural_ode.py [LOSS]

Network, windows, tolerances, optimizer and validation are the same. By diffrax the step is written as its documentation
has it: a jitted function of one batch, called in a loop. The loss is validated after every 50 steps.
"""

import importlib
import importlib.util
import resource
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax

import diffsim as ds

SCENARIOS = Path(__file__).parents[2] / "scenarios"
STEPS, EVERY, RATE = 2000, 50, 3e-3


def main(target: float = 1.2e-3) -> None:
    sys.path.insert(0, str(SCENARIOS))
    s = importlib.import_module("neural_ode")
    record = s.long_record(0)
    cut = int(0.8 * record.shape[1])
    held_out = jnp.asarray(next(s.windows_of(record[:, cut:], 1, 256).batches_from(0)))
    stream = s.windows_of(record[:, :cut], 0, 64)
    network = eqx.nn.MLP(2, 2, 32, 2, activation=jnp.tanh, key=jr.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    runs = [("diffrax and optax", by_diffrax), ("diffsim", by_fit)]
    if importlib.util.find_spec("torchdiffeq") is not None:  # of the extra `bench`
        runs.append(("torchdiffeq", by_torchdiffeq))
    for name, run in runs:
        began = time.perf_counter()
        steps, loss = run(s, network, optimizer, stream, held_out, target)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {seconds:.1f} s to a validation loss of {loss:.3e} in {steps} steps, peak {peak:.0f} MB so far")


class Reached(Exception):
    """The validation loss has been reached."""


def by_fit(s, network, optimizer, stream, held_out, target):
    """Steps and validation loss by `fit`."""
    reached = []

    def callback(progress):
        if progress.validation <= target:
            reached.append((progress.step, progress.validation))
            raise Reached

    stopping = ds.EarlyStopping(validation=lambda network: s.window_loss(network, held_out))
    options = {"steps": STEPS, "steps_per_call": EVERY, "progress": False, "early_stopping": stopping}
    try:
        ds.fit(s.window_loss, network, optimizer, stream, callback=callback, **options)
    except Reached:
        return reached[0]
    return STEPS, float("nan")


def by_diffrax(s, network, optimizer, stream, held_out, target):
    """Steps and validation loss by a loop of one's own."""
    ts = s.STRIDE * jnp.arange(s.WINDOW)

    def loss(network, windows):
        def solve(u):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, u, network: network(u)),
                diffrax.Tsit5(),
                ts[0],
                ts[-1],
                None,
                u,
                args=network,
                saveat=diffrax.SaveAt(ts=ts),
                stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
                max_steps=256,
            ).ys

        return jnp.mean((jax.vmap(solve)(windows[:, 0]) - windows) ** 2)

    @eqx.filter_jit
    def step(network, state, windows):
        gradient = eqx.filter_grad(loss)(network, windows)
        updates, state = optimizer.update(gradient, state, eqx.filter(network, eqx.is_inexact_array))
        return eqx.apply_updates(network, updates), state

    validate, value = eqx.filter_jit(loss), float("nan")
    state, batches = optimizer.init(eqx.filter(network, eqx.is_inexact_array)), stream.batches_from(0)
    for number in range(1, STEPS + 1):
        network, state = step(network, state, jnp.asarray(next(batches)))
        if number % EVERY == 0:
            value = float(validate(network, held_out))
            if value <= target:
                return number, value
    return STEPS, value


def by_torchdiffeq(s, network, optimizer, stream, held_out, target):
    """Steps and validation loss by torchdiffeq."""
    from torch_neural_ode import train

    layers, ts = [(layer.weight, layer.bias) for layer in network.layers], s.STRIDE * jnp.arange(s.WINDOW)
    return train(layers, stream.batches_from(0), held_out, ts, STEPS, EVERY, RATE, target)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
