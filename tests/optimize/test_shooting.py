"""Long oscillations: single shooting fails from a bad frequency, a growing horizon and multiple shooting do not."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import InputError, Scalar, param


class Motion(NamedTuple):
    x: Scalar
    v: Scalar


class Oscillator(eqx.Module):
    omega: Scalar = param(1.0, "rad/s", bounds=(0.1, 20.0))
    decay: Scalar = param(0.05, "1/s", bounds=(0.0, 0.2))
    x: Scalar = param(1.0, "m")
    v: Scalar = param(0.0, "m/s")


def simulate(p, y0, ts):
    """The closed form of x'' + 2 decay x' + (omega^2 + decay^2) x = 0."""
    t = ts - ts[0]
    fade, c, s = jnp.exp(-p.decay * t), jnp.cos(p.omega * t), jnp.sin(p.omega * t)
    b = (y0.v + p.decay * y0.x) / p.omega
    x = fade * (y0.x * c + b * s)
    return Motion(x, -p.decay * x + fade * p.omega * (b * c - y0.x * s))


PROBLEM = ds.optimize.ShootingProblem(simulate, lambda p: Motion(p.x, p.v), lambda s: s.x)
TS = jnp.linspace(0.0, 40.0, 401)
TRUE = Oscillator(omega=4.0, decay=0.01, x=1.2, v=0.3)
CLEAN = simulate(TRUE, Motion(TRUE.x, TRUE.v), TS).x
NOISE, QUIET = 0.05, {"progress": False}


def residuals(p, seen):
    return simulate(p, Motion(p.x, p.v), TS).x - seen


def case(seed):
    """Noisy measurements, and a start whose frequency is wrong by 20 to 50% to either side."""
    rng = np.random.default_rng(seed)
    seen = CLEAN + NOISE * rng.normal(size=401)
    wrong = 4.0 * rng.uniform(1.2, 1.5) ** rng.choice([-1, 1])
    return seen, Oscillator(omega=wrong, x=float(seen[0]))


def right(fitted):
    """Whether a fit is the true motion: its frequency is known to 1e-4, the next minimum is 0.1 away."""
    return abs(float(fitted.omega) - 4.0) < 5e-3


LENGTHS = [8, 12, 18, 27, 40, 60, 90, 140, 220, 401]


def guessed(seen):
    """States at the ends of segments of ten steps, by differences of the measurements."""
    at = np.arange(10, 400, 10)
    return Motion(seen[at], jnp.gradient(seen, TS[1] - TS[0])[at])


@pytest.mark.slow
def test_a_bad_frequency_needs_more_than_single_shooting():
    """Of six seeds single shooting finds at most one, the other two ways all."""
    successes = {"single": 0, "growing": 0, "multiple": 0}
    for seed in range(6):
        seen, start = case(seed)
        successes["single"] += right(ds.fit_least_squares(residuals, start, seen, **QUIET)[0])
        successes["growing"] += right(ds.optimize.fit_growing(residuals, start, seen, lengths=LENGTHS, **QUIET)[0])
        successes["multiple"] += right(
            ds.optimize.fit_multiple_shooting(PROBLEM, start, TS, seen, guessed(seen), **QUIET)[0]
        )
    assert successes["growing"] == successes["multiple"] == 6
    assert successes["single"] <= 1


@pytest.mark.slow
def test_both_ways_end_in_the_optimum_of_all_data():
    seen, start = case(3)
    best, _ = ds.fit_least_squares(residuals, TRUE, seen, **QUIET)
    growing, _ = ds.optimize.fit_growing(residuals, start, seen, lengths=LENGTHS, **QUIET)
    multiple, history = ds.optimize.fit_multiple_shooting(PROBLEM, start, TS, seen, guessed(seen), **QUIET)
    for fitted in (growing, multiple):
        for name in ("omega", "decay", "x", "v"):
            # The solver's tolerance of 1e-9, in parameters of order one.
            assert float(getattr(fitted, name)) == pytest.approx(float(getattr(best, name)), abs=1e-6)
    last = history.loss[np.isfinite(history.loss)][-1]
    assert last == pytest.approx(0.5 * float(jnp.sum(residuals(multiple, seen) ** 2)), rel=1e-9)


@pytest.mark.slow
def test_gaps_in_the_measurements_do_not_count():
    seen, start = case(1)
    holes = jnp.where((jnp.arange(401) % 7 == 3) | ((TS > 20) & (TS < 22)), jnp.nan, seen)
    nodes = guessed(CLEAN)
    fitted, _ = ds.optimize.fit_multiple_shooting(PROBLEM, start, TS, holes, nodes, **QUIET)
    assert right(fitted)
    there = np.isfinite(holes)
    observed = lambda p, seen: residuals(p, 0.0)[there] - seen[there]
    alone, _ = ds.fit_least_squares(observed, fitted, holes, **QUIET)
    assert float(fitted.omega) == pytest.approx(float(alone.omega), abs=1e-8)


@pytest.mark.slow
def test_what_does_not_train_stays():
    seen, start = case(2)
    fitted, _ = ds.optimize.fit_multiple_shooting(
        PROBLEM, start, TS, seen, guessed(seen), filter_spec=ds.frozen(start, "decay"), **QUIET
    )
    assert float(fitted.decay) == 0.05


@pytest.mark.usefixtures("wrong_types")
def test_bad_input_is_named():
    seen, start = case(0)
    with pytest.raises(InputError, match=r"lengths=\[8, 8\]: give numbers of times that increase"):
        ds.optimize.fit_growing(residuals, start, seen, lengths=[8, 8])
    with pytest.raises(InputError, match="ts has 401 times, observations has 400: give one observation for each"):
        ds.optimize.fit_multiple_shooting(PROBLEM, start, TS, seen[:-1], guessed(seen))
    nodes = Motion(jnp.zeros(6), jnp.zeros(6))
    with pytest.raises(InputError, match="401 times make 400 steps, which 7 segments do not divide"):
        ds.optimize.fit_multiple_shooting(PROBLEM, start, TS, seen, nodes)


def test_a_network_in_the_model_keeps_its_activation():
    """Leaves of a model that are functions are no parameters on a bound."""
    network = eqx.nn.MLP("scalar", "scalar", 3, 1, activation=jnp.tanh, key=jr.key(0))
    field = lambda t, y, network: network(y)
    problem = ds.optimize.ShootingProblem(
        simulate=lambda network, y0, ts: ds.integrate(field, y0, ts, network),
        initial_state=lambda network: jnp.array(1.0),
        observe=lambda states: states,
    )
    ts = jnp.linspace(0.0, 2.0, 21)
    data = jnp.exp(-ts)
    fitted, _ = ds.optimize.fit_multiple_shooting(problem, network, ts, data, data[10:-1:10], progress=False)
    states = problem.simulate(fitted, jnp.array(1.0), ts)
    assert float(jnp.max(jnp.abs(states - data))) < 1e-3
