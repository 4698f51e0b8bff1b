"""How fast do ten optimization methods solve a least-squares problem, and does the theoretical bound hold?

Least squares, f(w) = |X w - y|^2 / 2 with n = 500 rows and p = 100 columns, by ten methods. Gradient descent with step
eta = 1/lambda_max(X^T X) obeys f(w_T) - f* <= |w0 - w*|^2 / (2 eta T); above 2/lambda_max it diverges. Then sin x by a
cubic in 2,000 points, powers and Legendre polynomials, its gradient by hand; and loss surfaces with paths on them.

    python scenarios/regression.py                        every method, with a report
    python scenarios/regression.py bound --problems 1000  the bound on random problems
    python scenarios/regression.py descend --step 2.1     gradient descent with a step of 2.1/lambda_max
    python scenarios/regression.py sine                   sin x by a cubic
    python scenarios/regression.py surfaces OUT.png       loss surface of a neuron; --hidden 2: of a small network

Expected: the bound is never violated; all methods but the first-order ones reach 1e-10. Some 30 s.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated, Literal

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optax

import diffsim as ds
from diffsim.autodiff.legendre import legendre3
from diffsim.viz import plot, report

ROWS, COLUMNS = 500, 100
NOISE = 0.1


def problem(key, rows: int = ROWS, columns: int = COLUMNS):
    """A random design (rows, columns) with columns of different sizes, and noisy observations of known weights."""
    design, truth, noise, size = jr.split(key, 4)
    x = jr.normal(design, (rows, columns)) * jr.uniform(size, (columns,), minval=0.3, maxval=1.5)
    return x, x @ jr.normal(truth, (columns,)) + NOISE * jr.normal(noise, (rows,))


def loss(w, x, y):
    """Half the squared residual."""
    return 0.5 * jnp.sum((x @ w - y) ** 2)


def design_matrix(points, degree: int):
    """All monomials up to `degree` of points (n, variables): 1, x1, x2, x1^2, x1 x2, ... in columns."""
    variables = range(points.shape[1])
    powers = [c for total in range(degree + 1) for c in combinations_with_replacement(variables, total)]
    return jnp.stack([jnp.prod(points[:, list(c)], axis=1) for c in powers], axis=1)


def along(step, start, count: int):
    """The weights after 0, 1, ..., `count` applications of `step` to a state whose first part is the weights."""
    move = lambda state, _: (step(*state), state[0])
    last, path = jax.lax.scan(move, start, None, length=count)
    return jnp.concatenate([path, last[0][None]])


def gradient_descent(x, y, w, eta, count):
    """w - eta grad f(w)."""
    return along(lambda w: (w - eta * jax.grad(loss)(w, x, y),), (w,), count)


def momentum(x, y, w, eta, count, beta=0.9):
    """Heavy ball: the last step is repeated, times a factor beta."""
    return along(lambda w, v: (w + (u := beta * v - eta * jax.grad(loss)(w, x, y)), u), (w, 0 * w), count)


def newton(x, y, w, eta, count):
    """w - (X^T X)^-1 grad f(w), the Hessian by automatic differentiation."""
    return along(lambda w: (w - jnp.linalg.solve(jax.hessian(loss)(w, x, y), jax.grad(loss)(w, x, y)),), (w,), count)


def gauss_newton(x, y, w, eta, count):
    """The linear least-squares problem of the residual's Jacobian, by QR."""
    residual = lambda w: x @ w - y
    step = lambda w: lx.linear_solve(lx.MatrixLinearOperator(jax.jacfwd(residual)(w)), residual(w), lx.QR()).value
    return along(lambda w: (w - step(w),), (w,), count)


def trust_region(x, y, w, eta, count):
    """Newton's step, shortened to a radius that doubles after a good step and shrinks after a bad one."""

    def step(w, radius):
        g, h = jax.grad(loss)(w, x, y), x.T @ x
        full = -jnp.linalg.solve(h, g)
        move = full * jnp.minimum(1.0, radius / jnp.linalg.norm(full))
        ratio = (loss(w + move, x, y) - loss(w, x, y)) / (g @ move + 0.5 * move @ h @ move - 1e-300)
        return jnp.where(ratio > 0.1, w + move, w), jnp.where(ratio > 0.75, 2 * radius, 0.5 * radius)

    return along(step, (w, jnp.array(1.0)), count)


