"""The barrier to fusion: it changes nothing but the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._jax.barrier import barrier


def plain(x, y):
    return jnp.sum(jnp.sin(x) * y**2)


def kept_apart(x, y):
    a, b = barrier(jnp.sin(x), y)
    return jnp.sum(a * b**2)


X, Y = jnp.array([0.3, -0.8, 1.5]), jnp.array([0.9, -0.6, 0.1])


@pytest.mark.parametrize(
    "mode",
    [
        lambda f: f,
        jax.jit,
        jax.grad,
        lambda f: jax.grad(f, argnums=1),
        lambda f: jax.jacfwd(f, argnums=(0, 1)),
        lambda f: jax.hessian(f, argnums=(0, 1)),
        lambda f: jax.vmap(f, in_axes=(0, None)),
        lambda f: jax.jit(jax.vmap(jax.grad(f))),
    ],
)
def test_every_mode_goes_through(mode):
    for a, b in zip(*(jax.tree.leaves(mode(f)(X, Y)) for f in (kept_apart, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


def test_over_a_batch_a_cpu_keeps_a_call_in_the_derivative_too():
    if jax.default_backend() != "cpu":
        pytest.skip("other backends have their own barrier")
    program = jax.jit(jax.vmap(jax.grad(kept_apart))).lower(X[None], Y[None]).as_text()
    assert program.count("inlineable") >= 2
