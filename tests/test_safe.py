"""Functions with finite derivatives: the mathematical ones where these are finite, and 0 at the given arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import safe

# The function, its counterpart, arguments where both agree, and one where only the function has a finite derivative.
CASES = {
    "sqrt": (safe.sqrt, jnp.sqrt, (2.3,), (0.0,)),
    "sqrt of a negative number": (safe.sqrt, jnp.sqrt, (0.1,), (-1.0,)),
    "norm": (lambda a, b: safe.norm(jnp.stack([a, b])), jnp.hypot, (0.3, -0.4), (0.0, 0.0)),
    "atan2": (safe.atan2, jnp.arctan2, (0.3, -0.4), (0.0, 0.0)),
    "power": (safe.power, jnp.power, (2.3, 0.4), (0.0, 0.4)),
    "power of a negative number": (safe.power, jnp.power, (1.7, -2.0), (-1.0, 2.0)),
    "log": (lambda x: safe.log(x, 1e-3), jnp.log, (0.2,), (0.0,)),
    "divide": (safe.divide, jnp.divide, (0.2, -3.0), (1.0, 0.0)),
}


def value_and_derivatives(f, args):
    """Value, gradient by reverse and forward mode, and Hessian, as one program."""
    every = tuple(range(len(args)))
    both = lambda *x: (f(*x), jax.grad(f, every)(*x), jax.jacfwd(f, every)(*x), jax.hessian(f, every)(*x))
    return jax.tree.leaves(jax.jit(both)(*map(jnp.asarray, args)))


@pytest.mark.parametrize(("f", "exact", "regular", "singular"), CASES.values(), ids=CASES.keys())
def test_values_and_derivatives(f, exact, regular, singular):
    for own, right in zip(value_and_derivatives(f, regular), value_and_derivatives(exact, regular), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-13)
    value, *derivatives = value_and_derivatives(f, singular)
    assert np.isfinite(value)
    assert all(np.all(x == 0) for x in derivatives)


@pytest.mark.parametrize("f", [case[0] for case in CASES.values()], ids=CASES.keys())
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_failure_stays_visible(f, dtype):
    """NaN gives NaN, in value and gradient, whatever the value at the replaced arguments."""
    args = [jnp.full((), jnp.nan, dtype)] * (1 if f in (safe.sqrt, CASES["log"][0]) else 2)
    value, slopes = jax.jit(jax.value_and_grad(f, tuple(range(len(args)))))(*args)
    assert value.dtype == dtype
    assert np.isnan([value, *slopes]).all()


def test_batches_with_both_kinds():
    x = jnp.array([-1.0, 0.0, 4.0, jnp.nan])
    np.testing.assert_array_equal(safe.sqrt(x), [0.0, 0.0, 2.0, jnp.nan])
    np.testing.assert_array_equal(jax.vmap(jax.grad(safe.sqrt))(x), [0.0, 0.0, 0.25, jnp.nan])
    np.testing.assert_array_equal(safe.norm(jnp.zeros((2, 3)), axis=1, keepdims=True), np.zeros((2, 1)))
