"""Values that are known, and those that are not known while a program is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._jax.tracers import is_tracer


@pytest.mark.parametrize("value", [1.0, np.ones(2), jnp.ones(2), "text"], ids=["number", "numpy", "jax", "text"])
def test_a_known_value_is_no_tracer(value):
    assert not is_tracer(value)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_a_traced_value_is_one(transform):
    traced = []
    x = jnp.ones(1) if transform is jax.vmap else jnp.ones(())
    transform(lambda x: (traced.append(is_tracer(x)), x)[1])(x)
    assert traced == [True]
