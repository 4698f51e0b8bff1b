"""Padded pictures against NumPy's, and the adjoint of padding against automatic differentiation."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim.image.ops.pad import MODES, pad

# With separate edges; so small that the mirrored parts overlap; a single line; no padding in one direction.
CASES = [((2, 9, 11), 2, 3), ((1, 3, 4), 2, 3), ((3, 1, 6), 0, 2), ((1, 5, 7), 4, 0)]


def plain(picture, rows, columns, edge):
    """The same by jax.numpy, differentiated automatically."""
    return jnp.pad(picture, ((0, 0), (rows, rows), (columns, columns)), mode=MODES[edge])


@pytest.mark.parametrize("edge", MODES)
@pytest.mark.parametrize(("shape", "rows", "columns"), CASES)
def test_value_and_both_modes_are_those_by_rule(shape, rows, columns, edge):
    picture, tangent = jr.normal(jr.key(0), (2, *shape))
    ours, reference = (lambda x, f=f: f(x, rows, columns, edge) for f in (pad, plain))
    edges = ((0, 0), (rows, rows), (columns, columns))
    np.testing.assert_array_equal(ours(picture), np.pad(picture, edges, mode=MODES[edge]))
    np.testing.assert_array_equal(jax.jvp(ours, (picture,), (tangent,))[1], reference(tangent))
    cotangent = jr.normal(jr.key(1), ours(picture).shape)
    pull = lambda f: jax.jit(lambda cotangent: jax.vjp(f, picture)[1](cotangent)[0])
    np.testing.assert_allclose(pull(ours)(cotangent), pull(reference)(cotangent), rtol=1e-14)
    # The adjoint is linear too: its own adjoint is the padding.
    np.testing.assert_array_equal(jax.vjp(pull(ours), cotangent)[1](tangent)[0], reference(tangent))


@pytest.mark.parametrize("edge", MODES)
def test_batches_go_through_both_ways(edge):
    pictures = jr.normal(jr.key(2), (2, 3, 1, 6, 5))
    loss = lambda f, x: jnp.sum(jnp.sin(f(x, 2, 1, edge)))
    # Over the second axis and then the first, the gradient within and around.
    gradients = [jax.vmap(jax.vmap(jax.grad(lambda x, f=f: loss(f, x)))) for f in (pad, plain)]
    around = jax.grad(lambda x: jnp.sum(jax.vmap(jax.vmap(lambda x: loss(pad, x)), 1)(x)))
    expected = gradients[1](pictures)
    np.testing.assert_allclose(gradients[0](pictures), expected, rtol=1e-14)
    np.testing.assert_allclose(around(pictures), expected, rtol=1e-14)
