"""ReplayAdjoint in diffrax's own solves: its values, and its derivatives on the same steps."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, ReplayAdjoint

PID = dfx.PIDController(rtol=1e-6, atol=1e-8)
TIGHT = dfx.VeryChord(rtol=1e-10, atol=1e-10)
Y0 = {"a": jnp.array([1.0, 0.2]), "b": jnp.array(0.5)}
P = jnp.array([4.0, 1.7, 0.3])
TS = jnp.array([0.0, 0.4, 1.1, 1.9, 2.5])


def field(t, y, p):
    a, b = y["a"], y["b"]
    return {"a": jnp.stack([a[1], -p[0] * a[0] - 0.1 * a[1] + jnp.sin(p[1] * t)]), "b": -p[2] * b * (1 + a[0] ** 2)}


def solve(x, adjoint, solver=None, stepsize_controller=PID, dt0=0.1, **options):
    """diffrax's solution for x = (parameters, initial state, t0, t1, times to save at)."""
    p, y0, t0, t1, ts = x
    saveat = options.pop("saveat", lambda ts: dfx.SaveAt(t1=True))(ts)
    options = {"args": p, "saveat": saveat, "stepsize_controller": stepsize_controller, "max_steps": 256} | options
    return dfx.diffeqsolve(dfx.ODETerm(field), solver or dfx.Tsit5(), t0, t1, dt0, y0, adjoint=adjoint, **options)


def saved(solution):
    """A number that depends on everything that was saved."""
    leaves = jax.tree.leaves(solution.ys)
    return sum(
        jnp.sum(jnp.sin(jnp.where(jnp.isfinite(y), y, 0.0)) * jnp.arange(1, y.size + 1).reshape(y.shape))
        for y in leaves
    )


