"""The methods of differentiating, against closed forms and each other: orders, accuracy, and what each refuses."""

import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.autodiff import finite_differences
from diffsim.autodiff.automatic import cheaper_mode, hessian, hvp, jacobian
from diffsim.autodiff.complex_step import complex_derivative, complex_gradient
from diffsim.autodiff.costs import cost, growth
from diffsim.autodiff.derivative_table import derivative_table
from diffsim.autodiff.legendre import legendre3
from diffsim.autodiff.symbolic import symbolic_gradient, to_jax, to_sympy

X = {"a": jnp.array([0.3, -1.2]), "b": jnp.array([[0.7], [2.0]])}


def scalar(x):
    return jnp.sum(jnp.sin(x["a"])) * jnp.prod(x["b"]) + jnp.exp(x["a"][0] * x["b"][1, 0])


def vector(x):
    return {"p": jnp.outer(x["a"], x["b"][:, 0]) ** 2, "q": jnp.sum(jnp.cos(x["a"]))}


def two(x1, x2):
    return (jnp.sin(x1 / x2) + x1 / x2 - jnp.exp(x2)) * (x1 / x2 - jnp.exp(x2))


def by_hand(x1, x2):
    """The gradient of `two`, by the product rule."""
    r, e = x1 / x2, np.exp(x2)
    first, second = np.sin(r) + r - e, r - e
    return [(np.cos(r) / x2 + 1 / x2) * second + first / x2,
            (-np.cos(r) * x1 / x2**2 - x1 / x2**2 - e) * second + first * (-x1 / x2**2 - e)]  # fmt: skip


FUNCTIONS = {
    "x^3 - 3x": (lambda x: x**3 - 3 * x, lambda x: 3 * x**2 - 3, (1.7,)),
    "sin": (jnp.sin, np.cos, (0.9,)),
    "two variables": (two, by_hand, (1.5, 0.5)),
    "P3": (legendre3, lambda x: 7.5 * x**2 - 1.5, (0.6,)),
    "mixed": (
        lambda x, y: jnp.tanh(x) * jnp.log1p(y**2) + jnp.sqrt(y) ** 3,
        lambda x, y: [np.log1p(y**2) / np.cosh(x) ** 2, np.tanh(x) * 2 * y / (1 + y**2) + 1.5 * np.sqrt(y)],
        (0.4, 1.3),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_by_hand_is_symbolic_is_automatic_is_complex(name):
    f, derivative, point = FUNCTIONS[name]
    hand = np.ravel(derivative(*point))
    numbers = tuple(range(len(point)))
    automatic = np.ravel(jax.grad(f, numbers)(*point))
    np.testing.assert_allclose(automatic, hand, rtol=1e-12)
    imaginary = complex_gradient(lambda x: f(*x), jnp.asarray(point))
    np.testing.assert_allclose(imaginary, hand, rtol=1e-12)
    if name != "P3":  # a function with a custom rule has no formula
        symbolic = symbolic_gradient(f, *("x1", "x2")[: len(point)])(*point)
        np.testing.assert_allclose(np.ravel(symbolic), hand, rtol=1e-12)


@pytest.mark.parametrize(("scheme", "order"), finite_differences.ORDERS.items())
@pytest.mark.parametrize("name", ["sin", "two variables", "mixed"])
def test_observed_order(name, scheme, order):
    """The error falls as step^order where truncation dominates and one term is enough."""
    f, derivative, point = FUNCTIONS[name]
    exact = np.ravel(derivative(*point))
    steps = 2.0 ** -(np.arange(3, 7) if order == 4 else np.arange(8, 12))
    x = jnp.asarray(point)
    error = [np.abs(finite_differences.difference_gradient(lambda x: f(*x), x, scheme, h) - exact) for h in steps]
    slope = np.polyfit(np.log(steps), np.log(error), 1)[0]
    np.testing.assert_allclose(slope, order, atol=0.1)


@pytest.mark.parametrize("scheme", finite_differences.STENCILS)
def test_the_chosen_step_is_near_the_best(scheme):
    exact = np.asarray(jax.flatten_util.ravel_pytree(jax.grad(scalar)(X))[0])
    error = lambda step: np.max(np.abs(finite_differences.difference_jacobian(scalar, X, scheme, step)[0] - exact))
    best = min(error(2.0**-k) for k in range(2, 40, 2))
    assert error(None) < 100 * best


def test_noise_is_that_which_was_put_in():
    assert finite_differences.noise(scalar, X) < 1e-14
    noisy = lambda x: scalar(x) + 1e-7 * jnp.sin(1e11 * jnp.sum(x["a"]))
    assert 1e-8 < finite_differences.noise(noisy, X) < 1e-6
    assert finite_differences.best_step(noisy, X) > 10 * finite_differences.best_step(scalar, X)
    assert finite_differences.best_step(jnp.sum, jnp.ones(3, jnp.float32)) > finite_differences.best_step(
        jnp.sum, jnp.ones(3)
    )


def test_trees_jacobian_hessian_and_products():
    flat, unravel = jax.flatten_util.ravel_pytree(X)
    exact = jax.jacfwd(lambda v: jax.flatten_util.ravel_pytree(vector(unravel(v)))[0])(flat)
    # Fourth order at a step near eps^(1/5): its best is eps^(4/5), 3e-13, times the function's derivatives.
    np.testing.assert_allclose(finite_differences.difference_jacobian(vector, X, "richardson"), exact, atol=1e-10)
    direction = unravel(jr.normal(jr.key(0), flat.shape))
    along = exact @ jax.flatten_util.ravel_pytree(direction)[0]
    np.testing.assert_allclose(finite_differences.difference_along(vector, X, direction), along, atol=1e-8)
    second = finite_differences.difference_hessian(scalar, X)
    np.testing.assert_array_equal(second, second.T)
    # A second difference at the fourth root of the rounding keeps about half of the digits.
    np.testing.assert_allclose(second, hessian(scalar, X), atol=1e-5)
    product = hvp(scalar, X, direction)
    for result in (finite_differences.difference_hvp(scalar, X, direction), unravel(hessian(scalar, X) @ flat * 0)):
        assert jax.tree.structure(result) == jax.tree.structure(X)
    expected = hessian(scalar, X) @ jax.flatten_util.ravel_pytree(direction)[0]
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(product)[0], expected, rtol=1e-12)
    difference = finite_differences.difference_hvp(scalar, X, direction)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(difference)[0], expected, rtol=1e-7)


