"""The quadrotor: the Lagrangian's accelerations, its energy, its closed forms, its wind and its gradients."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems.quadrotor import Quadrotor, State, Wind, energy, gusts, quadrotor

HEAVY = Quadrotor(mass=1.3, inertia=0.02, arm=0.2, drag=0.4, g=9.7)
TURNED = State(*jnp.array([0.4, -0.3, 0.9, 1.1, -0.7, 0.5]))
STILL = jnp.zeros(2)


def of_rotors(q, p):
    """Places of the two rotors, (2, 2), for the coordinates (x, height, tilt)."""
    along = p.arm * jnp.stack([jnp.cos(q[2]), -jnp.sin(q[2])])
    return jnp.stack([q[:2] - along, q[:2] + along])


def lagrangian(q, v, p):
    kinetic = 0.5 * p.mass * (v[0] ** 2 + v[1] ** 2) + 0.5 * p.inertia * v[2] ** 2
    return kinetic - p.mass * p.g * q[1]


def test_accelerations_are_the_lagrangian_ones():
    """With the generalised forces by virtual work: of each thrust at its rotor's place, of the drag at the centre."""
    thrusts, wind = jnp.array([4.0, 7.0]), jnp.array([2.0, -1.0])
    q, v = jnp.stack(TURNED[:3]), jnp.stack(TURNED[3:])
    up = jnp.stack([jnp.sin(q[2]), jnp.cos(q[2])])
    work = lambda q: jnp.sum(of_rotors(q, HEAVY) @ up * thrusts) - HEAVY.drag * jnp.dot(v[:2] - wind, q[:2])
    exact = ds.acceleration(lagrangian, q, v, args=(HEAVY,), force=jax.grad(work)(q))
    slope = quadrotor(HEAVY, TURNED, thrusts, wind)
    np.testing.assert_allclose(jnp.stack(slope[3:]), exact, rtol=1e-12)
    assert slope[:3] == TURNED[3:]


def test_energy_changes_by_the_power_of_thrusts_and_drag():
    thrusts, wind = jnp.array([4.0, 7.0]), jnp.array([2.0, -1.0])
    power = jax.jvp(lambda s: sum(energy(HEAVY, s)), (TURNED,), (quadrotor(HEAVY, TURNED, thrusts, wind),))[1]
    up = np.array([np.sin(0.9), np.cos(0.9)])
    velocity = np.array([1.1, -0.7])
    # A rotor on the left lifts as the tilt grows.
    by_thrusts = 11.0 * up @ velocity + 0.2 * (4.0 - 7.0) * 0.5
    by_drag = -0.4 * (velocity - np.array([2.0, -1.0])) @ velocity
    assert power == pytest.approx(by_thrusts + by_drag, rel=1e-13)


def test_it_hovers_and_falls_as_in_closed_form():
    rest = State(*jnp.zeros(6))
    hover = jnp.full(2, HEAVY.mass * HEAVY.g / 2)
    np.testing.assert_allclose(np.stack(quadrotor(HEAVY, rest, hover, STILL)), np.zeros(6), atol=1e-14)
    field = lambda t, s, p: quadrotor(p, s, jnp.zeros(2), STILL)
    tight = dfx.PIDController(rtol=1e-11, atol=1e-12)
    end = ds.integrate(field, rest, jnp.array([0.0, 2.0]), HEAVY, stepsize_controller=tight)
    rate = 0.4 / 1.3
    # Linear drag: v = -(g / rate)(1 - exp(-rate t)).
    assert end.vz[-1] == pytest.approx(-9.7 / rate * (1 - np.exp(-2 * rate)), rel=1e-9)


def test_wind_carries_it_at_its_own_speed():
    drifting = State(*jnp.zeros(6))._replace(vx=jnp.array(3.0))
    slope = quadrotor(Quadrotor(), drifting, jnp.full(2, 9.80665 / 2), jnp.array([3.0, 0.0]))
    np.testing.assert_allclose([slope.vx, slope.vz], 0.0, atol=1e-14)


def test_gusts_have_the_deviation_and_the_memory_asked_for():
    wind = Wind(gust=1.5, time=0.8)
    noise = jr.normal(jr.key(0), (4000, 41, 2))
    mean = jnp.array([4.0, -1.0])
    w = np.asarray(jax.jit(jax.vmap(lambda n: gusts(wind, mean, n, 0.1)))(noise)) - np.asarray(mean)
    # 8,000 draws: the deviation's relative error is 1 / sqrt(2 * 8000) = 0.8%, four of them are allowed.
    np.testing.assert_allclose(w.std(axis=(0, 2)), 1.5, rtol=0.032)
    np.testing.assert_allclose(w.mean(axis=(0, 2)), 0.0, atol=4 * 1.5 / np.sqrt(8000))
    correlation = np.mean(w[:, 10] * w[:, 18], axis=0) / 1.5**2
    np.testing.assert_allclose(correlation, np.exp(-1.0), atol=4 / np.sqrt(4000))
    assert gusts(wind, mean, noise[0, :1], 0.1).shape == (1, 2)


def test_gradients_of_a_flight_in_every_mode():
    def last(p, start, thrusts, noise):
        wind = gusts(Wind(), jnp.array([1.0, 0.0]), noise, 0.05)
        move = lambda s, row: ds.zero_order_hold(lambda t, s, inputs: quadrotor(p, s, *inputs), s, row, 0.05)
        s = ds.rollout(move, start, (thrusts, wind))[0]
        return s.x + 0.3 * s.height + s.tilt

    thrusts = 5.0 + jnp.sin(jnp.arange(12.0)).reshape(6, 2)
    ds.testing.assert_gradients(last, (HEAVY, TURNED, thrusts, jr.normal(jr.key(1), (6, 2))))


def test_batches_agree_with_single_states():
    many = State(*(x + jnp.linspace(-0.5, 0.5, 3) for x in TURNED))
    together = jax.jit(jax.vmap(lambda s: quadrotor(HEAVY, s, jnp.array([4.0, 5.0]), STILL)))(many)
    alone = quadrotor(HEAVY, State(*(x[2] for x in many)), jnp.array([4.0, 5.0]), STILL)
    np.testing.assert_allclose(np.stack(together)[:, 2], np.stack(alone), rtol=1e-14)


def test_bad_parameters_are_named():
    with pytest.raises(ds.InputError, match="mass=-1"):
        Quadrotor(mass=-1.0)
    with pytest.raises(ds.InputError, match="time=0"):
        Wind(time=0.0)
