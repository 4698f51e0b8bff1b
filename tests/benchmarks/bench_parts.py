"""Parts of the time of a gradient: `python tests/benchmarks/bench_parts.py [batch] [compile] [--write]`.

`batch` splits 4,096 trajectories on one device into values and derivatives, and gives the time of one attempted step.
`compile` splits the first call of a gradient into tracing, lowering and compiling, in CPU seconds, minimum of three.
"""

import gc
import time

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import jax.numpy as jnp
import numpy as np
from jax import lax

import diffsim as ds
from bench_solvers import STARTS, blocks, posed
from solver_cases import P, RATES, RK4, T1, Y0, by_diffrax, by_diffsim, lotka_volterra, robertson
from timing import WORDS, compiled, keep, name_of

TOLERANCES = dfx.PIDController(rtol=1e-6, atol=1e-9)


def least(run, rounds: int = 5) -> float:
    """The minimum wall time of a call in ms."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times[1:])


def batch() -> None:
    p = jnp.asarray(P)
    heads = "".join(f"{head:>14s}" for head in ("attempts", "value ms", "both ms", "ns an attempt", "and back"))
    print(f"{'4,096 trajectories':20s}{heads}")
    for name, solver, controller, most in (
        ("RK4, 1,000 steps", RK4(), dfx.ConstantStepSize(), 1001),
        ("Tsit5, rtol 1e-6", dfx.Tsit5(), TOLERANCES, 512),
    ):
        end, steps = posed(solver, controller, most)
        attempts = jax.vmap(steps)(STARTS)
        sorted_starts = jnp.asarray(STARTS)[jnp.argsort(attempts)].reshape(-1, 128, 2)
        values = lambda p: jnp.mean(lax.map(lambda y0: jax.vmap(end, (None, 0))(p, y0), sorted_starts))
        value, both = least(compiled(values, p)[0]), least(blocks(solver, controller, most)[0])
        # The members of a block step together, as often as the slowest needs.
        attempted = 128 * float(np.sum(np.max(np.sort(attempts).reshape(-1, 128), axis=1)))
        per = [1e6 * x / attempted for x in (value, both - value)]
        numbers = "".join(f"{x:14.1f}" for x in (attempted / len(STARTS), value, both, *per))
        print(f"{name:20s}{numbers}", flush=True)
        row = {"value_ms": value, "both_ms": both, "attempt_ns": per[0], "backward_ns": per[1]}
        keep("parts", "bench_parts.py --write", batch={name_of(name): row})


def parts(function, *args) -> np.ndarray:
    """CPU seconds of tracing, lowering and compiling."""
    jax.clear_caches()
    gc.collect()
    times = [time.process_time()]
    traced = jax.jit(function).trace(*args)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    lowered.compile()
    return np.diff([*times, time.process_time()])


def compile() -> None:
    start, rates = jnp.array([1.0, 0.0, 0.0]), jnp.asarray(RATES)
    stiff = {"stepsize_controller": TOLERANCES, "dt0": 1e-4, "max_steps": 1024}
    mild = {"stepsize_controller": TOLERANCES, "dt0": 0.01, "max_steps": 512}
    own = {"solver": dfx.Kvaerno5(), "stepsize_controller": TOLERANCES, "dt0": 1e-4, "max_steps": 1024}
    value = lambda k: jnp.sum(ds.integrate(robertson, start, jnp.array([0.0, T1]), k, **own)[-1] ** 2)
    cases = {
        "Tsit5, diffsim": (by_diffsim(lotka_volterra, jnp.asarray(Y0), dfx.Tsit5(), **mild), jnp.asarray(P)),
        "Tsit5, diffrax": (by_diffrax(lotka_volterra, jnp.asarray(Y0), dfx.Tsit5(), **mild), jnp.asarray(P)),
        "Kvaerno5, diffsim": (jax.value_and_grad(value), rates),
        "... value alone": (value, rates),
        "Kvaerno5, diffrax": (by_diffrax(robertson, start, dfx.Kvaerno5(), **stiff), rates),
    }
    print(f"{'gradient of':22s}{'tracing':>10s}{'lowering':>10s}{'compiling':>10s}{'all':>10s}")
    for name, (function, *args) in cases.items():
        best = min((parts(function, *args) for _ in range(3)), key=np.sum)
        print(f"{name:22s}" + "".join(f"{x:10.2f}" for x in (*best, best.sum())), flush=True)
        times = dict(zip(("tracing_seconds", "lowering_seconds", "compiling_seconds"), best.tolist(), strict=True))
        keep("parts", "bench_parts.py --write", compile={name_of(name): times | {"sum_seconds": float(best.sum())}})


if __name__ == "__main__":
    for part in WORDS or ("batch", "compile"):
        {"batch": batch, "compile": compile}[part]()
