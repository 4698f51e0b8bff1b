"""The certificate on solves with coarser tolerances than its own: a correct orbit passes, a wrong one does not."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.gradcheck.solver_tolerance import tightened

ECCENTRICITY = 0.6
PERIHELION = jnp.array([1 - ECCENTRICITY, 0.0, 0.0, jnp.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))])
WEIGHTS = jnp.array([1.0, 0.5, 0.0, 0.0])
PARAMETERS = {"start": PERIHELION, "mu": jnp.array(1.0)}


def wrong_by(error):
    """The identity with a derivative of 1 + error."""
    f = jax.custom_jvp(lambda x: x)
    f.defjvp(lambda primals, tangents: (primals[0], (1 + error) * tangents[0]))
    return f


def orbit(periods, at=lambda x: x, solve=None):
    """A coordinate of a Kepler orbit of semi-major axis 1 after complete periods, as a function of its parameters."""

    def field(t, y, mu):
        return jnp.concatenate([y[2:], -at(mu) * y[:2] / jnp.sum(y[:2] ** 2) ** 1.5])

    def by_integrate(p):
        return ds.integrate(field, p["start"], jnp.array([0.0, 2 * jnp.pi * periods]), p["mu"])[-1]

    def by_diffrax(p):
        term, controller = dfx.ODETerm(field), dfx.PIDController(1e-6, 1e-9)
        options = {"stepsize_controller": controller, "args": p["mu"]}
        return dfx.diffeqsolve(term, dfx.Tsit5(), 0.0, 2 * jnp.pi * periods, None, p["start"], **options).ys[-1]

    return lambda p: (by_diffrax if solve == "diffrax" else by_integrate)(p) @ WEIGHTS


def closed_form(p):
    """The derivatives of the coordinate after one period, of which only the mean motion changes the phase."""
    energy = lambda p: jnp.sum(p["start"][2:] ** 2) / 2 - p["mu"] / jnp.sqrt(jnp.sum(p["start"][:2] ** 2))
    motion = lambda p: (-2 * energy(p)) ** 1.5 / p["mu"]
    phase = jax.tree.map(lambda slope: 2 * jnp.pi * slope, jax.grad(motion)(p))  # the time by which it is ahead
    ahead = WEIGHTS[:2] @ p["start"][2:]
    return {"start": phase["start"] * ahead + WEIGHTS, "mu": phase["mu"] * ahead}


@pytest.mark.slow
def test_derivatives_of_an_orbit_converge_to_the_closed_form_as_tolerances_are_tightened():
    errors = []
    for factor in (1.0, 1e-3):
        with tightened(factor):
            gradient = jax.jit(jax.grad(orbit(1)))(PARAMETERS)
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(closed_form(PARAMETERS)), strict=True)
        errors.append(max(float(np.max(np.abs(a - b))) for a, b in pairs))
    # Of slopes of the order of 100: at the default tolerance 1e-6 as much as some 100 steps make of it.
    assert 1e-4 < errors[0] < 1e-1
    assert errors[1] < 3e-3 * errors[0]


def test_what_was_traced_before_and_after_is_not_tightened():
    f = jax.jit(orbit(1))
    before = f(PARAMETERS)
    with tightened(1e-3):
        within = f(PARAMETERS)
    assert within != before
    assert f(PARAMETERS) == before


@pytest.mark.slow
def test_a_correct_solve_is_within_its_tolerance_and_a_wrong_one_is_not():
    decay = lambda at: lambda y: ds.integrate(lambda t, y, _: -1.3 * at(y) ** 2, y, jnp.array([0.0, 0.5]))[-1]
    (row,) = ds.check_gradients(decay(lambda y: y), (jnp.array(0.7),), modes=("forward",), rtol=1e-7).rows
    assert row.verdict == "agrees"
    assert row.disagreement > 5e-7
    assert row.notes[0].startswith("within the solver's tolerance")
    (row,) = ds.check_gradients(decay(wrong_by(1e-3)), (jnp.array(0.7),), modes=("forward",), rtol=1e-7).rows
    assert row.verdict == "disagrees"


@pytest.mark.exhaustive
@pytest.mark.parametrize("periods", [1, 3])
@pytest.mark.parametrize("solve", ["integrate", "diffrax"])
def test_correct_orbits_pass_and_a_bug_of_a_thousandth_does_not(periods, solve):
    check = ds.check_gradients(orbit(periods, solve=solve), (PARAMETERS,))
    assert check.ok, str(check)
    for error in (1e-2, 1e-3):
        check = ds.check_gradients(orbit(periods, wrong_by(error), solve), (PARAMETERS,))
        assert {row.name: row.verdict for row in check.rows}["mu"] == "disagrees", str(check)
