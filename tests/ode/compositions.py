"""Random compositions of JAX's transformations of random solves, against the same compositions of closed forms.

    python tests/ode/compositions.py --seeds 0:200

runs each case in a process that may be ended by the compiler and is then started again with the next, and prints the
cases that ended so, raised anything but an InputError that was to be expected, or gave a wrong number.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import diffsim as ds

REVERSE = ("vjp", "grad", "value_and_grad", "jacrev", "hessian")
ORDERS = {"jvp": 1, "linearize": 1, "jacfwd": 1, "vjp": 1, "grad": 1, "value_and_grad": 1, "jacrev": 1, "hessian": 2}
PLAIN = ("jit", "jit", "vmap", "vmap", "checkpoint", "cond", "map", "scan")
WORDS = {*ORDERS, *PLAIN}
SIZES = (1, 2, 3, 5, 9, 33)  # around the limits for loops compiled whole, and for few numbers
MODES = ("auto", "auto", "replay", "forward", "few")


class Case(NamedTuple):
    """A solve and its closed form, both functions of one vector `x`, and their transformations, innermost first."""

    name: str
    words: tuple[str, ...]
    solve: Callable
    truth: Callable
    x: np.ndarray
    forward_only: bool

    @property
    def order(self) -> int:
        """The number of differentiations."""
        return sum(ORDERS.get(word, 0) for word in self.words)

    def may_be_refused(self) -> bool:
        """Whether the case needs a reverse mode that does not exist: over a derivative, or of forward mode alone."""
        order = 0
        for word in self.words:
            if word in REVERSE and (order or self.forward_only):
                return True
            order += ORDERS.get(word, 0)
        return False

    def tolerance(self) -> float:
        """Solves are to about 1e-9, and to 1e-5 in single precision; each derivative may lose two digits."""
        return (1e-3 if self.x.dtype == np.float32 else 1e-7) * 30**self.order


def transformed(function: Callable, word: str, rng: np.random.Generator) -> Callable:
    """A function of a vector from another, both with vectors as results."""
    seeds = rng.normal(0, 1, 200)
    size = int(rng.choice([0, 1, 2, 7]) if word == "vmap" else rng.choice([1, 3]))
    vector = lambda n, like: jnp.asarray(np.resize(seeds, n), like.dtype)
    shift = lambda x: x * (1 + 0.01 * jnp.arange(size, dtype=x.dtype)[:, None])

    def weighted(x):
        y = function(x)
        return vector(y.size, y) @ y

    def pulled(x):
        y, pull = jax.vjp(function, x)
        return pull(vector(y.size, y))[0]

    def value_and_grad(x):
        value, slopes = jax.value_and_grad(weighted)(x)
        return jnp.append(slopes, value)

    def looped(x):
        return lax.scan(lambda total, row: (total + function(row), None), 0 * function(x), shift(x))[0]

    return {
        "jit": jax.jit(function),
        "checkpoint": jax.checkpoint(function),
        "cond": lambda x: lax.cond(x[0] > -100, function, lambda x: 0 * function(x), x),
        "vmap": lambda x: jnp.ravel(jax.vmap(function)(shift(x))),
        "map": lambda x: jnp.ravel(lax.map(function, shift(x))),
        "scan": looped,
        "jvp": lambda x: jax.jvp(function, (x,), (vector(x.size, x),))[1],
        "linearize": lambda x: jax.linearize(function, x)[1](vector(x.size, x)),
        "jacfwd": lambda x: jnp.ravel(jax.jacfwd(function)(x)),
        "jacrev": lambda x: jnp.ravel(jax.jacrev(function)(x)),
        "vjp": pulled,
        "grad": jax.grad(weighted),
        "value_and_grad": value_and_grad,
        "hessian": lambda x: jnp.ravel(jax.hessian(weighted)(x)),
    }[word]


def words(rng: np.random.Generator) -> tuple[str, ...]:
    """One to four transformations, of at most two orders of differentiation, at least one."""
    while True:
        chosen = tuple(map(str, rng.choice([*ORDERS, *PLAIN], rng.integers(1, 5))))
        if 1 <= sum(ORDERS.get(word, 0) for word in chosen) <= 2:
            return chosen


def decay(rng: np.random.Generator):
    """dy/dt = a - r y in all components of a tree, at several times, of which the last is a parameter."""
    size, count = int(rng.choice(SIZES)), int(rng.integers(1, 5))
    solver = [dfx.Tsit5(), dfx.Dopri8(), dfx.Kvaerno5()][int(rng.choice(3, p=[0.6, 0.25, 0.15]))]
    # With "two_levels" states between the first and the last time are not recorded.
    memory = str(rng.choice(["auto", "states", "two_levels" if count == 1 else "auto", "jacobians"]))
    constant = rng.uniform() < 0.2 and not isinstance(solver, dfx.Kvaerno5)
    adjoint = ds.ReplayAdjoint(memory) if rng.uniform() < 0.9 else dfx.DirectAdjoint()
    x = np.concatenate([rng.uniform(0.3, 2, size), rng.normal(0, 1, 2), rng.uniform(0.5, 1.5, 1)])

    def parts(x):
        times = jnp.linspace(0.0, 1.0, count + 1, dtype=x.dtype) * x[-1]
        return times, x[:size], x[size], x[size + 1] * jnp.arange(1, size + 1, dtype=x.dtype) / size

    def solve(x):
        times, rates, drive, start = parts(x)
        options: dict[str, Any] = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.01} if constant else tight(x)
        field = lambda t, y, args: {"a": [args[1] - args[0] * y["a"][0]]}
        ends = ds.integrate(field, {"a": [start]}, times, (rates, drive), solver=solver, adjoint=adjoint, **options)
        return jnp.ravel(ends["a"][0])

    def truth(x):
        times, rates, drive, start = parts(x)
        return jnp.ravel(drive / rates + (start - drive / rates) * jnp.exp(-rates * times[:, None]))

    plain = isinstance(adjoint, ds.ReplayAdjoint)
    kind = f"{type(solver).__name__} {type(adjoint).__name__} {memory if plain else ''} {'constant' * constant}"
    return f"decay of {size} at {count} times, {kind}", solve, truth, x, False


def fall(rng: np.random.Generator):
    """A body that is thrown and falls to the ground, while other numbers grow: time and state at the ground."""
    size, (mode, few) = int(rng.choice(SIZES)), chosen_mode(rng)
    x = np.concatenate([rng.uniform(0.5, 2, 3), rng.uniform(-1, 1, size)])

    def solve(x):
        field = lambda t, y, x: jnp.concatenate([y[1:2], -x[2:3], x[3:]])
        ground = ds.Event(lambda t, y, x: y[0], "falling")
        start = lambda x: jnp.concatenate([x[:2], jnp.zeros_like(x[3:])])
        run = lambda x: ds.integrate_phase(ds.Phase(field, ground), 0.0, start(x), x, t1=9.0, mode=mode, **tight(x))
        end = (ds.forward_mode(run) if few else run)(x)
        return jnp.append(end.y, end.t)

    def truth(x):
        t = (x[1] + jnp.sqrt(x[1] ** 2 + 2 * x[2] * x[0])) / x[2]
        return jnp.concatenate([jnp.stack([0.0 * t, x[1] - x[2] * t]), x[3:] * t, t[None]])

    return f"fall, {size} growing, {'forward_mode' if few else mode}", solve, truth, x, mode == "forward" and not few


def phases(rng: np.random.Generator):
    """One to three phases in turn: in each, u falls from 1 to 0 at a rate of its own, while other numbers grow."""
    size, number, events, (mode, few) = (
        int(rng.choice(SIZES)),
        *map(int, rng.integers([1, 0], [4, 5])),
        chosen_mode(rng),
    )
    x = np.concatenate([rng.uniform(0.8, 1.5, number), rng.uniform(-0.5, 0.5, number), rng.uniform(0.5, 1, size)])
    lasts = [1 / x[event % number] for event in range(events + 1)]
    t1 = float(np.sum(lasts[:-1]) + lasts[-1] / 2)

    def solve(x):
        def phase(k):
            field = lambda t, y, x: {"u": -x[k], "growing": x[number + k] * y["growing"]}
            back = lambda t, y, x: {"u": 1.0 + 0 * y["u"], "growing": y["growing"]}
            return ds.Phase(field, ds.Event(lambda t, y, x: y["u"], "falling", back, to=(k + 1) % number))

        def run(x):
            start = {"u": jnp.ones_like(x[0]), "growing": x[2 * number :]}
            return ds.integrate_hybrid(
                [phase(k) for k in range(number)], start, x, t1=t1, max_events=5, mode=mode, **tight(x)
            )

        end = (ds.forward_mode(run) if few else run)(x)
        return jnp.concatenate([end.y["u"][None], end.y["growing"], end.event_t[:events]])

    def truth(x):
        t, growing, times = jnp.zeros_like(x[0]), x[2 * number :], []
        for event in range(events):
            last = 1 / x[event % number]
            t, growing = t + last, growing * jnp.exp(x[number + event % number] * last)
            times.append(t)
        left, k = t1 - t, events % number
        end = [(1 - x[k] * left)[None], growing * jnp.exp(x[number + k] * left), *(t[None] for t in times)]
        return jnp.concatenate(end)

    kind = "forward_mode" if few else mode
    return f"{number} phases, {events} events, {size} growing, {kind}", solve, truth, x, mode == "forward" and not few


def chosen_mode(rng: np.random.Generator) -> tuple[Any, bool]:
    """A mode of a search for events, and whether it is wrapped in `forward_mode`."""
    mode = str(rng.choice(MODES))
    return ("forward" if mode == "few" else mode), mode == "few"


def tight(x) -> dict[str, float]:
    """Tolerances that give the digits that are compared."""
    return {"rtol": 1e-6, "atol": 1e-6} if x.dtype == jnp.float32 else {"rtol": 1e-9, "atol": 1e-11}


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    name, solve, truth, x, forward_only = [decay, fall, phases][seed % 3](rng)
    x = x.astype(np.float32 if rng.uniform() < 0.2 else np.float64)
    constant = int(rng.integers(len(x))) if rng.uniform() < 0.2 else None
    chosen, derived = words(rng), int(rng.integers(2**31))

    def stopped(function):
        # With `stop_gradient`, some operations have inputs without a derivative.
        return lambda x: function(x if constant is None else x.at[constant].set(lax.stop_gradient(x[constant])))

    functions = []
    for function in (solve, truth):
        random, function = np.random.default_rng(derived), stopped(function)
        for word in chosen:
            function = transformed(function, word, random)
        functions.append(function)
    name += f", {x.dtype}, x of {len(x)}{'' if constant is None else f', {constant} constant'}: {' '.join(chosen)}"
    return Case(name, chosen, *functions, x, forward_only)


def verdict(case: Case) -> str:
    """The outcome of a case: "right", "refused", or what is wrong with it."""
    try:
        value = case.solve(jnp.asarray(case.x))
    except ds.InputError as error:
        return "refused" if case.may_be_refused() else f"REFUSED {error}"
    except Exception as error:  # of any type: such errors are what the search is for
        return f"RAISED {type(error).__name__}: {str(error).splitlines()[0]}"
    right = case.truth(jnp.asarray(case.x.astype(np.float64)))
    if value.shape != right.shape:
        return f"WRONG shape {value.shape} for {right.shape}"
    error = np.max(np.abs(value - right), initial=0.0) / (1 + np.max(np.abs(right), initial=0.0))
    return "right" if error <= case.tolerance() else f"WRONG by {error:.2g}, allowed {case.tolerance():.2g}"


def survey(first: int, last: int) -> dict[int, str]:
    """The verdict on every seed from `first` up to `last`, and the cases they are, of processes that may be ended."""
    verdicts: dict[int, str] = {}
    while first < last:
        words = [sys.executable, str(Path(__file__)), "--here", "--seeds", f"{first}:{last}"]
        env = os.environ | {"JAX_ENABLE_X64": "1"}
        done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert lines, done.stderr[-2000:]
        verdicts |= {int(seed): text for seed, *text in lines for text in [": ".join(text[::-1])]}
        first = int(lines[-1][0]) + 1
        if len(lines[-1]) == 2:
            verdicts[first - 1] = f"ENDED with {done.returncode}: {verdicts[first - 1]}: {done.stderr[-300:]}"
    return verdicts


def main() -> None:
    """Prints what is wrong, and how many cases were right and refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:60")
    parser.add_argument("--here", action="store_true", help="in this process, a line before and after each")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split(":"))
    if given.here:
        for seed in range(first, last):
            one = case(seed)
            print(f"{seed}\t{one.name}", end="", flush=True)
            print(f"\t{verdict(one)}", flush=True)
            if seed % 10 == 9:
                jax.clear_caches()
        return
    verdicts = survey(first, last)
    for seed, text in verdicts.items():
        if not text.startswith(("right", "refused")):
            print(seed, text, flush=True)
    counts = {kind: sum(text.startswith(kind) for text in verdicts.values()) for kind in ("right", "refused")}
    print(f"{len(verdicts)} cases, {counts['right']} right, {counts['refused']} refused")


if __name__ == "__main__":
    main()
