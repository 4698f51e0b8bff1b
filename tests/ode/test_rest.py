"""Derivatives of systems at rest, whose error estimate contains no information on trajectories nearby."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import diffsim as ds
from diffsim import Event, Phase, Status, integrate, integrate_hybrid, integrate_phase

ZERO, UNIT = jnp.array(0.0), jnp.array([0.0, 1.0])


def towards(rate):
    """dy/dt = -rate (y - c), at rest where y = c; dy(1)/dc = 1 - exp(-rate)."""
    return lambda t, y, c: -rate * (y - c)


@pytest.mark.parametrize("rate", [3.0, 30.0, 1000.0])
@pytest.mark.parametrize("solver", [dfx.Tsit5(), dfx.Dopri5(), dfx.Bosh3()])
def test_at_rest(rate, solver):
    @jax.jit
    def slopes(c):
        end = lambda c: integrate(towards(rate), ZERO, UNIT, c, solver=solver)[-1]
        return jax.grad(end)(c), jax.jacfwd(end)(c)

    # The neighbour's error is a tolerance in 1,000 of its distance.
    np.testing.assert_allclose(slopes(ZERO), 1 - np.exp(-rate), rtol=2e-3)


@pytest.mark.parametrize("start", [1e-12, 1e-9, 1e-7, 1e-5])
def test_near_rest(start):
    end = lambda c: integrate(towards(300.0), jnp.array(start), UNIT, c)[-1]
    np.testing.assert_allclose(jax.grad(end)(ZERO), 1.0, rtol=2e-3)


def test_a_part_at_rest_next_to_one_that_moves():
    def field(t, y, c):
        return jnp.array([y[1], -y[0], -300.0 * (y[2] - c)])

    end = lambda c: integrate(field, jnp.array([1.0, 0.0, 0.0]), 10 * UNIT, c)[-1]
    np.testing.assert_allclose(jax.jacrev(end)(ZERO), [0.0, 0.0, 1.0], atol=2e-3)


def test_a_rod_heated_at_its_end_from_zero():
    """The heat equation on 20 points, by the matrix exponential."""
    n, t = 20, 0.1
    band = n**2 * (np.diag(-2 * np.ones(n)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1))
    inflow = np.eye(n)[0] * n**2

    def field(t, y, c):
        padded = jnp.concatenate([c[None], y, jnp.zeros(1)])
        return n**2 * (padded[2:] - 2 * padded[1:-1] + padded[:-2])

    end = lambda c: integrate(field, jnp.zeros(n), t * UNIT, c)[-1]
    right = np.linalg.solve(band, (expm(band * t) - np.eye(n)) @ inflow)
    np.testing.assert_allclose(jax.jacfwd(end)(ZERO), right, atol=1e-3)


def test_rest_after_an_event_with_a_first_step_that_was_given():
    """Down to a floor at speed one, from there on at rest; in one phase after the other and by `integrate_hybrid`."""

    def field(t, y, c):
        return jnp.array([jnp.where(y[2] > 0.5, 0.0, -1.0), -500.0 * (y[1] - c), 0.0])

    floor = Event(lambda t, y, c: y[0], "falling", lambda t, y, c: y.at[2].set(1.0), to=1)
    start = jnp.array([0.25, 0.0, 0.0])

    def by_hybrid(c):
        end = integrate_hybrid([Phase(field, (floor,)), Phase(field)], start, c, t1=1.0, max_events=2)
        return end.y[1]

    def by_evolve(c):
        first = integrate_phase(Phase(field, (floor,)), 0.0, start, c, t1=1.0, dt0=0.2)
        return integrate_phase(Phase(field), first.t, first.next_y, c, t1=1.0, dt0=0.5).y[1]

    for function in (by_hybrid, by_evolve):
        np.testing.assert_allclose(jax.jit(jax.jacfwd(function))(ZERO), 1.0, rtol=2e-3)


def test_a_field_that_is_not_defined_nearby():
    """The square root is not defined below zero."""
    _, end, status, *_ = ds.solve(lambda t, y, c: -jnp.sqrt(y) * c, ZERO, UNIT, jnp.array(1.0))
    assert status == Status.FINISHED
    np.testing.assert_array_equal(end, 0.0)


def test_a_batch_of_systems_of_which_some_rest():
    starts = jnp.array([0.0, 1.0, 1e-8])
    slope = jax.jit(jax.vmap(jax.grad(lambda c, y: integrate(towards(200.0), y, UNIT, c)[-1]), in_axes=(None, 0)))
    np.testing.assert_allclose(slope(ZERO, starts), 1.0, rtol=2e-3)


def test_single_precision():
    f32 = lambda x: jnp.asarray(x, jnp.float32)
    controller = dfx.PIDController(rtol=1e-4, atol=1e-6)
    end = lambda c: integrate(towards(f32(100.0)), f32(0.0), f32(UNIT), c, stepsize_controller=controller)[-1]
    np.testing.assert_allclose(jax.grad(end)(f32(0.0)), 1.0, rtol=1e-2)