def conjugate_gradients(x, y, w, eta, count):
    """Conjugate gradients on X^T X w = X^T y: exact after as many steps as columns."""

    def step(w, r, d):
        product = x.T @ (x @ d)
        alpha = (r @ r) / jnp.maximum(d @ product, 1e-300)
        rest = r - alpha * product
        return w + alpha * d, rest, rest + (rest @ rest) / jnp.maximum(r @ r, 1e-300) * d

    r = x.T @ (y - x @ w)
    return along(step, (w, r, r), count)


def coordinate_descent(x, y, w, eta, count):
    """The exact minimum over one weight after another; one step is a sweep over all weights."""

    def sweep(w):
        one = lambda k, w: w.at[k].add(x[:, k] @ (y - x @ w) / (x[:, k] @ x[:, k]))
        return (jax.lax.fori_loop(0, w.size, one, w),)

    return along(sweep, (w,), count)


def by_optax(optimizer):
    """An optimizer of optax as a method."""

    def run(x, y, w, eta, count):
        value = lambda w: loss(w, x, y)

        def step(w, state):
            f, g = jax.value_and_grad(value)(w)
            updates, state = optimizer.update(g, state, w, value=f, grad=g, value_fn=value)
            return optax.apply_updates(w, updates), state

        return along(step, (w, optimizer.init(w)), count)

    return run


METHODS = {
    "gradient descent": gradient_descent,
    "momentum": momentum,
    "Adam": by_optax(optax.with_extra_args_support(optax.adam(0.1))),
    "L-BFGS": by_optax(optax.lbfgs()),
    "conjugate gradients": conjugate_gradients,
    "coordinate descent": coordinate_descent,
    "trust region": trust_region,
    "Gauss-Newton": gauss_newton,
    "Newton": newton,
}


def excess(path, x, y):
    """f(w_T) - f* along a path of weights, without the rounding of a difference of losses: |X (w - w*)|^2 / 2."""
    best = normal_equations(x, y)
    return 0.5 * jnp.sum(((path - best) @ x.T) ** 2, axis=-1)


def normal_equations(x, y):
    """The minimum, from X^T X w = X^T y by Cholesky."""
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(x.T @ x), x.T @ y)


def bound_of(x, y, w, eta, count: int):
    """The theorem's bound |w0 - w*|^2 / (2 eta T) for T = 1, ..., count."""
    return jnp.sum((w - normal_equations(x, y)) ** 2) / (2 * eta * jnp.arange(1, count + 1))


def compare(*, seed: cli.Seed = 0, steps: Annotated[int, cli.Within(1, 20_000)] = 200, run: cli.Run) -> dict:
    """Every method on one problem, the bound, the cubic, the surfaces; writes the report.

    Args:
        seed: of the problem.
        steps: iterations of every method.
    """
    x, y = problem(jr.key(seed))
    w, eta = jnp.zeros(COLUMNS), 1 / jnp.linalg.eigvalsh(x.T @ x)[-1]
    curves, result = {}, {}
    for name, method in METHODS.items():
        run.say(name)
        path = jax.jit(lambda w, m=method: m(x, y, w, eta, steps))(w)
        curves[name] = np.asarray(excess(path, x, y))
        result[f"{name}, steps to 1e-8 of the start"] = reached(curves[name])
    limit = np.asarray(bound_of(x, y, w, eta, steps))
    result["bound_respected"] = bool(np.all(curves["gradient descent"][1:] <= limit))
    run.say("bound on random problems, and sin x by a cubic")
    result |= bound(problems=200, seed=seed) | sine()
    write_report(run, curves, limit, result)
    return result


def reached(curve) -> int | None:
    """The first step at which the excess is 1e-8 of that at the start; None if none is."""
    below = np.flatnonzero(curve <= 1e-8 * curve[0])
    return int(below[0]) if below.size else None


