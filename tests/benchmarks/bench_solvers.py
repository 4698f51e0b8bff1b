"""Gradients through solvers: diffsim compared with C with an adjoint by hand, a scan by hand, and diffrax.

python tests/benchmarks/bench_solvers.py [single] [batch] [network] [stiff] [fields] [memory] [others] [--write]

Value and gradient, all cases of a table in one process and in turns, without compilation; minimum and median wall time,
and CPU time. `others` takes what is installed of PyTorch with torchdiffeq and torchode, and CasADi. C is compiled by
the C compiler at hand (`cc -O3 -march=native`). The load of the machine moves the numbers: believe ratios.
`XLA_FLAGS` are the defaults.
"""

import sys
import time

import jax

jax.config.update("jax_enable_x64", True)
if {"batch", "network", "others"} & set(sys.argv):
    jax.config.update("jax_num_cpu_devices", 2)  # by default only one of them is used

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax

import diffsim as ds
from solver_cases import (
    P,
    RATES,
    RK4,
    T1,
    Y0,
    burgers,
    by_diffrax,
    by_diffsim,
    by_scan,
    c_batch,
    c_field,
    c_library,
    c_rk4,
    c_tsit5,
    casadi_case,
    double_pendulum,
    euler_by_scan,
    gray_scott,
    lotka_volterra,
    rk4_step,
    robertson,
    torch_case,
    torchdiffeq_batch,
    torchode_batch,
)
from timing import WORDS, compiled, keep, name_of, table


def single() -> None:
    """One trajectory: Lotka-Volterra and a double pendulum."""
    library, p, y0 = c_library(), jnp.asarray(P), jnp.asarray(Y0)
    for n in (1_000, 10_000):
        options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": T1 / n, "max_steps": n + 1}
        cases = {
            "C, adjoint by hand": c_rk4(library, n),
            "scan by hand, whole": compiled(by_scan(lotka_volterra, y0, n), p),
            "diffsim": compiled(by_diffsim(lotka_volterra, y0, RK4(), **options), p),
            "diffrax": compiled(by_diffrax(lotka_volterra, y0, RK4(), **options), p),
        }
        measured(f"Lotka-Volterra, RK4, {n:,} steps", cases)
    for rtol in (1e-6, 1e-9):
        options = {
            "stepsize_controller": dfx.PIDController(rtol=rtol, atol=1e-3 * rtol),
            "dt0": 0.01,
            "max_steps": 4096,
        }
        cases = {
            "C, adjoint by hand": c_tsit5(library, rtol),
            "diffsim": compiled(by_diffsim(lotka_volterra, y0, dfx.Tsit5(), **options), p),
            "diffrax": compiled(by_diffrax(lotka_volterra, y0, dfx.Tsit5(), **options), p),
        }
        measured(f"Lotka-Volterra, Tsit5, rtol {rtol:g}", cases)
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": T1 / 1000, "max_steps": 1001}
    start, q = jnp.array([1.2, 0.3, 0.0, 0.0]), jnp.array([1.0, 0.8, 1.0, 0.7, 9.81])
    cases = {
        "scan by hand, whole": compiled(by_scan(double_pendulum, start, 1000), q),
        "diffsim": compiled(by_diffsim(double_pendulum, start, RK4(), **options), q),
        "diffrax": compiled(by_diffrax(double_pendulum, start, RK4(), **options), q),
    }
    measured("Double pendulum, RK4, 1,000 steps", cases)


def measured(title: str, cases: dict, **options) -> None:
    """Measures, prints and keeps a table."""
    keep("solvers", "bench_solvers.py --write", tables={name_of(title): table(title, cases, **options)})


STARTS = np.asarray(Y0 * jr.uniform(jr.key(0), (4096, 2), minval=0.5, maxval=1.5))


def posed(solver, controller, most):
    """The loss of one trajectory of the batch, by parameters and start, and its attempted steps, by its start."""
    own = {"solver": solver, "stepsize_controller": controller, "dt0": 0.01, "max_steps": most}
    each = lambda p, y0: jnp.sum(ds.integrate(lotka_volterra, y0, jnp.array([0.0, T1]), p, **own)[-1] ** 2)
    return each, lambda y0: ds.integrate_phase(ds.Phase(lotka_volterra), 0.0, y0, jnp.asarray(P), t1=T1, **own).steps


def blocks(solver, controller, most, devices=None):
    """The compiled mean over the batch by `batched_mean` of 128, which suit states of two numbers; sorted by steps."""
    each, steps = posed(solver, controller, most)
    mean, starts = ds.train.batched_mean(each, batch_size=128, devices=devices), jnp.asarray(STARTS)
    cost = jax.jit(jax.vmap(steps))(starts)
    return compiled(jax.value_and_grad(lambda p: mean(p, starts, cost)), jnp.asarray(P))


