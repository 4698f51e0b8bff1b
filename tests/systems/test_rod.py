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


@pytest.mark.parametrize("compiled", [False, True], ids=["by operation", "compiled"])
def test_complete_episodes_are_those_of_gymnasium_to_the_last_bit(compiled):
    """Compiled steps would round otherwise without the barriers: by 4e-10 after some episodes of seeds 0 to 199."""
    real = gymnasium.make("Pendulum-v1").unwrapped
    move = jax.jit(rod_step) if compiled else rod_step
    for seed in range(20 if compiled else 2):
        real.reset(seed=seed)
        s, draw = State(*jnp.asarray(real.state)), np.random.default_rng(seed)
        for _ in range(STEPS):
            torque = draw.uniform(-3, 3, 1).astype(np.float32)
            cost = rod_cost(s, torque[0])
            reward = real.step(torque)[1]
            s = move(Rod(), s, torque[0])
            np.testing.assert_array_equal(np.stack(s), real.state)
            # Gymnasium squares the torque by a float32 power, which may be off in its last bit: 2e-10 of 2e-3.
            np.testing.assert_allclose(cost, -reward, rtol=0, atol=5e-10)


def test_rollouts_are_those_of_gymnasium_to_the_last_bit():
    real = gymnasium.make("Pendulum-v1").unwrapped
    real.reset(seed=7)
    start, torques = State(*jnp.asarray(real.state)), np.random.default_rng(7).uniform(-3, 3, STEPS).astype(np.float32)
    states = jax.jit(lambda s, torques: ds.rollout(lambda s, u: rod_step(Rod(), s, u), s, torques)[1])(start, torques)
    for k, torque in enumerate(torques):
        real.step(np.array([torque]))
        assert (states.angle[k], states.rate[k]) == tuple(real.state)


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