def write_report(run, curves, limit, result) -> None:
    """The page: results, convergence with the bound, the cubic's fit, surfaces."""
    page = report.Report("Least squares by ten methods", f"{ROWS} rows, {COLUMNS} columns, with the theoretical bound")
    page.settings(run.settings)
    page.result(result)
    shown = {name: np.maximum(curve, 1e-20) for name, curve in curves.items()}
    shown["bound for gradient descent"] = np.concatenate([[np.nan], limit])
    picture = plot.curves(np.arange(len(limit) + 1), shown, "step", "f(w) - f*", log="y", dashed=[*shown][-1:])
    page.section("Convergence")
    page.figure(picture, "Gradient descent stays below its bound; the normal equations give f* in one step.")
    run.figure("convergence", picture)
    page.section("The sine by a cubic")
    x = jnp.linspace(-np.pi, np.pi, 200)
    fits = {name: basis(x) @ normal_equations(basis(x), jnp.sin(x)) for name, basis in BASES.items()}
    cubic = plot.curves(x, {"sin x": jnp.sin(x), "best cubic": fits["powers"]}, "x", "y", dashed=["best cubic"])
    gap = float(jnp.max(jnp.abs(fits["powers"] - fits["Legendre"])))
    page.figure(cubic, f"Powers and Legendre polynomials give the same cubic, within {gap:.0e}.")
    run.figure("cubic", cubic)
    page.section("Loss surfaces")
    for hidden, description in ((1, "one sigmoid neuron"), (2, "two tanh neurons, over the first layer's weights")):
        surface = draw_surface(hidden)
        page.figure(surface, f"Loss of {description}, with paths of gradient descent, momentum and Adam.")
        run.figure(f"surface_{hidden}", surface)
    page.write(run.folder / "report.html")


def bound(
    *,
    problems: Annotated[int, cli.Within(1, 100_000)] = 1000,
    steps: Annotated[int, cli.Within(1, 1000)] = 100,
    seed: cli.Seed = 0,
) -> dict:
    """Count how often gradient descent with step 1/lambda_max violates the theoretical bound: never.

    Args:
        problems: random problems, of 20 rows and 8 columns.
        steps: of gradient descent on each.
        seed: of the problems.
    """

    @jax.jit
    @jax.vmap
    def ratio(key):
        first, second = jr.split(key)
        x, y = problem(first, 20, 8)
        w, eta = 3 * jr.normal(second, (8,)), 1 / jnp.linalg.eigvalsh(x.T @ x)[-1]
        path = gradient_descent(x, y, w, eta, steps)
        return jnp.max(excess(path, x, y)[1:] / bound_of(x, y, w, eta, steps))

    ratios = np.asarray(ratio(jr.split(jr.key(seed), problems)))
    if not np.isfinite(ratios).all():
        count = int(np.sum(~np.isfinite(ratios)))
        raise ds.RunError(f"{count} of {problems} problems have a loss or bound that is not finite: give another seed")
    return {"problems": problems, "violations": int(np.sum(ratios > 1)), "closest_to_the_bound": float(ratios.max())}


def descend(
    *, step: cli.Positive = 1.0, steps: Annotated[int, cli.Within(1, 20_000)] = 500, seed: cli.Seed = 0
) -> dict:
    """Gradient descent with a step in units of 1/lambda_max; beyond 2 it diverges, which is an error.

    Args:
        step: times 1/lambda_max.
        steps: iterations.
        seed: of the problem.
    """
    x, y = problem(jr.key(seed))
    largest = jnp.linalg.eigvalsh(x.T @ x)[-1]
    curve = np.asarray(excess(gradient_descent(x, y, jnp.zeros(COLUMNS), step / largest, steps), x, y))
    if not curve[-1] < curve[0]:
        raise ds.RunError(
            f"gradient descent diverges: from {curve[0]:.3g} to {curve[-1]:.3g} above the minimum in {steps} steps of "
            f"{step:g}/lambda_max; give a step below 2, such as 1"
        )
    return {"start": float(curve[0]), "end": float(curve[-1]), "steps": steps}


