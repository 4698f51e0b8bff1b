"""A spring that only pushes, dy/dt = 1 - k max(0, y - p), from 0: y = p + (1 - exp(-k (t - p))) / k once it touches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, Phase, integrate, integrate_hybrid

STIFFNESS, PLACES = 20.0, np.linspace(0.1, 0.85, 16)
SLOPES = 1 - np.exp(-STIFFNESS * (1 - PLACES))


def with_kink(t, y, p):
    return 1.0 - STIFFNESS * jnp.maximum(0.0, y - p)


def by_events(p, rtol):
    free = Phase(lambda t, y, p: jnp.ones_like(y), Event(lambda t, y, p: y - p, "rising", to=1))
    pushed = Phase(lambda t, y, p: 1.0 - STIFFNESS * (y - p), Event(lambda t, y, p: p - y, "rising", to=0))
    return integrate_hybrid((free, pushed), 0.0, p, t1=1.0, rtol=rtol, atol=rtol, max_events=3).y


def errors(function) -> float:
    return float(np.max(np.abs(jax.jit(jax.vmap(jax.grad(function)))(jnp.asarray(PLACES)) - SLOPES)))


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_derivative_across_a_kink_is_right_to_the_root_of_the_tolerance(rtol):
    end = lambda p: integrate(with_kink, jnp.array(0.0), jnp.array([0.0, 1.0]), p, rtol=rtol, atol=rtol)[-1]
    assert errors(end) < 5 * (STIFFNESS * rtol) ** 0.5  # of the steps that the error of the value allows


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_derivative_is_right_to_the_tolerance_where_the_kink_is_an_event(rtol):
    assert errors(lambda p: by_events(p, rtol)) < 20 * rtol
