"""Stencils whose channels come last: their sums and both cotangents, strip by strip."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import ndimage

from diffsim.image.ops import correlate_channels_last


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("around", [1, 700, 2**20])
def test_sums_and_their_cotangents_are_those_of_scipy(monkeypatch, size, around):
    # Strips of one row, strips of some with a last one that is moved inward, one strip.
    monkeypatch.setattr(correlate_channels_last, "AROUND", around)
    image = jr.normal(jr.key(0), (13, 11, 2))
    weights = jr.normal(jr.key(1), (3, 2, size, size))
    near = slice(size // 2, -(size // 2) or None)
    plane = lambda w: sum(ndimage.correlate(image[..., c], w[c], mode="constant")[near, near] for c in range(2))
    result, pull = jax.vjp(jax.jit(correlate_channels_last.correlate_last), image, weights)
    np.testing.assert_allclose(jnp.moveaxis(result, 2, 0), [plane(w) for w in weights], rtol=1e-12, atol=1e-12)
    cotangent = jr.normal(jr.key(2), result.shape)
    to_image, to_weights = jax.jit(pull)(cotangent)
    height, width, _ = result.shape
    places = [(i, j) for i in range(size) for j in range(size)]
    shifted = np.stack([image[i : i + height, j : j + width] for i, j in places])
    expected = np.einsum("yxk,pyxc->kcp", cotangent, shifted).reshape(weights.shape)
    np.testing.assert_allclose(to_weights, expected, rtol=1e-12, atol=1e-12)
    # A bilinear map: both cotangents have the same product with its arguments.
    np.testing.assert_allclose(jnp.vdot(to_image, image), jnp.vdot(to_weights, weights), rtol=1e-12)


def test_rectified_has_no_slope_up_to_zero():
    x = jnp.array([-1.0, 0.0, 2.0])
    result, pull = jax.vjp(jax.jit(correlate_channels_last.relu), x)
    np.testing.assert_array_equal(result, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(pull(jnp.ones(3))[0], [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(jax.jvp(correlate_channels_last.relu, (x,), (jnp.ones(3),))[1], [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(correlate_channels_last.relu))(x), [0.0, 0.0, 1.0])
