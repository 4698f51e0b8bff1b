"""The pendulum: its period for small swings, its energy, and the loss by friction."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, Phase, integrate, integrate_phase
from diffsim.systems.pendulum import Pendulum, State, energy, pendulum

TIGHT = dfx.PIDController(rtol=1e-11, atol=1e-13)


def field(t, s, p):
    return pendulum(p, s)


@jax.jit
def period(p, swing):
    """Four times the time from rest at an angle `swing` to the bottom."""
    bottom = Phase(field, (Event(lambda t, s, p: s.angle, "falling"),))
    rest = State(swing, jnp.zeros_like(swing))
    return 4 * integrate_phase(bottom, 0.0, rest, p, t1=10.0, stepsize_controller=TIGHT, max_steps=128).t


def test_period_of_a_small_swing():
    p = Pendulum(length=0.7, g=3.0)
    swing = 0.01
    # The next term of the period's series is 11/3072 swing^4 = 4e-11.
    exact = 2 * np.pi * np.sqrt(0.7 / 3.0) * (1 + swing**2 / 16)
    assert period(p, jnp.array(swing)) == pytest.approx(exact, rel=1e-9)


def test_period_of_a_large_swing():
    """By the arithmetic-geometric mean: 2 pi sqrt(l / g) / agm(1, cos(swing / 2))."""
    a, b = 1.0, np.cos(1.0)
    for _ in range(6):
        a, b = (a + b) / 2, np.sqrt(a * b)
    # rtol 1e-11 over some tens of steps.
    assert period(Pendulum(), jnp.array(2.0)) == pytest.approx(2 * np.pi * np.sqrt(1 / 9.80665) / a, rel=1e-9)


def test_period_grows_as_the_root_of_the_length():
    slope = jax.jit(jax.grad(lambda length: period(Pendulum(length=length), jnp.array(1.0))))(jnp.array(0.7))
    # d log T / d log l = 1/2, at the solver's accuracy.
    assert slope * 0.7 / period(Pendulum(length=0.7), jnp.array(1.0)) == pytest.approx(0.5, rel=1e-8)


def test_energy_is_kept_without_friction_and_lost_by_the_work_of_friction():
    start = {"pendulum": State(jnp.array(2.5), jnp.array(0.3)), "work": jnp.array(0.0)}
    ts = jnp.linspace(0.0, 5.0, 21)

    def slope(t, y, p):
        return {"pendulum": pendulum(p, y["pendulum"]), "work": p.friction * y["pendulum"].rate ** 2}

    @jax.jit
    def totals(friction):
        p = Pendulum(length=0.8, mass=1.7, friction=friction)
        ys = integrate(slope, start, ts, p, stepsize_controller=TIGHT, max_steps=2048)
        return jax.vmap(lambda s: sum(energy(p, s)))(ys["pendulum"]), ys["work"]

    for friction in (0.0, 0.2):
        total, work = totals(jnp.array(friction))
        # rtol 1e-11 over some hundred steps.
        np.testing.assert_allclose(total + work, total[0], rtol=1e-8)
    assert work[-1] > 1.0


def test_a_torque_turns_it():
    slope = pendulum(Pendulum(length=2.0, mass=0.5), State(jnp.array(0.0), jnp.array(1.0)), torque=3.0)
    assert slope.angle == 1.0
    assert slope.rate == 1.5
