"""The replay's derivative: that of diffrax's own adjoint on the same steps, and the same however states are kept."""

from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim.solve.replay as replay
from diffsim import Scalar, integrate


class Pair(NamedTuple):
    a: Scalar
    b: Scalar


def field(t, y, p):
    """A driven oscillator beside a decaying vector: a tree of two shapes, and time in the field."""
    return {
        "pair": Pair(y["pair"].b, -p["stiff"] * y["pair"].a - 0.1 * y["pair"].b + jnp.sin(p["drive"] * t)),
        "rest": -p["decay"] * y["rest"] * (1 + y["pair"].a ** 2),
    }


def start(dtype):
    x = lambda v: jnp.asarray(v, dtype)
    y0 = {"pair": Pair(x(1.0), x(0.2)), "rest": x([0.5, 1.5, -0.3])}
    return y0, {"stiff": x(4.0), "drive": x(1.7), "decay": x([0.3, 0.6, 0.9])}


def ends(solver, controller, dt0, dtype, adjoint):
    """The sum of the squares of the last state, in y0 and the parameters; by diffsim, or diffrax with an adjoint.

    The first step is given wherever steps are to be the same: without it diffrax begins with one of its own choice.
    """
    ts = jnp.array([0.0, 3.0], dtype)

    def loss(y0, p):
        options = {"solver": solver, "controller": controller, "dt0": dt0, "max_steps": 512, "adjoint": adjoint}
        last = jax.tree.map(lambda rows: rows[-1], integrate(field, y0, ts, p, **options))
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(last))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


PID = {rtol: dfx.PIDController(rtol=rtol, atol=1e-2 * rtol) for rtol in (1e-3, 1e-6, 1e-9)}
CONSTANT = dfx.ConstantStepSize()


@pytest.mark.parametrize(
    ("solver", "controller", "dt0"),
    [
        (dfx.Tsit5(), PID[1e-3], 0.1),
        (dfx.Tsit5(), PID[1e-9], 0.1),
        (dfx.Dopri5(), PID[1e-6], 0.1),
        (dfx.Dopri8(), PID[1e-9], 1.0),
        (dfx.Bosh3(), PID[1e-6], 0.1),
        (dfx.Heun(), CONSTANT, 0.01),
        (dfx.Euler(), CONSTANT, 0.007),
        (dfx.Tsit5(), dfx.PIDController(rtol=1e-6, atol=1e-8, pcoeff=0.3, icoeff=0.4), 0.1),
    ],
    ids=["Tsit5 1e-3", "Tsit5 1e-9", "Dopri5", "Dopri8", "Bosh3", "Heun", "Euler", "Tsit5 PI"],
)
def test_explicit_gradients_are_those_of_diffrax_on_the_same_steps(solver, controller, dt0):
    y0, p = start(jnp.float64)
    own = ends(solver, controller, dt0, jnp.float64, None)(y0, p)
    theirs = ends(solver, controller, dt0, jnp.float64, dfx.RecursiveCheckpointAdjoint())(y0, p)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(theirs))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * scale)


def test_implicit_gradients_are_those_of_diffrax_on_the_same_steps():
    # Both with a root finder far more accurate than the steps, so that what it leaves is below 1e-8.
    solver = dfx.Kvaerno5(root_finder=dfx.VeryChord(rtol=1e-12, atol=1e-12))
    y0, p = start(jnp.float64)
    own, theirs = (
        ends(solver, PID[1e-6], None, jnp.float64, adjoint)(y0, p)
        for adjoint in (None, dfx.RecursiveCheckpointAdjoint())
    )
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_single_precision_stays_single():
    y0, p = start(jnp.float32)
    own = ends(dfx.Tsit5(), PID[1e-3], None, jnp.float32, None)(y0, p)
    exact = ends(dfx.Tsit5(), PID[1e-9], None, jnp.float64, None)(*start(jnp.float64))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        # rtol 1e-3 over some twenty steps.
        np.testing.assert_allclose(a, b, rtol=3e-2, atol=3e-2)


def test_keeping_some_states_only_changes_nothing(monkeypatch):
    y0, p = start(jnp.float64)
    kept = ends(dfx.Tsit5(), PID[1e-6], None, jnp.float64, None)(y0, p)
    monkeypatch.setattr(replay, "_CACHED", 0)
    assert replay.stride(jnp.zeros(5), 512) == 22
    taken_again = ends(dfx.Tsit5(), PID[1e-6], None, jnp.float64, None)(y0, p)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(taken_again), strict=True):
        # The same steps again: rounding.
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_second_derivatives_with_some_states_kept(monkeypatch):
    monkeypatch.setattr(replay, "_CACHED", 0)
    ts = jnp.array([0.0, 1.0])
    options = {"controller": PID[1e-9], "max_steps": 128}
    loss = lambda p: integrate(lambda t, y, p: -p[0] * y, p[1], ts, p, **options)[-1]
    p = jnp.array([0.7, 1.3])
    exact = jax.hessian(lambda p: p[1] * jnp.exp(-p[0]))(p)
    # rtol 1e-9 over some tens of steps.
    np.testing.assert_allclose(jax.jit(jax.hessian(loss))(p), exact, rtol=1e-7, atol=1e-8)


def test_the_derivative_in_the_initial_time():
    # dy/dt = t y from t0 to 1: y = exp((1 - t0^2) / 2), so dy/dt0 = -t0 y. The steps move with their start; the last
    # one's end at 1 is held too, so the sizes of the steps are the only thing frozen.
    def last(t0):
        ts = jnp.stack([t0, t0 + 1.0])
        return integrate(lambda t, y, a: t * y, jnp.array(1.0), ts, controller=PID[1e-9], max_steps=128)[-1]

    t0 = jnp.array(0.3)
    exact = jax.grad(lambda t0: jnp.exp(((t0 + 1) ** 2 - t0**2) / 2))(t0)
    np.testing.assert_allclose(jax.jit(jax.grad(last))(t0), exact, rtol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(last))(t0), exact, rtol=1e-7)