def batch() -> None:
    """4,096 trajectories of Lotka-Volterra with different starts and shared parameters; C computes eight at a time."""
    for title, solver, controller, most in (
        ("RK4, 1,000 steps", RK4(), dfx.ConstantStepSize(), 1001),
        ("Tsit5, rtol 1e-6", dfx.Tsit5(), dfx.PIDController(rtol=1e-6, atol=1e-9), 512),
    ):
        options = {"stepsize_controller": controller, "dt0": 0.01, "max_steps": most}

        def theirs(p, solver=solver, options=options):
            solve = lambda y0: dfx.diffeqsolve(dfx.ODETerm(lotka_volterra), solver, 0.0, T1, y0=y0, args=p, **options)
            return jnp.mean(jnp.sum(jax.vmap(lambda y0: solve(y0).ys[-1])(jnp.asarray(STARTS)) ** 2, axis=-1))

        cases = {"C, eight side by side": c_batch(c_library("-DLANES"), STARTS, 1000)} if most == 1001 else {}
        cases["diffsim, one device"] = blocks(solver, controller, most)
        cases[f"diffsim, {len(jax.devices())} devices"] = blocks(solver, controller, most, jax.devices())
        cases["diffrax, vmap"] = compiled(jax.value_and_grad(theirs), jnp.asarray(P))
        measured(f"4,096 trajectories, {title}", cases, rounds=3)


def network() -> None:
    """A network in the loop: pendulums under a 2 x 64 tanh policy, 200 control steps of 4 RK4 steps, batch 256."""
    policy = eqx.nn.MLP(2, "scalar", 64, 2, jnp.tanh, key=jr.key(0), dtype=jnp.float32)
    trained, fixed = eqx.partition(policy, eqx.is_inexact_array)
    starts = jr.normal(jr.key(1), (256, 2), jnp.float32)
    swing = lambda t, y, push: jnp.stack([y[1], push - jnp.sin(y[0])])

    def control(policy, y):
        push = policy(y)
        for _ in range(4):
            y = rk4_step(swing, y, push, 0.0125)
        return y

    def own(trained):
        policy = eqx.combine(trained, fixed)
        end, _ = ds.rollout(lambda ys, _: jax.vmap(lambda y: control(policy, y))(ys), starts, length=200)
        return jnp.mean(end**2)

    def plain(trained):
        policy = eqx.combine(trained, fixed)
        step = lambda ys, _: (jax.vmap(lambda y: control(policy, y))(ys), None)
        return jnp.mean(lax.scan(step, starts, None, length=200)[0] ** 2)

    def theirs(trained):
        policy = eqx.combine(trained, fixed)
        options = {"stepsize_controller": dfx.ConstantStepSize(), "max_steps": 5}
        span = jnp.float32(0.0), jnp.float32(0.05), jnp.float32(0.0125)

        def interval(y, _):
            push = policy(y)
            solve = dfx.diffeqsolve(dfx.ODETerm(swing), RK4(), *span, y0=y, args=push, **options)
            return solve.ys[-1], None

        each = lambda y: lax.scan(interval, y, None, length=200)[0]
        return jnp.mean(jax.vmap(each)(starts) ** 2)

    def flat(loss):
        def run(trained):
            value, gradient = jax.value_and_grad(loss)(trained)
            return value, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

        return compiled(run, trained)

    def share(trained, y):
        policy = eqx.combine(trained, fixed)
        end, _ = ds.rollout(lambda y, _: control(policy, y), y, length=200)
        return jnp.mean(end**2)

    dealt = ds.train.batched_mean(share, batch_size=128, devices=jax.devices())
    cases = {
        "diffsim rollout": flat(own),
        "... 2 devices": flat(lambda trained: dealt(trained, starts)),
        "scan": flat(plain),
        "diffrax per interval": flat(theirs),
    }
    measured("Network in the loop, float32", cases, rounds=5)


def stiff() -> None:
    """Robertson's reactions to t = 10,000 by Kvaerno5, rtol 1e-6."""
    y0, k = jnp.array([1.0, 0.0, 0.0]), jnp.asarray(RATES)
    solver, controller = dfx.Kvaerno5(), dfx.PIDController(rtol=1e-6, atol=1e-9)
    options = {"dt0": 1e-4, "max_steps": 1024}

    def own(k):
        span = jnp.array([0.0, 1e4])
        return jnp.sum(
            ds.integrate(robertson, y0, span, k, solver=solver, stepsize_controller=controller, **options)[-1] ** 2
        )

    def theirs(k, adjoint):
        extra = {"y0": y0, "args": k, "stepsize_controller": controller, "adjoint": adjoint, **options}
        return jnp.sum(dfx.diffeqsolve(dfx.ODETerm(robertson), solver, 0.0, 1e4, **extra).ys[-1] ** 2)

    cases = {
        "diffsim": compiled(jax.value_and_grad(own), k),
        "diffsim, value alone": compiled(lambda k: (own(k), k), k),
        "diffrax, ReplayAdjoint": compiled(jax.value_and_grad(lambda k: theirs(k, ds.ReplayAdjoint())), k),
        "diffrax": compiled(jax.value_and_grad(lambda k: theirs(k, dfx.RecursiveCheckpointAdjoint())), k),
    }
    measured("Robertson, Kvaerno5, rtol 1e-6", cases, rounds=10)


