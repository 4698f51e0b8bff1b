"""Steps of implicit methods: derivatives of their stages as roots, against closed forms and diffrax."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, Phase, ReplayAdjoint, integrate, integrate_phase, solve
from diffsim.ode.dirk import Tableau

FINDER = dfx.VeryChord(rtol=1e-13, atol=1e-14)
SOLVERS = {
    "ImplicitEuler": dfx.ImplicitEuler(root_finder=FINDER),
    "Kvaerno3": dfx.Kvaerno3(root_finder=FINDER),
    "Kvaerno4": dfx.Kvaerno4(root_finder=FINDER),
    "Kvaerno5": dfx.Kvaerno5(root_finder=FINDER),
}
STEPS, SPAN = 8, 2.0
ROBERTSON = 0.1073004285  # of the first species at 1e4
RATE = jnp.array([[-3.0, 1.0], [0.5, -40.0]])
START = jnp.array([1.0, -0.5])


def linear(t, y, rate):
    return rate @ y


def solved(name, y0, rate, memory="auto"):
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": SPAN / STEPS, "max_steps": STEPS + 1}
    adjoint = ReplayAdjoint(memory=memory)
    return integrate(linear, y0, jnp.array([0.0, SPAN]), rate, solver=SOLVERS[name], adjoint=adjoint, **options)[-1]


def by_stability_function(name, y0, rate):
    """The method's own solution: R(hA)^n y0, with R(z) = 1 + z b (1 - z a)^-1 e."""
    a, b, _, _ = Tableau.of(SOLVERS[name])
    z = SPAN / STEPS * rate
    system = jnp.eye(2 * len(b)) - jnp.kron(a, z)
    stages = jnp.linalg.solve(system, jnp.tile(jnp.eye(2), (len(b), 1)))
    factor = jnp.eye(2) + z @ jnp.einsum("i,ijk->jk", b, stages.reshape(-1, 2, 2))
    return jnp.linalg.matrix_power(factor, STEPS) @ y0


@pytest.fixture(scope="module", params=list(SOLVERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def derivatives(name):
    """Value, reverse and forward Jacobians, and the Hessian of one number, of the solve and of its closed form."""

    def all_of(end):
        number = lambda y0, rate: jnp.sum(end(y0, rate) ** 2)
        forward, reverse = jax.jacfwd(end, (0, 1)), jax.jacrev(end, (0, 1))
        return jax.jit(lambda *x: (end(*x), forward(*x), reverse(*x), jax.hessian(number, 1)(*x)))(START, RATE)

    return all_of(lambda *x: solved(name, *x)), all_of(lambda *x: by_stability_function(name, *x))


@pytest.mark.slow
def test_value_and_derivatives_are_those_of_the_stability_function(derivatives):
    for own, exact in zip(*map(jax.tree.leaves, derivatives), strict=True):
        # The error of the root finder, over eight steps, in derivatives of size one.
        np.testing.assert_allclose(own, exact, rtol=1e-10, atol=1e-11)


def test_reverse_is_forward(derivatives):
    _, forward, reverse, _ = derivatives[0]
    for a, b in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["states", "two_levels", "jacobians"])
def test_memory_policies_and_batches_agree(memory):
    loss = lambda y0: jnp.sum(solved("Kvaerno5", y0, RATE, memory))
    starts = jnp.outer(jnp.array([1.0, 2.0, -1.0]), START)
    slopes = jax.jit(jax.vmap(jax.grad(loss)))(starts)
    exact = jax.grad(lambda y0: jnp.sum(by_stability_function("Kvaerno5", y0, RATE)))(START)
    # The problem is linear: every start has the same gradient.
    np.testing.assert_allclose(slopes, jnp.tile(exact, (3, 1)), rtol=1e-10)


def forced(t, y, args):
    """A stiff attraction to a wave, with explicit dependence on time."""
    return -args["pull"] * (y - jnp.cos(args["pace"] * t)) + args["bend"] * y**3


@pytest.mark.slow
def test_a_field_of_time_has_diffraxs_gradient_on_the_same_steps():
    args = {"pull": jnp.array(300.0), "pace": jnp.array(2.0), "bend": jnp.array(0.3), "label": "not a number"}
    controller, solver = dfx.PIDController(rtol=1e-6, atol=1e-8), dfx.Kvaerno5(root_finder=dfx.VeryChord(1e-10, 1e-10))

    def end(y0, t1, args, adjoint):
        options = {"stepsize_controller": controller, "max_steps": 1024, "adjoint": adjoint}
        return dfx.diffeqsolve(dfx.ODETerm(forced), solver, 0.0, t1, 0.01, y0, args, **options).ys[-1, 0]

    def slopes(adjoint):
        loss = lambda numbers, y0: end(y0, 1.5, args | numbers, adjoint)
        numbers = {name: x for name, x in args.items() if name != "label"}
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(numbers, jnp.array([0.5]))

    own, theirs = slopes(ReplayAdjoint()), slopes(dfx.RecursiveCheckpointAdjoint())
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("mode", ["auto", "replay", "forward"])
def test_the_time_of_an_event_is_differentiated_through_stages(mode):
    # y = exp(-r t) reaches 0.3 at t = log(1/0.3) / r.
    phase = Phase(lambda t, y, rate: -rate * y, (Event(lambda t, y, rate: y - 0.3),))
    options = {"solver": SOLVERS["Kvaerno5"], "stepsize_controller": dfx.PIDController(rtol=1e-10, atol=1e-12)}
    arrival = lambda rate: integrate_phase(phase, 0.0, 1.0, rate, t1=5.0, mode=mode, **options).t
    value, slope = jax.jit(lambda r: jax.jvp(arrival, (r,), (jnp.ones_like(r),)))(jnp.array(2.0))
    exact = np.log(1 / 0.3) / 2.0
    # The controller's tolerance over some tens of steps.
    np.testing.assert_allclose([value, slope], [exact, -exact / 2.0], rtol=1e-8)


def test_single_precision_stays_single():
    options = {
        "solver": dfx.Kvaerno3(),
        "stepsize_controller": dfx.PIDController(rtol=1e-4, atol=1e-6),
        "max_steps": 128,
    }
    span, rate = jnp.array([0.0, 1.0], jnp.float32), jnp.float32(2.0)
    end = lambda rate: integrate(lambda t, y, r: -r * y, jnp.ones(2, jnp.float32), span, rate, **options)[-1, 0]
    value, slope = jax.jit(jax.value_and_grad(end))(rate)
    assert value.dtype == slope.dtype == jnp.float32
    # rtol 1e-4 over some ten steps.
    np.testing.assert_allclose([value, slope], [np.exp(-2.0), -np.exp(-2.0)], rtol=2e-3)


def test_a_stiff_network_takes_no_more_steps_than_its_accuracy_needs():
    """Robertson's reactions up to 1e4: the stages converge, so that no steps are refused for them."""

    def field(t, y, k):
        slow, fast, back = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return jnp.stack([back - slow, slow - back - fast, fast])

    k, ts = jnp.array([0.04, 3e7, 1e4]), jnp.array([0.0, 1e4])
    solution = solve(field, jnp.array([1.0, 0.0, 0.0]), ts, k, solver=dfx.Kvaerno5(), rtol=1e-6, atol=1e-8)
    # The reference is that of LSODA and Radau at a relative tolerance of 1e-12.
    np.testing.assert_allclose(solution.ys[-1, 0], ROBERTSON, rtol=1e-5)
    assert int(solution.num_steps) < 60
