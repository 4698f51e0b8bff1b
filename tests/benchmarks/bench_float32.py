"""The errors of single precision: `python tests/benchmarks/bench_float32.py [--write]`.

An undamped oscillator, y'' = -k y from y = 1 at rest, is solved in float32 by Tsit5 at several tolerances: the state
after 20 s by `integrate`, the first time at which y is zero by `integrate_phase`, and the derivatives of both in k at
k = 1. The errors are against the closed form. Prints them as a table.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffsim import Event, Phase, integrate, integrate_phase
from timing import keep

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 2e-7)
END = 20.0  # s
START = (jnp.float32(1), jnp.float32(0))


def field(t, y, k):
    return y[1], -k * y[0]


def state(k, rtol):
    times = jnp.array([0.0, END], jnp.float32)
    return integrate(field, START, times, k, rtol=rtol)[0][-1]


def crossing(k, rtol):
    zero = Event(lambda t, y, k: y[0], "falling")
    return integrate_phase(Phase(field, zero), 0.0, START, k, t1=3.0, rtol=rtol).t


def row(rtol: float) -> dict[str, float]:
    errors = {}
    exact = {"state": (np.cos(END), -END / 2 * np.sin(END)), "event time": (np.pi / 2, -np.pi / 4)}
    for name, function in (("state", state), ("event time", crossing)):
        both = jax.jit(jax.value_and_grad(lambda k, f=function: f(k, rtol)))(jnp.float32(1))
        for word, number, right in zip(("", "derivative of the "), both, exact[name], strict=True):
            assert number.dtype == jnp.float32
            errors[f"{word}{name}"] = float(abs(float(number) - right) / abs(right))
    return {"rtol": rtol, **errors}


def main() -> None:
    rows = [row(rtol) for rtol in TOLERANCES]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for each in rows:
        print("| " + " | ".join(f"{value:.0e}" for value in each.values()) + " |")
    keep("float32", "bench_float32.py --write", rows={f"{each['rtol']:.0e}": each for each in rows})


if __name__ == "__main__":
    main()
