"""What a derivative costs: floating-point operations as the compiler counts them, and measured seconds."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REPEATS = 7


class Cost(NamedTuple):
    """The cost of one call.

    Attributes:
        operations: The number of arithmetic operations.
        transcendentals: The number of calls of exp, sin and the like.
        seconds: The time, the best of seven.
    """

    operations: float
    transcendentals: float
    seconds: float


class Growth(NamedTuple):
    """The cost of a Jacobian by each way of computing it, for one number of inputs and one of outputs.

    Attributes:
        inputs: The number of inputs.
        outputs: The number of outputs.
        ratio: For each way, its operations relative to those of one evaluation of the function.
        seconds: The time of each way, and of the function.
    """

    inputs: int
    outputs: int
    ratio: dict[str, float]
    seconds: dict[str, float]


def cost(f: Callable[..., Any], *args: Any) -> Cost:
    """The cost of the compiled `f(*args)`."""
    compiled = jax.jit(f).lower(*args).compile()
    analysis = compiled.cost_analysis() or {}
    jax.block_until_ready(compiled(*args))
    seconds = least_seconds(lambda: compiled(*args), REPEATS)
    return Cost(float(analysis.get("flops", 0)), float(analysis.get("transcendentals", 0)), seconds)


def least_seconds(call: Callable[[], Any], repeats: int) -> float:
    """The time of the fastest of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def growth(make: Callable[[int, int], Callable[[Any], Any]], sizes: Sequence[tuple[int, int]]) -> list[Growth]:
    """The cost of a Jacobian by forward mode, reverse mode and central differences, for several sizes.

        for g in growth(make, [(1, 64), (64, 64), (64, 1)]):
            print(g.inputs, g.outputs, g.ratio)

    Args:
        make: `make(inputs, outputs)`, a function from a vector to a vector of these lengths.
        sizes: The pairs of numbers of inputs and outputs.
    """
    return [_growth_of(make(inputs, outputs), inputs, outputs) for inputs, outputs in sizes]


def _growth_of(f: Callable[[Any], Any], inputs: int, outputs: int) -> Growth:
    """The cost of the Jacobian of one function."""
    x = jnp.linspace(0.1, 1.0, inputs)
    evaluation = cost(f, x)
    ways = {"forward": jax.jacfwd(f), "reverse": jax.jacrev(f), "differences": _central_differences(f)}
    costs = {name: cost(way, x) for name, way in ways.items()}
    total = lambda c: c.operations + c.transcendentals
    ratio = {name: total(c) / total(evaluation) for name, c in costs.items()}
    seconds = {"function": evaluation.seconds} | {name: c.seconds for name, c in costs.items()}
    return Growth(inputs, outputs, ratio, seconds)


def _central_differences(f: Callable[[Any], Any], step: float = 2.0**-17) -> Callable[[Any], Any]:
    """The Jacobian by central differences as one compiled function, so that its time compares with the other ways."""
    column = lambda x, e: (f(x + step * e) - f(x - step * e)) / (2 * step)
    return lambda x: jax.vmap(column, (None, 0), -1)(x, jnp.eye(x.size))
