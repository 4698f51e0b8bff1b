"""Rows of arrays: equal to JAX's slices under any nesting of vmap and jvp, and no gather for a shared index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffsim._jax.dynamic_rows import put, row

ROWS = jnp.arange(24.0).reshape(2, 3, 4)  # two members of three rows
PLACES = jnp.array([2, 0])
VALUES = -jnp.ones((2, 4))


def plain_put(rows, place, value):
    return lax.dynamic_update_index_in_dim(rows, value, place, 0)


@pytest.mark.parametrize("axes", [(0, None), (0, 0), (None, 0)])
def test_rows_under_vmap(axes):
    rows, places = ROWS if axes[0] == 0 else ROWS[0], PLACES if axes[1] == 0 else PLACES[0]
    np.testing.assert_array_equal(
        jax.vmap(row, axes)(rows, places),
        jax.vmap(lambda r, i: lax.dynamic_index_in_dim(r, i, 0, False), axes)(rows, places),
    )


@pytest.mark.parametrize("axes", [(0, None, 0), (None, None, 0), (0, None, None), (0, 0, 0), (None, 0, None)])
def test_puts_under_vmap(axes):
    args = [x if a == 0 else x[0] for x, a in zip((ROWS, PLACES, VALUES), axes, strict=True)]
    own = jax.vmap(lambda rows, place, value: put(rows, place, value), axes)(*args)
    np.testing.assert_array_equal(own, jax.vmap(plain_put, axes)(*args))


def test_derivatives_whose_tangents_alone_are_mapped():
    def change(rows, value):
        return row(put(rows, jnp.array(1), value), jnp.array(1)) * row(rows, jnp.array(0))

    plain = lambda rows, value: value * rows[0]
    for f in (jax.jacfwd, lambda f: jax.jacfwd(jax.jacfwd(f))):
        np.testing.assert_allclose(f(change)(ROWS[0], VALUES[0]), f(plain)(ROWS[0], VALUES[0]))
    each = lambda f: jax.vmap(jax.jacfwd(f))
    np.testing.assert_allclose(each(change)(ROWS, VALUES), each(plain)(ROWS, VALUES))


def test_a_shared_place_is_sliced():
    program = str(jax.make_jaxpr(jax.vmap(row, (0, None)))(ROWS, jnp.array(1)))
    assert "gather" not in program
