"""States between the times of a solve: `Solution.evaluate`."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds

TS = jnp.array([0.5, 3.0])
LATER = jnp.array([0.5, 0.51, 1.7, 2.9, 3.0])
P = jnp.array([0.7, 1.3])
CASES = {
    "explicit": ({"rtol": 1e-9}, 1e-8),
    "implicit": ({"rtol": 1e-9, "solver": dfx.Kvaerno5()}, 1e-7),
    # Of second order: some dt0^2.
    "constant steps": ({"solver": dfx.Heun(), "dt0": 1e-3}, 1e-5),
    "backward": ({"rtol": 1e-9}, 1e-8),
    # Of fourth order between steps of a tolerance of 1e-9.
    "diffrax": ({"rtol": 1e-9, "adjoint": dfx.DirectAdjoint(), "max_steps": 256}, 1e-5),
}


def field(t, y, p):
    """A decay that is driven, and a clock: `exact` is its solution from t0 on."""
    return {"a": -p[0] * y["a"] + p[1] * jnp.cos(t), "b": jnp.ones_like(y["b"])}


def exact(t, t0, p):
    driven = lambda t: p[1] * (p[0] * jnp.cos(t) + jnp.sin(t)) / (p[0] ** 2 + 1)
    return {"a": (2.0 - driven(t0)) * jnp.exp(-p[0] * (t - t0)) + driven(t), "b": jnp.array([1.0, 2.0]) + t - t0}


def evaluated(p, t, ts, options):
    start = {"a": jnp.array(2.0), "b": jnp.array([1.0, 2.0])}
    return ds.solve(field, start, ts, p, dense=True, **options).evaluate(t)


DEFAULT = {"explicit", "backward"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in DEFAULT else pytest.mark.slow) for c in CASES])
def test_values_and_derivatives(case):
    options, tolerance = CASES[case]
    ts = TS[::-1] if case == "backward" else TS
    right = lambda p, t: jax.vmap(lambda t: exact(t, ts[0], p))(t)
    own = lambda p, t: evaluated(p, t, ts, options)
    mixed = lambda f: lambda p, t: jnp.sum(f(p, t)["a"] ** 2) + jnp.sum(jnp.sin(f(p, t)["b"]))

    def all_of(f):
        reverse = jax.grad(mixed(f), argnums=(0, 1))
        return lambda p, t: (f(p, t), reverse(p, t), jax.jacfwd(f, argnums=(0, 1))(p, t))

    values = jax.jit(all_of(own))(P, LATER[1:-1]), all_of(right)(P, LATER[1:-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), *values)


@pytest.mark.slow
def test_second_derivatives_and_batches():
    loss = lambda f: lambda p: jnp.sum(f(p, LATER)["a"] ** 2)
    own = loss(lambda p, t: evaluated(p, t, TS, {"rtol": 1e-10}))
    right = loss(lambda p, t: jax.vmap(lambda t: exact(t, TS[0], p))(t))
    many = jnp.stack([P, 1.1 * P])
    np.testing.assert_allclose(*(jax.jit(jax.vmap(jax.hessian(f)))(many) for f in (own, right)), rtol=1e-6)


def test_ends_and_what_lies_beyond():
    """At the first and last time it is the state there, before and after it there is none."""
    solution = ds.solve(field, {"a": jnp.array(2.0), "b": jnp.array([1.0, 2.0])}, TS, P, dense=True)
    for time, row in ((0.5, 0), (3.0, 1)):
        jax.tree.map(
            lambda y, ys, row=row: np.testing.assert_array_equal(y, ys[row]), solution.evaluate(time), solution.ys
        )
    assert np.all(np.isnan(solution.evaluate(jnp.array([0.4, 3.1]))["a"]))
    assert solution.evaluate(jnp.ones((2, 3)))["b"].shape == (2, 3, 2)
    np.testing.assert_array_equal(solution.evaluate(LATER)["a"][0], 2.0)


def test_float32():
    solution = ds.solve(lambda t, y, p: -y, jnp.float32(1.0), jnp.array([0.0, 2.0], jnp.float32), dense=True)
    assert solution.evaluate(0.7).dtype == jnp.float32
    np.testing.assert_allclose(solution.evaluate(0.7), np.exp(-0.7), rtol=3e-6)


def test_a_solve_that_fails_has_states_as_far_as_it_came():
    """y' = y^2 from 1 is infinite at t = 1."""
    for options in ({}, {"adjoint": dfx.DirectAdjoint()}):
        failed = ds.solve(
            lambda t, y, p: y**2, jnp.array(1.0), jnp.array([0.0, 2.0]), dense=True, max_steps=64, **options
        )
        assert failed.status == ds.Status.STEP_LIMIT
        assert np.isnan(failed.evaluate(1.5))
    own = ds.solve(lambda t, y, p: y**2, jnp.array(1.0), jnp.array([0.0, 2.0]), dense=True, max_steps=64)
    np.testing.assert_allclose(own.evaluate(0.5), 2.0, rtol=1e-5)


def test_the_steps_must_be_asked_for():
    with pytest.raises(ds.InputError, match="dense=None: this solution holds the states at ts alone"):
        ds.solve(lambda t, y, p: -y, jnp.array(1.0), TS).evaluate(1.0)