def fields() -> None:
    """500 explicit Euler steps of two partial differential equations; the gradient in the initial field, float32."""
    x = jnp.arange(256, dtype=jnp.float32) / 256
    square = jnp.zeros((128, 128), jnp.float32).at[54:74, 54:74].set(1.0)
    for title, field, y0, h in (
        ("Burgers, 256 cells", burgers, jnp.sin(2 * jnp.pi * x), 1e-3),
        ("Gray-Scott, 128 x 128 cells", gray_scott, jnp.stack([1 - 0.5 * square, 0.25 * square]), 1.0),
    ):
        h, t1 = jnp.float32(h), jnp.float32(500 * h)
        options = {"dt0": h, "max_steps": 501}

        def own(y0, field=field, t1=t1, options=options):
            span = jnp.stack([0 * t1, t1])
            constant = {"solver": dfx.Euler(), "stepsize_controller": dfx.ConstantStepSize(), **options}
            return jnp.sum(ds.integrate(field, y0, span, **constant)[-1] ** 2)

        def theirs(y0, field=field, t1=t1, options=options):
            constant = {"stepsize_controller": dfx.ConstantStepSize(), **options}
            return jnp.sum(dfx.diffeqsolve(dfx.ODETerm(field), dfx.Euler(), 0 * t1, t1, y0=y0, **constant).ys[-1] ** 2)

        cases = {
            "C, adjoint by hand": c_field(field, y0, 500, float(h)),
            "scan by hand": compiled(euler_by_scan(field, y0, 500, h), y0),
            "diffsim": compiled(jax.value_and_grad(own), y0),
            "diffrax": compiled(jax.value_and_grad(theirs), y0),
        }
        measured(f"{title}, 500 Euler steps", cases, rounds=5)


def memory() -> None:
    """100,000 steps of 256 trajectories: temporary memory and time of a gradient."""
    starts = jnp.asarray(Y0)[:, None] * jnp.linspace(0.5, 1.5, 256)[None]
    n = 100_000
    step = lambda p: lambda y, _: rk4_step(lotka_volterra, y, p, 1e-4)
    losses = {
        "diffsim rollout": lambda p: jnp.mean(ds.rollout(step(p), starts, length=n)[0] ** 2),
        "scan": lambda p: jnp.mean(lax.scan(lambda y, _: (step(p)(y, None), None), starts, None, length=n)[0] ** 2),
    }
    rows = {}
    for name, loss in losses.items():
        program = jax.jit(jax.value_and_grad(loss)).lower(jnp.asarray(P)).compile()
        began = time.perf_counter()
        jax.block_until_ready(program(jnp.asarray(P)))
        seconds = time.perf_counter() - began
        mebibytes = program.memory_analysis().temp_size_in_bytes / 2**20
        print(f"{name:20s}{mebibytes:10.1f} MiB {seconds:8.2f} s", flush=True)
        rows[name_of(name)] = {"mebibytes": mebibytes, "wall_seconds": seconds}
    keep("solvers", "bench_solvers.py --write", memory=rows)


def others() -> None:
    """Lotka-Volterra in other installed frameworks, each written as in its manual."""
    p, y0 = jnp.asarray(P), jnp.asarray(Y0)
    for title, n, rtol in (("RK4, 1,000 steps", 1000, None), ("adaptive, rtol 1e-6", None, 1e-6)):
        constant = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": T1 / 1000, "max_steps": 1001}
        adaptive = {"stepsize_controller": dfx.PIDController(rtol=1e-6, atol=1e-9), "dt0": 0.01}
        solver, options = (RK4(), constant) if n else (dfx.Tsit5(), adaptive)
        cases = {"diffsim": compiled(by_diffsim(lotka_volterra, y0, solver, **options), p)}
        for name, case in (("torchdiffeq", torch_case(n, rtol)), ("CasADi", casadi_case(n, rtol))):
            if case is not None:
                cases[name] = case
        measured(f"Lotka-Volterra, {title}", cases, rounds=3)
    tolerant = dfx.PIDController(rtol=1e-6, atol=1e-9)
    for title, name, other, own in (
        ("RK4, 1,000 steps", "torchdiffeq", torchdiffeq_batch(STARTS, 1000), (RK4(), dfx.ConstantStepSize(), 1001)),
        ("Tsit5, rtol 1e-6", "torchode", torchode_batch(STARTS, 1e-6), (dfx.Tsit5(), tolerant, 512)),
    ):
        if other is not None:
            cases = {
                "diffsim, one device": blocks(*own),
                "diffsim, 2 devices": blocks(*own, jax.devices()),
                name: other,
            }
            measured(f"4,096 trajectories, {title}", cases, rounds=2)


if __name__ == "__main__":
    parts = {f.__name__: f for f in (single, batch, network, stiff, fields, memory, others)}
    for part in WORDS or parts:
        parts[part]()
