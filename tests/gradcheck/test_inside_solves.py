"""The certificate on gradients that are wrong inside a solve: reported and located, never an exception."""

import jax
import jax.numpy as jnp
import pytest

import diffsim as ds
from diffsim.gradcheck.check import check_gradients

TIMES = jnp.array([0.0, 1.0])
stop = jax.lax.stop_gradient


def cut_in_a_field(k):
    return ds.integrate(lambda t, y, k: -stop(k) * y, jnp.array(1.0), TIMES, k)[-1]


def clocked_switch(duty):
    on = lambda t: jnp.where(jnp.mod(t, 0.1) < 0.1 * duty, 10.0, 0.0)
    return ds.integrate(lambda t, y, duty: on(t) + 0 * y, jnp.array(0.0), TIMES, duty)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("f", "operation"), [(cut_in_a_field, "stop_gradient"), (clocked_switch, "lt")])
def test_a_bug_inside_a_solve_is_reported_and_located(f, operation):
    (row,) = check_gradients(f, (jnp.array(0.37),)).rows
    assert row.verdict == "zero?"
    assert any(s.startswith(f"{operation} at test_inside_solves.py:") for s in row.suspects), row.suspects
