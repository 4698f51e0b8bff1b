"""A linear map with its transpose: every mode of differentiation, against the same map without the primitive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffsim._jax.linear_map import linear_map

A = jnp.array([[0.3, 1.1], [-0.7, 0.4]])
X = jnp.array([0.5, -1.2])


def power(residuals, inputs):
    (a,), (x,) = residuals, inputs
    # A loop of unknown length, which JAX cannot transpose.
    return [lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, a @ c[1]), (0, x))[1]]


def transposed(residuals, cotangents):
    return power([residuals[0].T], cotangents)


def own(a, x):
    return linear_map(power, transposed, [jnp.sin(a)], [x])[0]


def plain(a, x):
    a = jnp.sin(a)
    return a @ (a @ (a @ x))


def total(f):
    return lambda a, x: jnp.sum(jnp.cos(f(a, x)))


@pytest.mark.parametrize(
    "mode",
    [
        lambda f: f,
        lambda f: jax.grad(total(f), argnums=1),
        lambda f: jax.jacfwd(f, argnums=1),
        lambda f: jax.jacrev(f, argnums=1),
        lambda f: jax.jacfwd(f, argnums=0),
        lambda f: jax.hessian(total(f), argnums=1),
        lambda f: jax.jacfwd(jax.grad(total(f), argnums=1), argnums=0),
        lambda f: jax.vmap(jax.grad(total(f), argnums=1), in_axes=(None, 0)),
        lambda f: jax.grad(lambda a, x: jnp.sum(jax.vmap(total(f), in_axes=(0, None))(a, x)), argnums=1),
    ],
    ids=["value", "grad", "jacfwd", "jacrev", "in residuals", "hessian", "mixed", "vmap of grad", "grad of vmap"],
)
@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_every_mode(mode, jit, request):
    name = request.node.callspec.id
    a = jnp.stack([A, A + 1]) if "grad of vmap" in name else A
    x = jnp.stack([X, 2 * X]) if "vmap of grad" in name else X
    # Three products of 2 x 2: rounding.
    np.testing.assert_allclose(jit(mode(own))(a, x), mode(plain)(a, x), rtol=1e-12, atol=1e-14)