def test_the_cheaper_mode():
    tall, wide = (lambda x: jnp.outer(x, x)), (lambda x: jnp.sum(x**2))
    assert (cheaper_mode(tall, jnp.ones(3)), cheaper_mode(wide, jnp.ones(3))) == ("forward", "reverse")
    np.testing.assert_allclose(jacobian(tall, jnp.ones(3)), jacobian(tall, jnp.ones(3), "reverse"))


@pytest.mark.usefixtures("wrong_types")
def test_an_unknown_mode_is_named():
    with pytest.raises(InputError, match="mode='sideways'"):
        jacobian(jnp.square, jnp.ones(3), "sideways")


def test_costs_grow_as_the_theory_says():
    """Reverse mode costs a small multiple per output, forward mode per input (Griewank and Walther, chapters 3, 4)."""
    make = lambda n, m: lambda x: jnp.sin(jnp.ones((m, n)) @ x)
    few, many, wide = growth(make, [(4, 1), (64, 1), (64, 64)])
    assert many.ratio["reverse"] < 6 > few.ratio["reverse"]
    assert many.ratio["forward"] > 8 * few.ratio["forward"]
    assert 128 < wide.ratio["differences"] < 1.1 * 128  # two evaluations per input, and moving the point
    assert all(value > 0 for value in many.seconds.values())
    assert cost(lambda x: jnp.sum(jnp.exp(x) * x), jnp.ones(100)).transcendentals == 100


def test_formulas_there_and_back():
    expression = to_sympy(two, "x1", "x2")
    assert str(expression).count("x1/x2") == 3
    np.testing.assert_allclose(to_jax(expression, "x1", "x2")(1.5, 0.5), two(1.5, 0.5), rtol=1e-14)
    grad = jax.jit(symbolic_gradient(two, "x1", "x2"))
    np.testing.assert_allclose(grad(1.5, 0.5), by_hand(1.5, 0.5), rtol=1e-12)
    assert float(to_jax(to_sympy(lambda x: jax.nn.sigmoid(x) + 0.1 * x, "x"), "x")(0.0)) == 0.5


