"""The rocket: accelerations, momentum, energy, the rocket equation, touchdown as an event, the least fuel."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems.rocket import GROUND, Rocket, State, best_ignition, energy, outline, rocket, vertical_burn

SMALL = Rocket(dry=900.0, thrust=3e4, exhaust=2500.0, arm=3.0, gyration=2.0, g=9.7)
TURNED = State(*jnp.array([4.0, 30.0, 0.4, 3.0, -7.0, 0.2, 1100.0]))
HIGH = State(*jnp.array([0.0, 500.0, 0.0, 0.0, -60.0, 0.0, 28_000.0]))
THROTTLE, GIMBAL = 0.7, 0.1
TIGHT = dfx.PIDController(rtol=1e-11, atol=1e-11)
PUSH = np.array([np.sin(0.5), np.cos(0.5)])  # direction of the thrust of the turned rocket


def lagrangian(q, v, mass, p):
    kinetic = 0.5 * mass * (v[0] ** 2 + v[1] ** 2 + (p.gyration * v[2]) ** 2)
    return kinetic - mass * p.g * q[1]


@pytest.mark.parametrize("throttle", [0.0, THROTTLE], ids=["engine off", "engine on"])
def test_accelerations_are_the_lagrangian_ones(throttle):
    """With the generalised force of the thrust by virtual work at the nozzle."""
    q, v = jnp.stack(TURNED[:3]), jnp.stack(TURNED[3:6])
    nozzle = lambda q: q[:2] - SMALL.arm * jnp.stack([jnp.sin(q[2]), jnp.cos(q[2])])
    work = lambda q: throttle * SMALL.thrust * jnp.dot(nozzle(q), jnp.asarray(PUSH))
    exact = ds.acceleration(lagrangian, q, v, args=(TURNED.mass, SMALL), force=jax.grad(work)(q))
    slope = rocket(SMALL, TURNED, throttle, GIMBAL)
    np.testing.assert_allclose(jnp.stack(slope[3:6]), exact, rtol=1e-12, atol=1e-12)
    assert slope[:3] == TURNED[3:6]


def test_rocket_and_exhaust_together_gain_the_momentum_of_gravity():
    slope, velocity = rocket(SMALL, TURNED, THROTTLE, GIMBAL), np.array([TURNED.vx, TURNED.vz])
    own = slope.mass * velocity + TURNED.mass * np.array([slope.vx, slope.vz])
    exhaust = -slope.mass * (velocity - SMALL.exhaust * PUSH)
    np.testing.assert_allclose(own + exhaust, [0.0, -1100.0 * 9.7], atol=1e-9)


def test_energy_changes_by_the_power_of_the_thrust_and_with_the_mass_that_leaves():
    slope = rocket(SMALL, TURNED, THROTTLE, GIMBAL)
    power = jax.jvp(lambda s: sum(energy(SMALL, s)), (TURNED,), (slope,))[1]
    push = THROTTLE * 3e4
    by_thrust = push * PUSH @ np.array([3.0, -7.0]) - push * 3.0 * np.sin(GIMBAL) * 0.2
    by_loss = slope.mass / 1100.0 * sum(energy(SMALL, TURNED))
    assert power == pytest.approx(float(by_thrust + by_loss), rel=1e-12)


def test_a_vertical_burn_obeys_the_rocket_equation():
    start = HIGH._replace(vx=jnp.array(2.0))
    field = lambda t, s, p: rocket(p, s, 1.0)
    end = jax.tree.map(
        lambda x: x[-1], ds.integrate(field, start, jnp.array([0.0, 5.0]), Rocket(), stepsize_controller=TIGHT)
    )
    np.testing.assert_allclose(jnp.stack(vertical_burn(Rocket(), start, 5.0)), jnp.stack(end), rtol=1e-9, atol=1e-9)
    lost = 5.0 * 800_000 / 2800
    assert end.vz == pytest.approx(-60 + 2800 * np.log(28_000 / (28_000 - lost)) - 5 * 9.80665, rel=1e-9)


def test_a_fall_ends_on_the_ground_at_the_time_of_the_closed_form():
    phase = ds.Phase(lambda t, s, p: rocket(p, s), (GROUND,))
    arrival = ds.integrate_phase(phase, 0.0, HIGH, Rocket(), t1=30.0)
    speed = np.sqrt(60.0**2 + 2 * 9.80665 * 500)
    assert arrival.event == 0
    assert arrival.t == pytest.approx((speed - 60) / 9.80665, rel=1e-9)
    assert arrival.y.vz == pytest.approx(-speed, rel=1e-9)


def landing(p, start, touchdown):
    """The time of the best burn, and the arrival of a free fall and that burn."""
    ignition = best_ignition(p, start, touchdown)
    lit = ds.Event(lambda t, s, p: s.vz - ignition.velocity, "falling")
    after = ds.integrate_phase(
        ds.Phase(lambda t, s, p: rocket(p, s), (lit,)), 0.0, start, p, t1=30.0, stepsize_controller=TIGHT
    )
    # Sinking slowly enough ends it: at rest the ground is only touched.
    slow = ds.Event(lambda t, s, p: s.vz + touchdown, "rising")
    burning = ds.Phase(lambda t, s, p: rocket(p, s, 1.0), (slow,))
    return ignition.time, ds.integrate_phase(burning, after.t, after.next_y, p, t1=60.0, stepsize_controller=TIGHT)


@pytest.mark.parametrize("touchdown", [0.0, 2.0])
def test_the_best_burn_lands_as_simulated(touchdown):
    for start in (HIGH, HIGH._replace(vz=jnp.array(20.0))):
        burn, arrival = jax.jit(lambda s: landing(Rocket(), s, touchdown))(start)
        np.testing.assert_allclose(arrival.y.height, 0.0, atol=1e-6)
        assert start.mass - arrival.y.mass == pytest.approx(float(burn) * 800_000 / 2800, rel=1e-9)


def test_less_thrust_takes_more_fuel():
    """Meditch's optimum is the full thrust: of programs that burn once before the ground it takes least."""
    thrusts = jnp.linspace(0.5, 1.0, 11) * 800_000
    burn = jax.vmap(lambda thrust: thrust * best_ignition(ds.replace(Rocket(), {"thrust": thrust}), HIGH, 1.0).time)
    fuel = np.asarray(burn(thrusts)) / 2800
    assert np.all(np.diff(fuel) < 0)


