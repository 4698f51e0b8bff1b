"""How accurate and how expensive are the four ways to a derivative: by hand, by formula, by differences, automatic?

Four functions are differentiated in all four ways: x^3 - 3x, y = (sin(x1/x2) + x1/x2 - exp x2)(x1/x2 - exp x2) at
(1.5, 0.5), the loss of a least-squares problem, and that of a deep sigmoid network. Then follow the accuracy
of every finite-difference scheme against its step, the cost of full Jacobians against their dimensions, and the graph.

    python scenarios/derivatives.py                      all of it, with a report
    python scenarios/derivatives.py graph OUT.svg        the graph of the two-variable example; also .png, .pdf
    python scenarios/derivatives.py doctor               locate a NaN that occurs only in the backward pass

Expected: by hand, by formula and automatic agree to 1e-12; the error of differences falls with orders 1, 1, 2, 4;
the value 2.0167 and the derivatives 3.0118 and -13.7240 of the textbook example. Some 20 s.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import Annotated

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim import safe
from diffsim.autodiff import finite_differences
from diffsim.autodiff.complex_step import complex_gradient
from diffsim.autodiff.costs import growth
from diffsim.graph.find_non_finite import find_non_finite
from diffsim.viz import plot, report

POINT = (1.5, 0.5)
PUBLISHED = {"value": 2.0167, "dy_dx1": 3.0118, "dy_dx2": -13.7240}
STEPS = 2.0 ** -np.arange(1.0, 49.0)
SIZES = [(1, 64), (4, 64), (16, 64), (64, 64), (64, 16), (64, 4), (64, 1)]
DATA = jr.normal(jr.key(0), (50, 8)), jr.normal(jr.key(1), (50,))


def cubic(x):
    """x^3 - 3x."""
    return x**3 - 3 * x


def two(x1, x2):
    """The textbook's function of two variables; x1/x2 and exp(x2) each occur twice and are computed once."""
    return (jnp.sin(x1 / x2) + x1 / x2 - jnp.exp(x2)) * (x1 / x2 - jnp.exp(x2))


def two_by_hand(x1, x2):
    """Its gradient by the product rule, with r = x1/x2."""
    r, e = x1 / x2, np.exp(x2)
    a, b = np.sin(r) + r - e, r - e
    by_x1 = (np.cos(r) + 1) / x2 * b + a / x2
    return np.array([by_x1, (-(np.cos(r) + 1) * r / x2 - e) * b + a * (-r / x2 - e)])


def squares(w):
    """Half the squared residual of X w = y."""
    return 0.5 * jnp.sum((DATA[0] @ w - DATA[1]) ** 2)


def deep(weights, x=0.7):
    """A chain of sigmoid neurons, one to a layer: a(k) = sigmoid(w(k) a(k-1)), and the loss (a - 1/4)^2."""
    for weight in weights:
        x = jax.nn.sigmoid(weight * x)
    return (x - 0.25) ** 2


def deep_by_hand(weights, x=0.7):
    """Its gradient by backpropagation as it is written in textbooks, layer by layer from the last."""
    activations = [x]
    for weight in weights:
        activations.append(1 / (1 + np.exp(-weight * activations[-1])))
    cotangent, gradient = 2 * (activations[-1] - 0.25), []
    for weight, before, after in zip(weights[::-1], activations[-2::-1], activations[:0:-1], strict=True):
        slope = cotangent * after * (1 - after)
        gradient.append(slope * before)
        cotangent = slope * weight
    return np.array(gradient[::-1])


WEIGHTS = np.linspace(-1.5, 2.0, 10)
W = np.linspace(-1.0, 1.0, 8)
CASES = {
    "x^3 - 3x": (lambda v: cubic(v[0]), np.array([1.7]), np.array([3 * 1.7**2 - 3]), True),
    "two variables": (lambda v: two(*v), np.array(POINT), two_by_hand(*POINT), True),
    "least squares": (squares, W, np.asarray(DATA[0].T @ (DATA[0] @ W - DATA[1])), False),
    "deep network": (deep, WEIGHTS, deep_by_hand(WEIGHTS), True),
}


def four_ways() -> list[tuple]:
    """Rows: function, way, largest error relative to the gradient by hand."""
    rows = []
    for name, (f, point, by_hand, scalars) in CASES.items():
        numbers = lambda *v, f=f: f(v)  # matrices have no formula here
        table = (
            ds.derivative_table(numbers, *point, by_hand=by_hand)
            if scalars
            else ds.derivative_table(f, jnp.asarray(point), by_hand=by_hand)
        )
        rows += [(name, way, error) for way, error in table.errors().items() if way != "by hand"]
    return rows


def accuracy() -> dict[str, np.ndarray]:
    """Errors of every scheme on the two-variable example, a number for each of STEPS."""
    f, exact, x = (lambda v: two(*v)), two_by_hand(*POINT), jnp.asarray(POINT)
    error = lambda scheme, h: np.max(
        np.abs(np.asarray(finite_differences.difference_gradient(f, x, scheme, h)) - exact)
    )
    errors = {scheme: np.array([error(scheme, h) for h in STEPS]) for scheme in finite_differences.STENCILS}
    flat = lambda gradient: np.full(len(STEPS), max(np.max(np.abs(np.asarray(gradient) - exact)), 1e-16))
    return errors | {"complex step": flat(complex_gradient(f, x)), "automatic": flat(jax.grad(f)(x))}


