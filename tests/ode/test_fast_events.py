"""Events that vary faster than the state: all crossings are found, with their derivatives."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import diffsim as ds
from diffsim import Event, Phase, Status
from diffsim._jax.polynomial import is_polynomial
from diffsim._jax.traced_function import Traced

TIMES = np.linspace(0.0, 10.0, 1_000_001)


def two_waves(x, y, p):
    return p[1] * jnp.sin(p[2] * x + p[3]) + p[4] * jnp.sin(p[5] * x + p[6]) - p[7] * y


def draw(rng):
    """Decay rate, then amplitudes, angular frequencies and phases of two waves, and the state's share."""
    slow, fast = 10 ** rng.uniform(-2, 0.5), 10 ** rng.uniform(0, 2, 2)
    phases = rng.uniform(0, 6, 2)
    waves = rng.uniform(0, 1), fast[0], phases[0], rng.uniform(0, 0.5), fast[1], phases[1]
    return np.array([slow, *waves, rng.uniform(0, 1.6)])


@pytest.mark.parametrize("over", ["time", "state"])
def test_the_first_crossing_of_random_waves_is_found(over):
    """Against the closed form on a fine grid: y = exp(-r t), and an event of waves over the time or over the state."""
    function = lambda t, y, p: two_waves(t if over == "time" else y, y, p)
    phase = Phase(lambda t, y, p: -p[0] * y, Event(function, "rising"))
    solve = jax.jit(lambda p: ds.integrate_phase(phase, 0.0, jnp.array(1.0), p, t1=10.0, max_steps=4096))
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        p = draw(rng)
        result = solve(jnp.asarray(p))
        y = np.exp(-p[0] * TIMES)
        values = np.asarray(two_waves(TIMES if over == "time" else y, y, p))
        crossings = TIMES[1:][(values[:-1] < 0) & (values[1:] >= 0)]
        assert int(result.status) == (Status.FINISHED if crossings.size else Status.EVENT_NOT_FOUND), p
        if crossings.size:
            assert float(result.t) == pytest.approx(crossings[0], abs=2e-5), p
            found += 1
    assert 20 < found < 60


AMPLITUDE, OMEGA = 10.0, 100 * np.pi


class Circuit(eqx.Module):
    C: ds.Scalar = ds.param(1e-4, "F")
    R: ds.Scalar = ds.param(1e4, "ohm")


source, slope = lambda t: AMPLITUDE * jnp.sin(OMEGA * t), lambda t: AMPLITUDE * OMEGA * jnp.cos(OMEGA * t)
RECTIFIER = (
    Phase(lambda t, v, p: slope(t), Event(lambda t, v, p: p.C * slope(t) + v / p.R, "falling", to=1)),
    Phase(lambda t, v, p: -v / (p.R * p.C), Event(lambda t, v, p: source(t) - v, "rising", to=0)),
)


def lowest_by_roots(capacitance, resistance):
    """The voltage at which the diode begins to conduct, by the closed forms of both phases."""
    decay = 1 / (resistance * capacitance)
    opens = (np.pi - np.arctan(OMEGA / decay)) / OMEGA
    voltage = lambda t: AMPLITUDE * np.sin(OMEGA * opens) * np.exp(-decay * (t - opens))
    period = 2 * np.pi / OMEGA
    closes = brentq(lambda t: AMPLITUDE * np.sin(OMEGA * t) - voltage(t), period, 1.25 * period, xtol=1e-15)
    return voltage(closes)


def test_a_rectifier_conducts_in_every_period():
    """The capacitor hardly discharges in a period of the source, so that its steps would be longer than that."""
    end = lambda p: ds.integrate_hybrid(RECTIFIER, jnp.array(0.0), p, t1=0.2)
    result = end(Circuit())
    assert (int(result.num_events), int(result.status)) == (19, Status.FINISHED)
    lowest = lambda x: end(Circuit(*x)).event_y[1]
    value, gradient = jax.value_and_grad(lowest)(jnp.array([1e-4, 1e4]))
    assert float(value) == pytest.approx(lowest_by_roots(1e-4, 1e4), rel=1e-8)
    for i, h in enumerate((1e-8, 1.0)):
        x = np.array([1e-4, 1e4]) + np.outer((-h, h), np.eye(2)[i])
        # The step is a ten-thousandth of the value: central differences are right to its square.
        by_roots = (lowest_by_roots(*x[1]) - lowest_by_roots(*x[0])) / (2 * h)
        assert float(gradient[i]) == pytest.approx(by_roots, rel=1e-5)


