"""The assertion for users' own tests."""

import jax
import jax.numpy as jnp
import pytest

from diffsim._errors import InputError
from diffsim.testing import assert_gradients


def test_silent_where_all_agrees():
    assert_gradients(lambda x, y: jnp.sum(x**2) * y, (jnp.ones(3), jnp.array(2.0)))


def test_names_the_worst_and_lists_only_what_fails():
    f = lambda p: jnp.sum(p["good"] ** 2) + jnp.sum(jax.lax.stop_gradient(p["bad"]) * p["bad"])
    with pytest.raises(AssertionError) as failure:
        assert_gradients(f, ({"good": jnp.ones(2), "bad": jnp.array([2.0])},))
    lines = str(failure.value).splitlines()
    assert lines[0] == "1 of 2 parameters fail; worst is bad at [0], off by 5.0e-01 of the slope"
    assert lines[2].startswith("bad ")
    assert lines[3].startswith("bad: suspect stop_gradient at test_testing.py:")
    assert len(lines) == 4


def test_options_are_passed_on():
    f = lambda x: x**2 * (1 + 1e-4 * jax.lax.stop_gradient(x))
    with pytest.raises(AssertionError, match="disagrees"):
        assert_gradients(f, (jnp.array(1.0),))
    assert_gradients(f, (jnp.array(1.0),), rtol=1e-3)
    assert_gradients(f, (jnp.array(1.0),), atol=1e-3)
    almost = jax.custom_jvp(jnp.sin)
    almost.defjvp(lambda x, dx: (jnp.sin(x[0]), jnp.cos(x[0]) * (1 + 1e-8) * dx[0]))
    assert_gradients(almost, (jnp.array(1.0),))
    with pytest.raises(AssertionError, match="a complex step differs"):
        assert_gradients(almost, (jnp.array(1.0),), thorough=True)
    with pytest.raises(InputError, match="modes"):
        assert_gradients(f, (jnp.array(1.0),), modes=("sideways",))
