"""Forward derivatives in every mode, and the program compiled whole: the same numbers as the plain function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import compile_whole, few_inputs


def plain(model, x):
    """A function of a tree with a fixed string beside its arrays, whose outputs are a number and a count."""
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


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_few_inputs_changes_nothing_but_the_mode(use):
    served, expected = use(first(few_inputs(plain)))(MODEL, X), use(first(plain))(MODEL, X)
    for a, b in zip(jax.tree.leaves(served), jax.tree.leaves(expected), strict=True):
        # The same formula with its sums in another order.
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_few_inputs_passes_counts_through():
    (_, count), _ = jax.jit(jax.value_and_grad(lambda x: few_inputs(plain)(MODEL, x), has_aux=True))(X)
    assert count == 4
    assert jnp.issubdtype(count.dtype, jnp.integer)


def test_few_inputs_serves_a_loop_that_reverse_mode_refuses():
    def power(x, n):
        return jax.lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] * x, c[1] + 1), (jnp.ones_like(x), 0))[0]

    x = jnp.array(1.1)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(power)(x, 5)
    assert jax.grad(few_inputs(power))(x, 5) == pytest.approx(5 * 1.1**4, rel=1e-14)


def test_few_inputs_refuses_a_differentiated_closure():
    with pytest.raises(Exception, match=r"[Cc]los|custom_jvp|[Tt]racer"):
        jax.grad(lambda a: few_inputs(lambda x: a * x)(jnp.array(2.0)))(jnp.array(3.0))


def test_compile_whole_changes_nothing():
    def sums(x, y):
        return jnp.sum(jax.lax.scan(lambda c, a: (jnp.sin(c) * a, c), x, y)[1])

    x, y = jnp.array(0.3), jnp.arange(1.0, 20.0)
    whole = compile_whole(sums)
    # One program or many: the same operations, save for their fusion.
    np.testing.assert_allclose(whole(x, y), sums(x, y), rtol=1e-13)
    np.testing.assert_allclose(jax.grad(whole)(x, y), jax.grad(sums)(x, y), rtol=1e-13)
    np.testing.assert_allclose(jax.jit(jax.vmap(whole, (0, None)))(x[None], y)[0], sums(x, y), rtol=1e-13)
