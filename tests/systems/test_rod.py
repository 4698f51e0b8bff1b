"""Gymnasium's pendulum, a uniform rod: its steps, the Lagrangian's acceleration, its energy and its gradients."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems.pendulum import STEPS, Rod, State, rod, rod_cost, rod_energy, rod_step

LONG = Rod(length=1.4, mass=0.6, g=9.7)
TURNED = State(jnp.array(2.1), jnp.array(-1.7))


def test_whole_episodes_are_those_of_gymnasium():
    """Operation by operation: compiled, sums of products round otherwise, which an episode amplifies to 1e-9."""
    real = gymnasium.make("Pendulum-v1").unwrapped
    for seed in range(3):
        real.reset(seed=seed)
        s, draw = State(*jnp.asarray(real.state)), np.random.default_rng(seed)
        for _ in range(STEPS):
            torque = draw.uniform(-3, 3, 1).astype(np.float32)
            cost = rod_cost(s, torque[0])
            reward = real.step(torque)[1]
            s = rod_step(Rod(), s, torque[0])
            np.testing.assert_allclose(np.stack(s), real.state, rtol=0, atol=1e-10)
            # Gymnasium squares the torque by a float32 power, which may be off in its last bit: 2e-10 of 2e-3.
            np.testing.assert_allclose(cost, -reward, rtol=0, atol=5e-10)


def test_compiled_steps_are_those_of_gymnasium():
    real, taken = gymnasium.make("Pendulum-v1").unwrapped, jax.jit(rod_step)
    real.reset(seed=7)
    draw = np.random.default_rng(7)
    for _ in range(STEPS):
        torque = draw.uniform(-3, 3, 1).astype(np.float32)
        before = State(*jnp.asarray(real.state))
        real.step(torque)
        # Rounding of angles of some ten radians.
        np.testing.assert_allclose(np.stack(taken(Rod(), before, torque[0])), real.state, rtol=0, atol=1e-14)


def test_acceleration_is_the_lagrangian_one():
    energies = lambda q, v: rod_energy(LONG, State(q, v))
    lagrangian = lambda q, v: energies(q, v)[0] - energies(q, v)[1]
    exact = ds.acceleration(lagrangian, TURNED.angle, TURNED.rate, force=jnp.array(1.3))
    assert rod(LONG, TURNED, 1.3).rate == pytest.approx(float(exact), rel=1e-13)


def test_energy_changes_by_the_work_of_the_torque():
    total = lambda s: sum(rod_energy(LONG, s))
    power = jax.jvp(total, (TURNED,), (rod(LONG, TURNED, 1.3),))[1]
    assert power == pytest.approx(float(1.3 * TURNED.rate), rel=1e-13)


def test_gradients_of_a_rollout_and_of_its_cost():
    def total(p, start, torques):
        s, states = ds.rollout(lambda s, torque: rod_step(p, s, torque), start, torques)
        return s.angle + jnp.sum(jax.vmap(rod_cost)(states, torques))

    ds.testing.assert_gradients(total, (LONG, TURNED, 1.5 * jnp.sin(jnp.arange(8.0))))


def test_limits_hold_in_a_batch():
    rates = jnp.array([-7.9, 0.0, 7.9])
    after = jax.jit(jax.vmap(lambda r: rod_step(Rod(), State(jnp.sign(r) * 1.5, r), 9 * jnp.sign(r))))(rates)
    np.testing.assert_array_equal(after.rate, [-8.0, 0.0, 8.0])