X = P, Y0, jnp.array(0.0), jnp.array(2.5), TS
SAVES = {
    "t1": lambda ts: dfx.SaveAt(t1=True),
    "ts": lambda ts: dfx.SaveAt(ts=ts),
    "steps": lambda ts: dfx.SaveAt(t0=True, steps=True),
    "every third": lambda ts: dfx.SaveAt(steps=3, t1=True),
    "functions": lambda ts: dfx.SaveAt(
        subs=[dfx.SubSaveAt(ts=ts[1:3], fn=lambda t, y, p: t * p[0] * y["b"]), dfx.SubSaveAt(t1=True)]
    ),
}
SOLVERS = {
    "Tsit5": {},
    "Dopri8": {"solver": dfx.Dopri8()},
    "Heun, constant steps": {"solver": dfx.Heun(), "stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.03},
    "Euler": {"solver": dfx.Euler(), "stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.03},
    "Kvaerno5": {"solver": dfx.Kvaerno5(root_finder=TIGHT), "max_steps": 1024},
}


@pytest.mark.slow
@pytest.mark.parametrize(("save", "method"), [*((save, "Tsit5") for save in SAVES), ("ts", "Kvaerno5")])
def test_what_was_saved_is_diffraxs_with_its_derivatives(save, method):
    run = lambda adjoint: jax.jit(
        jax.value_and_grad(lambda x: saved(solve(x, adjoint, saveat=SAVES[save], **SOLVERS[method])))
    )
    own, theirs = run(ReplayAdjoint())(X), run(dfx.RecursiveCheckpointAdjoint())(X)
    # The same program, compiled together with another.
    np.testing.assert_allclose(own[0], theirs[0], rtol=1e-13)
    # Rounding; for an implicit method the error of the root finder.
    precision = 1e-12 if method == "Tsit5" else 1e-8
    for a, b in zip(jax.tree.leaves(own[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=precision * max(1.0, float(jnp.max(jnp.abs(b)))) * 10)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Dopri8", "Heun, constant steps", "Euler"])
def test_other_methods_and_both_modes(method):
    p = X[0]
    run = lambda p, adjoint: saved(solve((p, *X[1:]), adjoint, saveat=SAVES["ts"], **SOLVERS[method]))
    theirs = jax.jit(jax.grad(lambda p: run(p, dfx.RecursiveCheckpointAdjoint())))(p)
    own = lambda p: run(p, ReplayAdjoint())
    for own_slope in (jax.jit(jax.grad(own))(p), jax.jit(jax.jacfwd(own))(p)):
        np.testing.assert_allclose(own_slope, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.exhaustive
def test_hessian_and_batches_of_gradients():
    loss = lambda p: saved(solve((p, *X[1:]), ReplayAdjoint(), saveat=SAVES["ts"]))
    both = jnp.stack([P, 0.9 * P])
    gradients = jax.jit(jax.vmap(jax.grad(loss)))(both)
    np.testing.assert_allclose(gradients[1], jax.jit(jax.grad(loss))(both[1]), rtol=1e-12)
    h = 1e-5
    around = jax.jit(jax.vmap(jax.grad(loss)))(P[None] + h * jnp.concatenate([jnp.eye(3), -jnp.eye(3)]))
    # Differences of gradients; the steps of the two sides differ, within rtol 1e-6 of the solution.
    np.testing.assert_allclose(jax.jit(jax.hessian(loss))(P), (around[:3] - around[3:]) / (2 * h), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_dense_output_and_time_that_runs_backward():
    def dense(p, adjoint):
        x = p, Y0, jnp.array(2.5), jnp.array(0.0), TS
        solution = solve(x, adjoint, dt0=-0.1, saveat=lambda ts: dfx.SaveAt(dense=True))
        return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(jax.vmap(solution.evaluate)(TS)))

    own = jax.jit(jax.value_and_grad(lambda p: dense(p, ReplayAdjoint())))(P)
    theirs = jax.jit(jax.value_and_grad(lambda p: dense(p, dfx.RecursiveCheckpointAdjoint())))(P)
    assert own[0] == theirs[0]
    np.testing.assert_allclose(own[1], theirs[1], rtol=1e-12)


def test_two_levels_give_the_same_for_the_last_state():
    run = lambda adjoint: jax.jit(jax.grad(lambda p: saved(solve((p, *X[1:]), adjoint))))(P)
    np.testing.assert_allclose(run(ReplayAdjoint("two_levels")), run(ReplayAdjoint("states")), rtol=1e-12)


def test_what_a_field_closes_over_is_differentiated():
    def loss(rate):
        term = dfx.ODETerm(lambda t, y, args: -rate * y)
        options = {"stepsize_controller": dfx.PIDController(rtol=1e-9, atol=1e-11), "adjoint": ReplayAdjoint()}
        return dfx.diffeqsolve(term, dfx.Tsit5(), 0.0, 1.0, 0.1, jnp.array(2.0), **options).ys[0]

    # rtol 1e-9 over some tens of steps.
    assert jax.jit(jax.grad(loss))(jnp.array(0.7)) == pytest.approx(-2 * np.exp(-0.7), rel=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event": dfx.Event(lambda t, y, args, **_: y["b"])}, "use diffsim.integrate_phase"),
        ({"max_steps": None}, "max_steps=None has no bound"),
        (
            {"solver": dfx.LeapfrogMidpoint(), "stepsize_controller": dfx.ConstantStepSize()},
            "LeapfrogMidpoint may look back",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        solve(X, ReplayAdjoint(), **options)


def test_terms_other_than_one_differential_equation_are_refused():
    terms = dfx.MultiTerm(dfx.ODETerm(lambda t, y, args: -y), dfx.ODETerm(lambda t, y, args: y))
    with pytest.raises(InputError, match="replays one ODETerm"):
        dfx.diffeqsolve(terms, dfx.KenCarp4(), 0.0, 1.0, 0.1, 1.0, stepsize_controller=PID, adjoint=ReplayAdjoint())
