"""`forward_mode` in every mode of differentiation, and `compile_whole`: the same numbers as the plain function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, forward_mode
from diffsim._jax.plain_operations import operations
from diffsim.autodiff.forward_mode import few_or_many
from diffsim.compilation import compile_whole


def plain(model, x):
    """A function of a tree of arrays and a fixed string, whose outputs are a number and a count."""
    value = model["gain"] * jnp.sin(x[0] * model["rate"]) + jnp.exp(-x[1]) * x[0]
    return value, jnp.array(3) + (value > 0)


def first(function):
    return lambda *args: function(*args)[0]


MODEL = {"gain": jnp.array(1.5), "rate": jnp.array(0.8), "name": "wave"}
X = jnp.array([0.7, 0.2])
USES = {
    "value": lambda f: f,
    "jit": lambda f: eqx.filter_jit(f),
    "grad": lambda f: eqx.filter_grad(f),
    "jacfwd": lambda f: lambda m, x: jax.jacfwd(lambda x: f(m, x))(x),
    "jacrev": lambda f: lambda m, x: jax.jacrev(lambda x: f(m, x))(x),
    "hessian": lambda f: lambda m, x: jax.hessian(lambda x: f(m, x))(x),
    "vmap": lambda f: lambda m, x: jax.vmap(lambda x: f(m, x))(jnp.stack([x, 2 * x])),
    "vmap of grad": lambda f: lambda m, x: jax.vmap(jax.grad(lambda x: f(m, x)))(jnp.stack([x, 2 * x])),
    "grad of vmap": lambda f: (
        lambda m, x: jax.grad(lambda x: jnp.sum(jax.vmap(lambda x: f(m, x))(x)))(jnp.stack([x, 2 * x]))
    ),
}


WAYS = {
    "value": lambda f: f,
    "grad": jax.grad,
    "hessian": jax.hessian,
    "vmap of grad": lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, 2 * x])),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_few_inputs_changes_nothing_but_the_mode(use):
    served, expected = use(first(forward_mode(plain)))(MODEL, X), use(first(plain))(MODEL, X)
    for a, b in zip(jax.tree.leaves(served), jax.tree.leaves(expected), strict=True):
        # The same formula with its sums in another order.
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_few_inputs_passes_counts_through():
    (_, count), _ = jax.jit(jax.value_and_grad(lambda x: forward_mode(plain)(MODEL, x), has_aux=True))(X)
    assert count == 4
    assert jnp.issubdtype(count.dtype, jnp.integer)


def test_few_inputs_serves_a_loop_that_reverse_mode_refuses():
    def power(x, n):
        return jax.lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] * x, c[1] + 1), (jnp.ones_like(x), 0))[0]

    x = jnp.array(1.1)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(power)(x, 5)
    assert jax.grad(forward_mode(power))(x, 5) == pytest.approx(5 * 1.1**4, rel=1e-14)


def test_few_inputs_differentiates_what_the_function_closes_over():
    slope = lambda a: jax.grad(lambda x: forward_mode(lambda x: a * jnp.sin(a * x))(x))(jnp.array(2.0))
    a = jnp.array(3.0)
    # d/dx a sin(ax) = a^2 cos(ax), and its derivative in a.
    assert slope(a) == pytest.approx(9.0 * np.cos(6.0), rel=1e-14)
    assert jax.grad(slope)(a) == pytest.approx(6.0 * np.cos(6.0) - 18.0 * np.sin(6.0), rel=1e-13)


@pytest.mark.parametrize("use", ["grad", "jacfwd", "jacrev", "hessian", "jit of grad", "vmap"])
def test_rows_one_after_another_are_a_batch(use):
    def row(shared, x, y):
        return {"wave": shared["gain"] * jnp.sin(x * y), "sum": shared["gain"] * x + y**2}

    shared, x, y = {"gain": jnp.array(1.5), "name": None}, jnp.arange(1.0, 4.0), jnp.array([0.3, -0.2, 0.9])
    loss = lambda function: lambda x, gain: jnp.sum(function({"gain": gain, "name": None}, x, y)["wave"] ** 2)
    uses = {
        "grad": lambda f: jax.grad(loss(f), argnums=(0, 1))(x, shared["gain"]),
        "jacfwd": lambda f: jax.jacfwd(lambda x: f(shared, x, y))(x),
        "jacrev": lambda f: jax.jacrev(lambda y: f(shared, x, y))(y),
        "hessian": lambda f: jax.hessian(loss(f), argnums=(0, 1))(x, shared["gain"]),
        "jit of grad": lambda f: jax.jit(jax.grad(loss(f)))(x, shared["gain"]),
        "vmap": lambda f: jax.vmap(lambda y: f(shared, x, y))(jnp.stack([y, 2 * y])),
    }
    served = forward_mode(row, in_axes=(None, 0, 0))
    expected = jax.vmap(row, in_axes=(None, 0, 0))
    for a, b in zip(*(jax.tree.leaves(uses[use](f)) for f in (served, expected)), strict=True):
        # The same formula with its sums in another order.
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("axes", [(0,), (0, 1), (0, 0, 0)], ids=str)
def test_rows_that_do_not_fit_the_arguments_are_told(axes):
    with pytest.raises(InputError, match=r"in_axes=.*: give 0 or None for each of the 2 arguments"):
        forward_mode(lambda x, y: x * y, in_axes=axes)(jnp.ones(3), jnp.ones(3))


def test_rows_without_arrays_or_of_unequal_number_are_told():
    with pytest.raises(InputError, match="in_axes"):
        forward_mode(lambda x, y: x * y, in_axes=(0, 0))(jnp.ones(3), jnp.ones(4))
    with pytest.raises(InputError, match="in_axes"):
        forward_mode(lambda x, y: x * y, in_axes=(0, 0))(jnp.array(1.0), jnp.ones(4))


def test_few_inputs_leaves_out_what_its_result_does_not_need():
    def value(x):
        solved = jnp.linalg.solve(jnp.diag(x), x)  # needed by no result
        return jnp.sin(x[0]) * x[1], solved

    names = operations(jax.grad(lambda x: forward_mode(lambda x: value(x)[0])(x)), X)
    assert "sin" in names
    assert {"linear_solve", "custom_linear_solve", "lu", "triangular_solve"}.isdisjoint(names)


@pytest.mark.parametrize("use", WAYS.values(), ids=WAYS)
def test_few_inputs_serves_what_jax_replaces_before_lowering(use):
    def interpolated(x):
        knots = jnp.linspace(0.0, 2.0, 5)
        at = jnp.searchsorted(knots, x[0])
        return knots[at] * x[0] ** 2 * x[1]

    both = (jax.tree.leaves(jax.jit(use(f))(X)) for f in (forward_mode(interpolated), interpolated))
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_few_inputs_serves_inside_shard_map():
    served = forward_mode(lambda x, y: jnp.sin(x) * y)
    slopes = jax.vmap(jax.grad(lambda x: served(x, x**2)))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("devices",))
    spec, x = jax.sharding.PartitionSpec("devices"), jnp.linspace(0.0, 1.0, 4)
    gradients = jax.jit(jax.shard_map(slopes, mesh=mesh, in_specs=spec, out_specs=spec))(x)
    np.testing.assert_allclose(gradients, jnp.cos(x) * x**2 + 2 * x * jnp.sin(x), rtol=1e-14)


def test_a_function_that_nests_and_is_compiled_once_serves_several_transformations():
    def outer(x):
        limit = jax.lax.stop_gradient(10 * x)
        return forward_mode(lambda y: jnp.minimum(y**2, limit))(forward_mode(jnp.sin)(x))

    x, once = jnp.array(0.6), jax.jit(outer)
    both = lambda f: jax.jit(lambda x: jax.vmap(lambda e: jax.jvp(f, (x,), (e,)))(jnp.arange(2.0)))(x)
    assert once(x) == outer(x)
    assert jax.grad(once)(x) == pytest.approx(np.sin(1.2), rel=1e-14)
    for a, b in zip(both(once), both(outer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


def test_compile_whole_changes_nothing():
    def sums(x, y):
        return jnp.sum(jax.lax.scan(lambda c, a: (jnp.sin(c) * a, c), x, y)[1])

    x, y = jnp.array(0.3), jnp.arange(1.0, 20.0)
    compiled = compile_whole(sums)
    # One program or many: the same operations except for their fusion.
    np.testing.assert_allclose(compiled(x, y), sums(x, y), rtol=1e-13)
    np.testing.assert_allclose(jax.grad(compiled)(x, y), jax.grad(sums)(x, y), rtol=1e-13)
    np.testing.assert_allclose(jax.jit(jax.vmap(compiled, (0, None)))(x[None], y)[0], sums(x, y), rtol=1e-13)


def test_many_tangents_of_many_rows_compiled_whole():
    """The Jacobian of 512 rows in 224 inputs, as in a fit: a product so large that XLA may share it among cores."""
    mix, rows, x = jnp.linspace(-1.0, 1.0, 448).reshape(224, 2), jnp.linspace(0.1, 1.0, 512), jnp.ones(224)
    served = compile_whole(forward_mode(lambda a, b: jnp.sin(a) * b, in_axes=(0, 0)))

    def outputs(x):
        a, b = x @ mix
        return served(a * rows, b + rows)

    jacobian = jax.jit(lambda x: jax.vmap(jax.linearize(outputs, x)[1])(jnp.eye(224)))(x)
    a, b = x @ mix
    by_a, by_b = jnp.cos(a * rows) * rows * (b + rows), jnp.sin(a * rows)
    np.testing.assert_allclose(
        jacobian, jnp.outer(mix[:, 0], by_a) + jnp.outer(mix[:, 1], by_b), rtol=1e-12, atol=1e-12
    )


def test_reverse_mode_over_reverse_mode_of_few_inputs():
    cube = forward_mode(lambda x: jnp.sin(x) ** 3)
    right = 6 * jnp.sin(0.7) * jnp.cos(0.7) ** 2 - 3 * jnp.sin(0.7) ** 3
    for second in (jax.grad(jax.grad(cube)), jax.hessian(cube), jax.jacrev(jax.jacfwd(cube))):
        np.testing.assert_allclose(second(0.7), right, rtol=1e-12)


def cube_by_a_loop(x):
    """The sum of cubes; its loop has no reverse rule."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, jnp.ones_like(x)))[1].sum()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_number_of_inputs_decides_the_mode(size, jit):
    """Up to three numbers the loop is differentiated, beyond the other function, with twice the derivative."""
    twice = lambda x: 2 * jnp.sum(x**3) - jax.lax.stop_gradient(jnp.sum(x**3))
    f = lambda x: few_or_many(cube_by_a_loop, twice, x, 3)
    f = jax.jit(f) if jit else f
    x = jnp.arange(1.0, size + 1)
    factor = 1 if size <= 3 else 2
    np.testing.assert_allclose(f(x), jnp.sum(x**3))
    np.testing.assert_allclose(jax.grad(f)(x), factor * 3 * x**2)
    np.testing.assert_allclose(jax.jvp(f, (x,), (jnp.ones(size),))[1], factor * jnp.sum(3 * x**2))
    np.testing.assert_allclose(jax.hessian(f)(x), factor * jnp.diag(6 * x))
    np.testing.assert_allclose(jax.jacrev(jax.grad(f))(x), factor * jnp.diag(6 * x))
    rows = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(rows), factor * 3 * rows**2)


def test_numbers_that_are_not_differentiated_do_not_count():
    f = lambda x, constants: few_or_many(lambda p: cube_by_a_loop(p[0]) * jnp.sum(p[1]), pytest.fail, (x, constants), 1)
    np.testing.assert_allclose(jax.grad(f)(jnp.array(2.0), jnp.ones(100)), 1200.0)
