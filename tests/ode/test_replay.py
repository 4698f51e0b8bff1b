"""The replay's derivative: that of diffrax's own adjoint on the same steps, and the same for every memory policy."""

from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, ReplayAdjoint, Scalar, integrate
from diffsim.ode.choose_execution import choose_execution
from diffsim.ode.solver_setup import stepper


class Pair(NamedTuple):
    a: Scalar
    b: Scalar


def field(t, y, p):
    """A driven oscillator and a decaying vector: a tree of two shapes, and a field that depends on time."""
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
        options = {
            "solver": solver,
            "stepsize_controller": controller,
            "dt0": dt0,
            "max_steps": 4096,
            "adjoint": adjoint,
        }
        last = jax.tree.map(lambda rows: rows[-1], integrate(field, y0, ts, p, **options))
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(last))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


PID = {rtol: dfx.PIDController(rtol=rtol, atol=1e-2 * rtol) for rtol in (1e-3, 1e-6, 1e-9)}
CONSTANT = dfx.ConstantStepSize()


slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("solver", "controller", "dt0"),
    [
        pytest.param(dfx.Tsit5(), PID[1e-3], 0.1, id="Tsit5 1e-3", marks=exhaustive),
        pytest.param(dfx.Tsit5(), PID[1e-9], 0.1, id="Tsit5 1e-9"),
        pytest.param(dfx.Dopri5(), PID[1e-6], 0.1, id="Dopri5", marks=exhaustive),
        pytest.param(dfx.Dopri8(), PID[1e-9], 1.0, id="Dopri8", marks=slow),
        pytest.param(dfx.Bosh3(), PID[1e-6], 0.1, id="Bosh3", marks=exhaustive),
        pytest.param(dfx.Heun(), CONSTANT, 0.01, id="Heun"),
        pytest.param(dfx.Euler(), CONSTANT, 0.007, id="Euler", marks=exhaustive),
        pytest.param(dfx.Tsit5(), dfx.PIDController(1e-6, 1e-8, pcoeff=0.3, icoeff=0.4), 0.1, id="PI", marks=slow),
    ],
)
def test_explicit_gradients_are_those_of_diffrax_on_the_same_steps(solver, controller, dt0):
    y0, p = start(jnp.float64)
    own = ends(solver, controller, dt0, jnp.float64, None)(y0, p)
    theirs = ends(solver, controller, dt0, jnp.float64, dfx.RecursiveCheckpointAdjoint())(y0, p)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(theirs))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * scale)


@pytest.mark.slow
def test_implicit_gradients_are_those_of_diffrax_on_the_same_steps():
    # Both with a root finder far more accurate than the steps, so that its error is below 1e-8.
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


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["states", "two_levels", "jacobians"])
@pytest.mark.parametrize("solver", [dfx.Tsit5(), dfx.Kvaerno3(root_finder=dfx.VeryChord(rtol=1e-11, atol=1e-11))])
def test_the_memory_policy_changes_nothing(memory, solver):
    y0, p = start(jnp.float64)
    reference = dfx.RecursiveCheckpointAdjoint()
    expected = ends(solver, PID[1e-6], 0.1, jnp.float64, reference)(y0, p)
    other = ends(solver, PID[1e-6], 0.1, jnp.float64, ReplayAdjoint(memory))(y0, p)
    explicit = isinstance(solver, dfx.Tsit5)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(other), strict=True):
        # The same steps: rounding, and the error of the root finder.
        np.testing.assert_allclose(a, b, rtol=1e-12 if explicit else 1e-8, atol=1e-13 if explicit else 1e-9)


