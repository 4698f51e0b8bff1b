"""Gradients through solvers: diffsim beside C with an adjoint by hand, a scan by hand, and diffrax as users write it.

python tests/benchmarks/bench_solvers.py [single] [batch] [network] [memory]

Value and gradient, all cases of a table in one process and in turns, compilation apart; least and median wall time,
and CPU time. C is compiled by the C compiler at hand (`cc -O3 -march=native`). The load of the machine moves the
numbers: believe ratios. `XLA_FLAGS` are the defaults.
"""

import ctypes
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax

import diffsim as ds

P, Y0, T1 = np.array([1.5, 1.0, 3.0, 1.0]), np.array([1.0, 1.0]), 10.0


class RK4(dfx.AbstractERK):
    """The classical Runge-Kutta method, which diffrax leaves to its users."""

    tableau = dfx.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls = dfx.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 4


def lotka_volterra(t, y, p):
    return jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], -p[2] * y[1] + p[3] * y[0] * y[1]])


def double_pendulum(t, y, p):
    """Angles and rates of two rods with point masses; p: two masses, two lengths, gravity."""
    m1, m2, l1, l2, g = p
    a, b, wa, wb = y
    c, s = jnp.cos(a - b), jnp.sin(a - b)
    below = 2 * m1 + m2 - m2 * (2 * c**2 - 1)
    da = -g * (2 * m1 + m2) * jnp.sin(a) - m2 * g * jnp.sin(a - 2 * b) - 2 * s * m2 * (wb**2 * l2 + wa**2 * l1 * c)
    db = 2 * s * (wa**2 * l1 * (m1 + m2) + g * (m1 + m2) * jnp.cos(a) + wb**2 * l2 * m2 * c)
    return jnp.stack([wa, wb, da / (l1 * below), db / (l2 * below)])


def rk4_step(field, y, p, h):
    k1 = field(0.0, y, p)
    k2 = field(0.0, y + 0.5 * h * k1, p)
    k3 = field(0.0, y + 0.5 * h * k2, p)
    k4 = field(0.0, y + h * k3, p)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def by_scan(field, y0, n):
    """A checkpointed scan over steps of RK4, as one writes it by hand, compiled whole."""

    def loss(p):
        step = jax.checkpoint(lambda y, _: (rk4_step(field, y, p, T1 / n), None))
        return jnp.sum(lax.scan(step, y0, None, length=n)[0] ** 2)

    return ds.compile_whole(jax.value_and_grad(loss))


def by_diffrax(field, y0, solver, **options):
    def loss(p):
        return jnp.sum(dfx.diffeqsolve(dfx.ODETerm(field), solver, 0.0, T1, y0=y0, args=p, **options).ys[-1] ** 2)

    return jax.value_and_grad(loss)


def by_diffsim(field, y0, solver, stepsize_controller, **options):
    def loss(p):
        ts = jnp.array([0.0, T1])
        return jnp.sum(
            ds.integrate(field, y0, ts, p, solver=solver, controller=stepsize_controller, **options)[-1] ** 2
        )

    return jax.value_and_grad(loss)


def c_library() -> ctypes.CDLL:
    """lotka_volterra.c, compiled."""
    out = Path(tempfile.mkdtemp()) / "lotka_volterra.so"
    source = Path(__file__).with_name("lotka_volterra.c")
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(source), "-o", str(out), "-lm"], check=True)
    library = ctypes.CDLL(str(out))
    library.rk4.restype = library.tsit5.restype = ctypes.c_double
    return library