@pytest.mark.parametrize(
    "start",
    [HIGH._replace(vz=jnp.array(-200.0)), HIGH._replace(mass=jnp.array(25_100.0)), HIGH._replace(height=-HIGH.height)],
    ids=["too fast", "too little fuel", "below the ground"],
)
def test_a_landing_that_is_impossible_has_no_time(start):
    assert np.all(np.isnan(best_ignition(Rocket(), start)))


def test_gradients_of_the_best_ignition_in_every_mode():
    def weighed(machine, start, touchdown):
        thrust, exhaust, g = machine
        ignition = best_ignition(Rocket(thrust=thrust, exhaust=exhaust, g=g), start, touchdown)
        return 0.1 * ignition.height + ignition.velocity + 3.0 * ignition.time

    ds.testing.assert_gradients(weighed, (jnp.array([8e5, 2800.0, 9.8]), HIGH, jnp.array(1.0)))


@pytest.mark.slow
def test_gradients_of_a_touchdown_in_every_mode():
    phase = ds.Phase(lambda t, s, controls: rocket(controls[0], s, *controls[1]), (GROUND,))

    def touchdown(p, start, controls):
        arrival = ds.integrate_phase(phase, 0.0, start, (p, controls), t1=30.0, stepsize_controller=TIGHT)
        s = arrival.y
        return arrival.t + 0.1 * s.vz + s.tilt + 0.3 * s.x + 1e-3 * s.mass

    args = SMALL, TURNED._replace(mass=jnp.array(3000.0)), jnp.array([0.5, 0.02])
    ds.testing.assert_gradients(touchdown, args)


def test_batches_agree_with_single_states():
    many = State(*(x + jnp.linspace(-0.1, 0.1, 3) for x in TURNED))
    together = jax.jit(jax.vmap(lambda s: rocket(SMALL, s, THROTTLE, GIMBAL)))(many)
    alone = rocket(SMALL, State(*(x[2] for x in many)), THROTTLE, GIMBAL)
    np.testing.assert_allclose(np.stack(together)[:, 2], np.stack(alone), rtol=1e-14)


def test_the_outline_leans_with_the_rocket_and_the_flame_against_the_thrust():
    leaning = TURNED._replace(tilt=jnp.array(np.pi / 2))
    body, flame = outline(SMALL, leaning, 0.5, 0.1)
    np.testing.assert_allclose(body, [[1.0, 30.0], [8.5, 30.0]], atol=1e-12)
    slope = rocket(SMALL, leaning, 0.5, 0.1)
    push = np.array([slope.vx, slope.vz + 9.7])
    np.testing.assert_allclose(flame[0] - flame[1], 3.75 * push / np.hypot(*push), rtol=1e-12)


def test_bad_parameters_are_named():
    with pytest.raises(ds.InputError, match="dry=-1"):
        Rocket(dry=-1.0)