def test_two_levels_keep_the_root_of_the_number_of_states():
    """And the other rows of the decision table for a state of five numbers."""

    def recorded(memory, attempts, field=lambda t, y, a: -y, keep_path=False):
        bound = stepper(field, dfx.Tsit5(), PID[1e-6], None)
        options = {"attempts": attempts, "memory": memory, "keep_path": keep_path}
        chosen = choose_execution(bound, jnp.array(0.0), jnp.zeros(5), PID[1e-6], **options)
        return chosen.single_program, chosen.stride, chosen.jacobians

    looked_up = lambda t, y, a: -y[jnp.argsort(y)]  # no plain arithmetic
    assert recorded("two_levels", 512) == (True, 22, False)
    assert recorded("auto", 512) == (True, 1, False)
    assert recorded("auto", 512, looked_up) == (False, 1, True)
    assert recorded("states", 512, looked_up) == (False, 1, False)
    assert recorded("auto", 10**6) == (True, 1000, False)
    assert recorded("auto", 10**6, keep_path=True) == (True, 1, False)


@pytest.mark.usefixtures("wrong_types")
def test_policies_that_do_not_exist_or_cannot_serve_are_named():
    last = lambda ts, memory: integrate(lambda t, y, a: -y, 1.0, jnp.array(ts), adjoint=ReplayAdjoint(memory))
    with pytest.raises(InputError, match="memory='all': use one of auto, states, two_levels, jacobians"):
        last([0.0, 1.0], "all")
    with pytest.raises(InputError, match='memory="two_levels" keeps too few states'):
        last([0.0, 0.5, 1.0], "two_levels")


@pytest.mark.parametrize("memory", ["two_levels", "jacobians"])
def test_second_derivatives_by_memory_policy(memory):
    ts = jnp.array([0.0, 1.0])
    options = {"stepsize_controller": PID[1e-9], "max_steps": 128, "adjoint": ReplayAdjoint(memory)}
    loss = lambda p: integrate(lambda t, y, p: -p[0] * y, p[1], ts, p, **options)[-1]
    p = jnp.array([0.7, 1.3])
    exact = jax.hessian(lambda p: p[1] * jnp.exp(-p[0]))(p)
    # rtol 1e-9 over some tens of steps.
    np.testing.assert_allclose(jax.jit(jax.hessian(loss))(p), exact, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_jacobians_of_a_path_and_of_a_batch():
    ts = jnp.linspace(0.0, 2.0, 5)

    def loss(p, y0, memory):
        options = {"stepsize_controller": PID[1e-6], "max_steps": 256, "adjoint": ReplayAdjoint(memory)}
        return jnp.sum(jnp.sin(integrate(lambda t, y, p: p * jnp.cos(y) * t, y0, ts, p, **options)))

    p, starts = jnp.array([0.7, -1.3]), jnp.linspace(0.0, 1.0, 6).reshape(3, 2)
    slope = lambda memory: jax.jit(jax.grad(lambda p: jnp.sum(jax.vmap(lambda y: loss(p, y, memory))(starts))))
    # Another order of summation.
    np.testing.assert_allclose(slope("jacobians")(p), slope("states")(p), rtol=1e-11)


TIMES = [
    (lambda t0, t1: jnp.stack([t0, t1]), lambda t0, t1: jnp.exp((t1**2 - t0**2) / 2)),
    (lambda t0, t1: jnp.stack([t0, 0.5 * (t0 + t1), t1]), lambda t0, t1: jnp.exp((t1**2 - t0**2) / 2)),
    (lambda t0, t1: jnp.stack([t0, t0 + t1]), lambda t0, t1: jnp.exp(((t0 + t1) ** 2 - t0**2) / 2)),
]


@pytest.mark.parametrize(("times", "solution"), TIMES, ids=["ends", "between", "window"])
def test_derivatives_in_the_initial_and_final_time(times, solution):
    # dy/dt = t y from t0, y(t0) = 1.
    def last(x):
        ts = times(*x)
        return integrate(lambda t, y, a: t * y, jnp.array(1.0), ts, stepsize_controller=PID[1e-9], max_steps=128)[-1]

    x = jnp.array([0.3, 1.2])
    exact = jax.grad(lambda x: solution(*x))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(last))(x), exact, rtol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(last))(x), exact, rtol=1e-7)
    hessian = jax.hessian(lambda x: solution(*x))(x)
    np.testing.assert_allclose(jax.jit(jax.hessian(last))(x), hessian, rtol=1e-6)