def test_what_has_no_formula(monkeypatch):
    with pytest.raises(InputError, match=r"while at test_derivative_table.py:\d+ has no formula"):
        to_sympy(lambda x: jax.lax.while_loop(lambda v: v < 9, lambda v: v * v, x), "x")
    with pytest.raises(InputError, match="return one number"):
        to_sympy(lambda x: (x, x), "x")
    with pytest.raises(InputError, match="has x2, not among x1"):
        to_jax(to_sympy(two, "x1", "x2"), "x1")
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(InputError, match=r"pip install 'diffsim\[symbolic\]'"):
        to_sympy(two, "x1", "x2")


@pytest.mark.parametrize(
    "f", [lambda x: jnp.abs(x) * x, lambda x: jnp.linalg.norm(x), lambda x: jnp.maximum(x, 0.0), lambda x: jnp.where(
        x > 0, x, -x)], ids=["abs", "norm", "max", "where"]
)  # fmt: skip
def test_complex_steps_refuse_what_is_not_analytic(f):
    with pytest.raises(InputError, match="no complex derivative: use differences"):
        complex_derivative(f, jnp.array([0.3]), jnp.array([1.0]))


def test_custom_rule_in_both_modes_and_second_order():
    x = jnp.linspace(-1.0, 1.0, 7)
    np.testing.assert_allclose(jax.vmap(jax.grad(legendre3))(x), 7.5 * x**2 - 1.5, rtol=1e-14)
    np.testing.assert_allclose(jax.jvp(legendre3, (x,), (x,))[1], (7.5 * x**2 - 1.5) * x, rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(legendre3)))(x), 15 * x, rtol=1e-14)


@pytest.mark.usefixtures("wrong_types")
def test_bad_requests():
    with pytest.raises(InputError, match="scheme='sideways': choose from forward"):
        finite_differences.difference_gradient(scalar, X, "sideways")
    with pytest.raises(InputError, match="step=-1"):
        finite_differences.difference_gradient(scalar, X, step=-1)
    with pytest.raises(InputError, match="f returns 5 numbers"):
        finite_differences.difference_gradient(vector, X)
    with pytest.raises(InputError, match="type int64: give floating-point numbers"):
        finite_differences.difference_gradient(jnp.sum, jnp.arange(3))
    with pytest.raises(InputError, match="direction has 1 numbers but x has 4"):
        finite_differences.difference_along(vector, X, jnp.ones(1))
    with pytest.raises(InputError, match="give a tree like x"):
        hvp(scalar, X, jnp.ones(4))


def test_one_table_of_all_ways():
    table = derivative_table(two, 1.5, 0.5, by_hand=by_hand)
    assert table.reference == "by hand"
    errors = table.errors()
    assert set(errors) >= {"symbolic", "complex step", "automatic, reverse", "differences, central"}
    # Differences of orders 1, 2 and 4 at their best steps; the others to rounding.
    limits = {"differences, forward": 1e-6, "differences, backward": 1e-6, "differences, central": 1e-8}
    assert all(error < limits.get(method, 1e-11) for method, error in errors.items())
    assert "errors relative to: by hand" in str(table)
    wrong = derivative_table(lambda x: x**2, 3.0, by_hand=5.0)
    assert wrong.errors()["automatic, reverse"] == pytest.approx(0.2)


def test_ways_that_do_not_apply_say_why():
    table = derivative_table(lambda x: jnp.sum(jnp.abs(x)), jnp.array([1.0, -2.0]))
    methods = {method.name: method for method in table.methods}
    assert methods["symbolic"].gradient is None
    assert "no complex derivative" in methods["complex step"].remark
    np.testing.assert_array_equal(methods["automatic, forward"].gradient, [1.0, -1.0])
    for point, message in [((), "empty"), ((1.0, jnp.ones(2)), "mixes"), ((jnp.array([1, 2]),), "int")]:
        with pytest.raises(InputError, match=message):
            derivative_table(lambda *x: x[0], *point)
    with pytest.raises(InputError, match="return one number"):
        derivative_table(lambda x: x, jnp.ones(2))
