"""The cart-pole: Gymnasium's steps to rounding, the Lagrangian's accelerations, its energy and its gradients."""

import diffrax as dfx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems.cartpole import FORCE, STEPS, CartPole, State, cartpole, energy, fallen, step

HEAVY = CartPole(cart=1.3, pole=0.4, half_length=0.7, g=9.7)
TURNED = State(jnp.array(0.4), jnp.array(-0.9), jnp.array(2.1), jnp.array(1.7))


def lagrangian(q, v, p):
    """Kinetic minus potential energy, from the velocities of the pole's parts rather than from its inertia."""
    along, weights = np.polynomial.legendre.leggauss(3)
    radii, parts = p.half_length * (1 + along), p.pole * weights / 2
    sideways = v[0] + radii * jnp.cos(q[1]) * v[1]
    upwards = -radii * jnp.sin(q[1]) * v[1]
    kinetic = 0.5 * p.cart * v[0] ** 2 + 0.5 * jnp.sum(parts * (sideways**2 + upwards**2))
    return kinetic - p.g * jnp.cos(q[1]) * jnp.sum(parts * radii)


def episodes(first: int, count: int) -> tuple[float, int, int]:
    """Greatest difference to the real environment under random actions, mismatches of endings, and steps taken."""
    taken = jax.jit(lambda s, force: (after := step(CartPole(), s, force), fallen(after)))
    environment = gymnasium.make("CartPole-v1")
    worst, mismatches, steps = 0.0, 0, 0
    for seed in range(first, first + count):
        environment.reset(seed=seed)
        actions = np.random.default_rng(seed).integers(2, size=STEPS)
        s = State(*jnp.asarray(environment.unwrapped.state, float))
        for action in actions:
            _, _, terminated, _, _ = environment.step(int(action))
            s, ended = taken(s, FORCE * (2.0 * action - 1))
            worst = max(worst, float(np.max(np.abs(np.stack(s) - environment.unwrapped.state))))
            mismatches += bool(ended) != terminated
            steps += 1
            if terminated:
                break
    return worst, mismatches, steps


def test_complete_episodes_are_those_of_gymnasium():
    worst, mismatches, steps = episodes(0, 20)
    # Rounding of some operations a step, over episodes of some tens of steps.
    assert worst <= 1e-12
    assert mismatches == 0
    assert steps > 200


def test_default_parameters_are_those_of_gymnasium():
    real = gymnasium.make("CartPole-v1").unwrapped
    p = CartPole()
    assert (p.cart, p.pole, p.half_length, p.g) == (real.masscart, real.masspole, real.length, real.gravity)


@pytest.mark.parametrize("force", [0.0, 3.0])
def test_accelerations_are_the_lagrangian_ones(force):
    q, v = jnp.stack([TURNED.position, TURNED.angle]), jnp.stack([TURNED.velocity, TURNED.rate])
    exact = ds.acceleration(lagrangian, q, v, args=(HEAVY,), force=jnp.array([force, 0.0]))
    slope = cartpole(HEAVY, TURNED, force)
    # A 2x2 system solved in double precision.
    np.testing.assert_allclose([slope.velocity, slope.rate], exact, rtol=1e-12)
    assert (slope.position, slope.angle) == (TURNED.velocity, TURNED.rate)


@jax.jit
def _change_and_work(force):
    """Change of energy over 3 s under a constant force, the work of the force, and the scale of the energies."""
    ts = jnp.linspace(0.0, 3.0, 7)
    controller = dfx.PIDController(rtol=1e-11, atol=1e-13)
    field = lambda t, s, p: cartpole(p, s, force)
    s = ds.integrate(field, TURNED, ts, HEAVY, stepsize_controller=controller, max_steps=2048)
    kinetic, potential = jax.vmap(lambda s: energy(HEAVY, s))(s)
    total = kinetic + potential
    return total - total[0], force * (s.position - s.position[0]), jnp.max(kinetic)


@pytest.mark.parametrize("force", [0.0, 3.0])
def test_energy_changes_by_the_work_of_the_force(force):
    change, work, scale = _change_and_work(jnp.array(force))
    # rtol 1e-11 over some hundred steps.
    np.testing.assert_allclose(change, work, atol=1e-8 * scale)
    assert force == 0 or abs(work[-1]) > 1


def test_an_upright_pole_falls_at_its_closed_form_rate():
    """angle'' = k^2 angle for small angles, k^2 = g / (h (4/3 - m / M))."""
    p = CartPole()
    slope = jax.jacfwd(lambda angle: cartpole(p, State(*jnp.zeros(4))._replace(angle=angle)).rate)(jnp.array(0.0))
    assert slope == pytest.approx(9.8 / (0.5 * (4 / 3 - 0.1 / 1.1)), rel=1e-14)


def test_steps_converge_to_the_continuous_motion_with_order_one():
    end = lambda count: ds.rollout(lambda s, _: step(HEAVY, s, 1.0, 0.5 / count), TURNED, length=count)[0]
    follow = jax.jit(lambda s: ds.integrate(lambda t, s, p: cartpole(p, s, 1.0), s, jnp.array([0.0, 0.5]), HEAVY))
    exact = follow(TURNED).angle[-1]
    errors = [abs(float(end(count).angle - exact)) for count in (200, 400, 800)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1.0, atol=0.05)


def test_gradients_of_a_rollout_in_every_mode():
    def last_angle(p, start, forces):
        return ds.rollout(lambda s, force: step(p, s, force), start, forces)[0].angle

    forces = 5 * jnp.sin(jnp.arange(12.0))
    ds.testing.assert_gradients(last_angle, (HEAVY, TURNED, forces))


def test_gradients_of_the_derivative_and_the_energy():
    ds.testing.assert_gradients(lambda p, s, force: sum(cartpole(p, s, force)), (HEAVY, TURNED, jnp.array(2.0)))
    ds.testing.assert_gradients(lambda p, s: sum(energy(p, s)), (HEAVY, TURNED))


def test_batches_compile_and_agree_with_single_steps():
    many = State(*jnp.linspace(-1.0, 1.0, 12).reshape(4, 3))
    together = jax.jit(jax.vmap(lambda s: step(HEAVY, s, 2.0)))(many)
    for i in range(3):
        alone = step(HEAVY, State(*(x[i] for x in many)), 2.0)
        np.testing.assert_allclose(np.stack(together)[:, i], np.stack(alone), rtol=1e-14)


def test_an_episode_ends_beyond_its_limits_or_with_a_state_that_is_no_number():
    ends = lambda x, angle: bool(fallen(State(*map(jnp.array, (x, 0.0, angle, 0.0)))))
    tilt = 12 * 2 * np.pi / 360
    assert not ends(2.4, -tilt)
    assert ends(np.nextafter(-2.4, -3), 0.0)
    assert ends(0.0, np.nextafter(tilt, 1))
    assert ends(np.nan, 0.0)
    assert ends(0.0, np.nan)


def test_a_bad_parameter_is_named():
    with pytest.raises(ds.InputError, match="half_length=-1"):
        ds.replace(CartPole(), {"half_length": -1.0})