def _pointer(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def c_rk4(library, n: int):
    rows, gradient = np.empty(2 * n + 2), np.empty(4)

    def run():
        value = library.rk4(_pointer(P), _pointer(Y0), ctypes.c_double(T1 / n), n, _pointer(rows), _pointer(gradient))
        return value, gradient

    return run


def c_tsit5(library, rtol: float):
    most = 20_000
    sizes, rows, gradient, accepted = np.empty(most), np.empty(2 * most + 2), np.empty(4), ctypes.c_int()
    numbers = [ctypes.c_double(x) for x in (T1, 0.01, rtol, 1e-3 * rtol)]
    room = most, _pointer(sizes), _pointer(rows), _pointer(gradient), ctypes.byref(accepted)
    return lambda: (library.tsit5(_pointer(P), _pointer(Y0), *numbers, *room), gradient)


def compiled(function, *args):
    """A call of the compiled function, and the CPU seconds of tracing and compiling it."""
    began = time.process_time()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.process_time() - began
    return lambda: jax.block_until_ready(program(*args)), seconds


def table(title: str, cases: dict, rounds: int = 30) -> None:
    """Times every case in turns and prints them with their ratios to the first, and how far gradients are apart."""
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
    for name, (run, seconds) in runs.items():
        error = np.max(np.abs(np.asarray(run()[1]) - reference)) / np.max(np.abs(reference))
        low, middle, cpu = (1e6 * x for x in (min(walls[name]), np.median(walls[name]), min(cpus[name])))
        ratio = min(walls[name]) / min(walls[first])
        print(f"{name:28s}{low:11.1f}{middle:11.1f}{cpu:11.1f}{ratio:11.2f}{seconds:11.2f}{error:11.1e}", flush=True)


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
        table(f"Lotka-Volterra, RK4, {n:,} steps", cases)
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
        table(f"Lotka-Volterra, Tsit5, rtol {rtol:g}", cases)
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": T1 / 1000, "max_steps": 1001}
    start, q = jnp.array([1.2, 0.3, 0.0, 0.0]), jnp.array([1.0, 0.8, 1.0, 0.7, 9.81])
    cases = {
        "scan by hand, whole": compiled(by_scan(double_pendulum, start, 1000), q),
        "diffsim": compiled(by_diffsim(double_pendulum, start, RK4(), **options), q),
        "diffrax": compiled(by_diffrax(double_pendulum, start, RK4(), **options), q),
    }
    table("Double pendulum, RK4, 1,000 steps", cases)


def batch() -> None:
    """4,096 trajectories of Lotka-Volterra with starts of their own and shared parameters."""
    starts = jnp.asarray(Y0) * jr.uniform(jr.key(0), (4096, 2), minval=0.5, maxval=1.5)
    p = jnp.asarray(P)
    for title, solver, controller, most in (
        ("RK4, 1,000 steps", RK4(), dfx.ConstantStepSize(), 1001),
        ("Tsit5, rtol 1e-6", dfx.Tsit5(), dfx.PIDController(rtol=1e-6, atol=1e-9), 4096),
    ):
        own = {"solver": solver, "controller": controller, "dt0": 0.01, "max_steps": most}
        options = {"stepsize_controller": controller, "dt0": 0.01, "max_steps": most}

        def each(p, y0, own=own):
            return jnp.sum(_end(lotka_volterra, y0, p, **own) ** 2)

        def theirs(p, solver=solver, options=options):
            one = lambda y0: dfx.diffeqsolve(dfx.ODETerm(lotka_volterra), solver, 0.0, T1, y0=y0, args=p, **options).ys[
                -1
            ]
            return jnp.mean(jnp.sum(jax.vmap(one)(starts) ** 2, axis=-1))

        cases = {
            f"diffsim, blocks of {size}": compiled(
                jax.value_and_grad(lambda p, size=size: ds.in_blocks(each, size=size)(p, starts)), p
            )
            for size in (64, 256)
        }
        cases["diffrax, vmap"] = compiled(jax.value_and_grad(theirs), p)
        table(f"4,096 trajectories, {title}", cases, rounds=3)


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

    cases = {"diffsim rollout": flat(own), "scan": flat(plain), "diffrax per interval": flat(theirs)}
    table("Network in the loop, float32", cases, rounds=5)


def memory() -> None:
    """100,000 steps of 256 trajectories: temporary memory and time of a gradient."""
    starts = jnp.asarray(Y0)[:, None] * jnp.linspace(0.5, 1.5, 256)[None]
    n = 100_000
    step = lambda p: lambda y, _: rk4_step(lotka_volterra, y, p, 1e-4)
    losses = {
        "diffsim rollout": lambda p: jnp.mean(ds.rollout(step(p), starts, length=n)[0] ** 2),
        "scan": lambda p: jnp.mean(lax.scan(lambda y, _: (step(p)(y, None), None), starts, None, length=n)[0] ** 2),
    }
    for name, loss in losses.items():
        program = jax.jit(jax.value_and_grad(loss)).lower(jnp.asarray(P)).compile()
        began = time.perf_counter()
        jax.block_until_ready(program(jnp.asarray(P)))
        seconds = time.perf_counter() - began
        print(
            f"{name:20s}{program.memory_analysis().temp_size_in_bytes / 2**20:10.1f} MiB {seconds:8.2f} s", flush=True
        )


if __name__ == "__main__":
    for part in sys.argv[1:] or ("single", "batch", "network", "memory"):
        {"single": single, "batch": batch, "network": network, "memory": memory}[part]()