BASES = {
    "powers": lambda x: design_matrix(x[:, None], 3),
    "Legendre": lambda x: jnp.stack([x**0, x / np.pi, 1.5 * (x / np.pi) ** 2 - 0.5, legendre3(x / np.pi)], axis=-1),
}


def sine(
    *,
    points: Annotated[int, cli.Within(4, 100_000)] = 2000,
    step: cli.Positive = 1e-6,
    steps: Annotated[int, cli.Within(1, 100_000)] = 2000,
) -> dict:
    """sin x from -pi to pi by a cubic, by gradient descent on the summed squares; gradient by hand and automatic.

    Args:
        points: on the axis.
        step: of gradient descent.
        steps: iterations.
    """
    x = jnp.linspace(-np.pi, np.pi, points)
    y, result = jnp.sin(x), {}
    for name, basis in BASES.items():
        matrix = basis(x)
        value = lambda w, a=matrix: jnp.sum((a @ w - y) ** 2)
        by_hand = lambda w, a=matrix: 2 * a.T @ (a @ w - y)
        start = 0.1 * jr.normal(jr.key(0), (4,))
        path = along(lambda w, g=by_hand: (w - step * g(w),), (start,), steps)
        automatic = along(lambda w, f=value: (w - step * jax.grad(f)(w),), (start,), steps)
        if not jnp.isfinite(path[-1]).all():
            raise ds.RunError(f"{name}: gradient descent diverges with step={step:g}; give a smaller one, such as 1e-6")
        best = normal_equations(matrix, y)
        gap = jnp.max(jnp.abs(by_hand(start) - jax.grad(value)(start))) / jnp.max(jnp.abs(by_hand(start)))
        result |= {
            f"{name}_gradient_gap": float(gap),
            f"{name}_path_gap": float(jnp.max(jnp.abs(path - automatic))),
            f"{name}_mean_square": float(value(path[-1]) / points),
            f"{name}_best_mean_square": float(value(best) / points),
        }
    return result


def surface(hidden: int):
    """The loss of two weights: a sigmoid neuron's weight and bias, or a tanh network's first two weights."""
    x = jnp.linspace(-2.0, 2.0, 40)
    if hidden == 1:
        y = jax.nn.sigmoid(2.0 * x - 1.0)
        return lambda w: jnp.mean((jax.nn.sigmoid(w[0] * x + w[1]) - y) ** 2)
    y = jnp.tanh(1.5 * x) - 0.8 * jnp.tanh(-0.5 * x)
    return lambda w: jnp.mean((jnp.tanh(w[0] * x) - 0.8 * jnp.tanh(w[1] * x) - y) ** 2)


def draw_surface(hidden: int):
    """The picture of `surface`, with the paths of three optimizers from one start."""
    value, start = surface(hidden), jnp.array([-3.0, 3.0])
    axis = jnp.linspace(-5.0, 5.0, 81)
    grid = jax.vmap(lambda b: jax.vmap(lambda a: value(jnp.stack([a, b])))(axis))(axis)
    optimizers = {"gradient descent": optax.sgd(2.0), "momentum": optax.sgd(0.2, 0.9), "Adam": optax.adam(0.1)}
    paths = {}
    for name, optimizer in optimizers.items():

        def step(w, state, optimizer=optimizer):
            updates, state = optimizer.update(jax.grad(value)(w), state)
            return optax.apply_updates(w, updates), state

        paths[name] = along(step, (start, optimizer.init(start)), 300)
    names = ("weight", "bias", "loss") if hidden == 1 else ("first weight", "second weight", "loss")
    return plot.field_map(axis, axis, grid, *names, paths=paths)


def surfaces(out: Annotated[Path, cli.WritableFile((".svg", ".png", ".pdf"))], *, hidden: Literal[1, 2] = 1) -> dict:
    """Loss surface of a neuron or of a small network, with paths of three optimizers, drawn to a file.

    Args:
        out: the picture to write: .png, .svg or .pdf.
        hidden: 1 for one sigmoid neuron, 2 for a network of two tanh neurons.
    """
    plot.save_figure(draw_surface(hidden), out)
    return {"file": str(out)}


if __name__ == "__main__":
    cli.main(compare, bound, descend, sine, surfaces)
