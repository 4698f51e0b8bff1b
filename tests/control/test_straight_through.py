"""Clipping and sign: their values, where their gradients pass, and a descent that uses them."""

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.control import straight_through_clip, straight_through_sign


def test_values():
    x = jnp.array([-3.0, -1.0, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(straight_through_clip(x, -1.0, 1.0), [-1.0, -1.0, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(straight_through_sign(x), [-1.0, -1.0, -1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(lambda x: straight_through_clip(x, -2.0, 1.0)))(x), jnp.clip(x, -2.0, 1.0)
    )


def test_a_gradient_passes_inwards_only():
    slope = lambda x, weight: jax.grad(lambda x: weight * straight_through_clip(x, -1.0, 1.0))(jnp.asarray(x))
    # A descent step moves against the slope: beyond the upper limit it may lower x, not raise it.
    assert slope(2.0, 3.0) == 3.0
    assert slope(2.0, -3.0) == 0.0
    assert slope(-2.0, -3.0) == -3.0
    assert slope(-2.0, 3.0) == 0.0
    assert slope(0.3, 3.0) == 3.0
    assert slope(1.0, -3.0) == -3.0


def test_limits_as_arrays_carry_no_gradient():
    cotangents = jax.grad(lambda x, low, high: jnp.sum(straight_through_clip(x, low, high)), argnums=(0, 1, 2))
    x, low, high = jnp.array([0.0, 5.0]), jnp.array([-1.0, -1.0]), jnp.array([1.0, 1.0])
    np.testing.assert_array_equal(cotangents(x, low, high)[0], [1.0, 1.0])
    np.testing.assert_array_equal(cotangents(x, low, high)[1:], np.zeros((2, 2)))


def test_descent_leaves_saturation_where_the_true_gradient_is_zero():
    miss = lambda limited: lambda x: (limited(x) - 0.5) ** 2
    start = jnp.array(4.0)
    assert jax.grad(miss(lambda x: jnp.clip(x, -1.0, 1.0)))(start) == 0.0
    x = start
    for _ in range(100):
        x = x - 0.1 * jax.grad(miss(lambda x: straight_through_clip(x, -1.0, 1.0)))(x)
    np.testing.assert_allclose(x, 0.5, atol=1e-3)


def test_the_sign_has_the_gradient_of_the_identity():
    slope = jax.grad(lambda x: -3.0 * straight_through_sign(x))
    assert slope(jnp.array(0.4)) == -3.0
    assert slope(jnp.array(-0.4)) == -3.0
    assert slope(jnp.array(1.5)) == 0.0
    assert slope(jnp.array(-1.5)) == -3.0