def first_time(x, **options):
    """When a sine of angular frequency x[0] first reaches x[1], beside a state that hardly moves."""
    phase = Phase(lambda t, y, x: -1e-3 * y, Event(lambda t, y, x: jnp.sin(x[0] * t) - x[1] * y, "rising"))
    t0, y0, t1 = (jnp.asarray(value, x.dtype) for value in (0.0, 1.0, 50.0))
    return ds.integrate_phase(phase, t0, y0, x, t1=t1, **options).t


def test_the_time_of_a_fast_event_has_its_derivatives():
    """sin(w t) = a exp(-t / 1000), solved by Newton's method from asin(a) / w."""

    def closed(x):
        t = jnp.arcsin(x[1]) / x[0]
        for _ in range(8):
            miss = jnp.sin(x[0] * t) - x[1] * jnp.exp(-1e-3 * t)
            t = t - miss / (x[0] * jnp.cos(x[0] * t) + 1e-3 * x[1] * jnp.exp(-1e-3 * t))
        return t

    xs = jnp.array([[40.0, 0.9], [90.0, -0.5]]).at[1, 1].set(0.3)
    every = lambda f: jax.jit(jax.vmap(lambda x: (f(x), jax.grad(f)(x), jax.jacfwd(f)(x), jax.hessian(f)(x))))
    for ours, theirs in zip(every(first_time)(xs), every(closed)(xs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    replayed = jax.grad(lambda x: first_time(x, mode="replay"))(xs[0])
    np.testing.assert_allclose(replayed, jax.grad(closed)(xs[0]), rtol=1e-7)
    single = first_time(xs[0].astype(jnp.float32))
    assert single.dtype == jnp.float32
    assert float(single) == pytest.approx(float(closed(xs[0])), rel=1e-5)


def test_an_event_that_jumps_is_found():
    """A function without a smooth crossing is bracketed at its jump, in few steps."""
    phase = Phase(lambda t, y, p: -y, Event(lambda t, y, p: jnp.where(y < p, 1.0, -1.0), "rising"))
    result = ds.integrate_phase(phase, 0.0, jnp.array(1.0), 0.3, t1=5.0)
    assert float(result.t) == pytest.approx(np.log(1 / 0.3), rel=1e-6)
    assert int(result.steps) < 60


def test_samples_that_are_not_finite_are_ignored():
    """An event that is NaN in a narrow region within a step, and reaches zero beyond it."""
    narrow = lambda t, y, p: jnp.where(jnp.abs(t - p) < 0.02, jnp.nan, jnp.sin(0.1 * (t - 3.0)))
    phase = Phase(lambda t, y, p: -1e-3 * y, Event(narrow, "rising"))
    solve = jax.jit(lambda p, h: ds.integrate_phase(phase, 0.0, jnp.array(1.0), p, t1=9.0, dt0=h, max_steps=64))
    for p in (0.21, 0.47, 0.83):
        result = solve(p, 1.0)
        assert float(result.t) == pytest.approx(3.0, abs=1e-8)
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 1.0}
    result = ds.integrate_phase(phase, 0.0, jnp.array(1.0), 0.47, t1=9.0, **options)
    assert float(result.t) == pytest.approx(3.0, abs=1e-8)


def test_constant_steps_stay_constant():
    """Their lengths are the user's: a crossing and its return within one step are seen at samples only."""
    phase = Phase(lambda t, y, p: -0.01 * y, Event(lambda t, y, p: jnp.sin(2 * jnp.pi * t) - 0.5 * y, "rising"))
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 1.0}
    result = ds.integrate_phase(phase, 0.1, jnp.array(1.0), None, t1=20.1, **options)
    assert float(result.t) == pytest.approx(1.0 + np.arcsin(0.5 * np.exp(-0.01 * 0.98)) / (2 * np.pi), abs=1e-3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda t, y, p: y[0] * y[1] - p[0], True),
        (lambda t, y, p: t - jnp.sin(p[0]), True),
        (lambda t, y, p: jax.jit(lambda y: y @ y)(y) - 1.0, True),
        (lambda t, y, p: jnp.sin(t) - p[0], False),
        (lambda t, y, p: jax.jit(jnp.linalg.norm)(y) - 1.0, False),
        (lambda t, y, p: p[0] / y[0], False),
        (lambda t, y, p: jnp.where(y[0] > 0, 1.0, -1.0), False),
    ],
)
def test_polynomials_of_time_and_state_are_recognised(function, expected):
    traced = Traced.of(function, jnp.array(0.0), jnp.ones(2), jnp.ones(1))
    assert is_polynomial(traced, (0, 1)) == expected
