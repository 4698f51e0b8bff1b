"""What a derivative costs: floating-point operations as the compiler counts them, and seconds as the clock does."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REPEATS = 7


class Cost(NamedTuple):
    """Operations of one call: arithmetic, and calls of exp, sin and the like; and its time, the best of seven."""

    operations: float
    transcendentals: float
    seconds: float


class Growth(NamedTuple):
    """Costs of every way for one pair of sizes, each relative to one evaluation of the function."""

    inputs: int
    outputs: int
    ratio: dict[str, float]
    seconds: dict[str, float]


def cost(f: Callable[..., Any], *args: Any) -> Cost:
    """Returns the cost of the compiled `f(*args)`."""
    compiled = jax.jit(f).lower(*args).compile()
    known = compiled.cost_analysis() or {}
    jax.block_until_ready(compiled(*args))
    return Cost(float(known.get("flops", 0)), float(known.get("transcendentals", 0)), _best(lambda: compiled(*args)))


def _best(call: Callable[[], Any]) -> float:
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        spent.append(time.perf_counter() - began)
    return min(spent)


def growth(make: Callable[[int, int], Callable[[Any], Any]], sizes: Sequence[tuple[int, int]]) -> list[Growth]:
    """Returns the cost of a whole Jacobian by each way, for functions `make(inputs, outputs)` of a vector.

    Forward mode, reverse mode and central differences: operations relative to one evaluation, and seconds.
    """
    return [_grown(make(inputs, outputs), inputs, outputs) for inputs, outputs in sizes]


def _grown(f: Callable[[Any], Any], inputs: int, outputs: int) -> Growth:
    x = jnp.linspace(0.1, 1.0, inputs)
    once = cost(f, x)
    ways = {"forward": jax.jacfwd(f), "reverse": jax.jacrev(f), "differences": _central(f)}
    found = {name: cost(way, x) for name, way in ways.items()}
    total = lambda c: c.operations + c.transcendentals
    ratio = {name: total(c) / total(once) for name, c in found.items()}
    return Growth(inputs, outputs, ratio, {"function": once.seconds} | {name: c.seconds for name, c in found.items()})


def _central(f: Callable[[Any], Any], step: float = 2.0**-17) -> Callable[[Any], Any]:
    """The Jacobian by central differences as one compiled function, so that the clock compares like with like."""
    column = lambda x, e: (f(x + step * e) - f(x - step * e)) / (2 * step)
    return lambda x: jax.vmap(column, (None, 0), -1)(x, jnp.eye(x.size))
