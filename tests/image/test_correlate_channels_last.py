"""Stencils whose channels come last: both ways to their sums, on either version of JAX."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import ndimage

from diffsim.image.ops import correlate_channels_last


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("around", [1, 700, 2**20])
def test_a_convolution_and_products_of_matrices_give_the_same_sums(monkeypatch, size, around):
    # Strips of one row, strips of some with a last one that is moved inward, one strip.
    monkeypatch.setattr(correlate_channels_last, "AROUND", around)
    image = jr.normal(jr.key(0), (13, 11, 2))
    weights = jr.normal(jr.key(1), (3, 2, size, size))
    near = slice(size // 2, -(size // 2) or None)
    one = lambda w: sum(ndimage.correlate(image[..., c], w[c], mode="constant")[near, near] for c in range(2))
    exact = np.stack([np.asarray(one(w)) for w in weights])
    for way in (correlate_channels_last._convolved, correlate_channels_last._multiplied):
        np.testing.assert_allclose(jnp.moveaxis(jax.jit(way)(image, weights), 2, 0), exact, rtol=1e-12, atol=1e-12)


def test_rectified_has_no_slope_up_to_zero():
    x = jnp.array([-1.0, 0.0, 2.0])
    found, pull = jax.vjp(jax.jit(correlate_channels_last.rectified), x)
    np.testing.assert_array_equal(found, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(pull(jnp.ones(3))[0], [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(jax.jvp(correlate_channels_last.rectified, (x,), (jnp.ones(3),))[1], [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(correlate_channels_last.rectified))(x), [0.0, 0.0, 1.0])