def orders(errors: dict[str, np.ndarray]) -> dict[str, float]:
    """The observed orders: slopes of log error over log step, where truncation dominates."""
    window = {"forward": slice(7, 12), "backward": slice(7, 12), "central": slice(7, 11), "richardson": slice(3, 7)}
    return {s: float(np.polyfit(np.log(STEPS[w]), np.log(errors[s][w]), 1)[0]) for s, w in window.items()}


def layer(inputs: int, outputs: int):
    """A dense layer of a sine, for the cost of its Jacobian."""
    matrix = jr.normal(jr.key(2), (outputs, inputs))
    return lambda x: jnp.sin(matrix @ x)


def compare(*, run: cli.Run) -> dict:
    """Compare all ways on all functions: accuracy against step, cost against dimensions, figures."""
    run.say("four ways on four functions")
    rows, errors = four_ways(), accuracy()
    run.say("cost against dimensions")
    costs = growth(layer, SIZES)
    exact = max(error for _, way, error in rows if not way.startswith("differences"))
    graph = ds.computational_graph(two, *map(jnp.asarray, POINT))
    result = {
        "value": float(graph.result.value),
        "dy_dx1": float(graph["x1"].adjoint),  # pyright: ignore[reportArgumentType]
        "dy_dx2": float(graph["x2"].adjoint),  # pyright: ignore[reportArgumentType]
        "worst_error_without_differences": exact,
    } | {f"order_{scheme}": order for scheme, order in orders(errors).items()}
    write_report(run, rows, errors, costs, graph, result)
    return result


def write_report(run, rows, errors, costs, graph, result) -> None:
    """The page: result, errors, accuracy, costs, graph and tables, certificate."""
    page = report.Report("Derivatives four ways", "By hand, by formula, by differences, automatic")
    comparison = [(name, result[name], value) for name, value in PUBLISHED.items()]
    page.table("The textbook example", ["quantity", "value", "textbook"], comparison)
    page.table("Largest error relative to the gradient by hand", ["function", "way", "error"], rows)
    picture = plot.curves(STEPS, errors, "step, relative", "error", log="xy", dashed=["complex step", "automatic"])
    page.section("Accuracy against step")
    page.figure(picture, "Truncation falls with the scheme's order, rounding grows as 1/step; the others need no step.")
    run.figure("accuracy", picture)
    page.section("Cost of a Jacobian")
    shapes = [f"{c.inputs} -> {c.outputs}" for c in costs]
    ratios = {way: [c.ratio[way] for c in costs] for way in ("forward", "reverse", "differences")}
    labels = "shape: " + ", ".join(shapes), "operations per evaluation"
    cost_figure = plot.curves(range(len(costs)), ratios, *labels, log="y")
    page.figure(cost_figure, "Forward mode and differences cost more with every input, reverse mode with every output.")
    run.figure("cost", cost_figure)
    columns = ["inputs -> outputs", *(f"{way}, ms" for way in ("function", *ratios))]
    clock = [(f"{c.inputs} -> {c.outputs}", *(1e3 * c.seconds[way] for way in ("function", *ratios))) for c in costs]
    page.table("Measured", columns, clock)
    page.graph(graph, plot.graph(graph))
    run.figure("graph", plot.graph(graph))
    page.certificate(ds.check_gradients(two, tuple(map(jnp.asarray, POINT)), thorough=True))
    page.write(run.folder / "report.html")


def graph(
    out: Annotated[Path, cli.WritableFile((".svg", ".png", ".pdf"))],
    *,
    x1: cli.Finite = POINT[0],
    x2: Annotated[float, cli.NonZero()] = POINT[1],
) -> dict:
    """The computational graph of the two-variable example, drawn to a file; its tables are printed.

    Args:
        out: the picture to write: .svg, .png or .pdf.
        x1: first variable.
        x2: second variable, not 0.
    """
    drawn = ds.computational_graph(two, jnp.asarray(x1), jnp.asarray(x2))
    plot.save_figure(plot.graph(drawn), out)
    return {"file": str(out), "nodes": len(drawn.nodes), "tables": f"\n{drawn}"}


def doctor() -> dict:
    """A NaN that occurs only in the backward pass, the operation that produces it, and the remedy."""
    masked = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
    x = jnp.array([0.0, 1.0, 4.0])
    cured = lambda x: jnp.sum(safe.sqrt(x))
    gradient = lambda f: str(np.asarray(jax.grad(f)(x)))
    return {
        "value": float(masked(x)),
        "gradient": gradient(masked),
        "finding": str(find_non_finite(masked, x)),
        "gradient_of_the_cure": gradient(cured),
    }


if __name__ == "__main__":
    cli.main(compare, graph, doctor)
