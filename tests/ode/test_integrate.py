"""States at given times: closed forms, every mode of differentiation, failures, and diffrax's own adjoint."""

from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim import InputError, Scalar, Status, integrate

TS = jnp.linspace(0.0, 3.0, 7)
TIGHT = dfx.PIDController(rtol=1e-10, atol=1e-12)
# Local errors of 1e-10 add up over about a hundred steps of problems that do not amplify them.
GLOBAL = 1e-8


class Oscillation(NamedTuple):
    position: Scalar
    velocity: Scalar


class Spring(NamedTuple):
    omega: Scalar
    decay: Scalar


def field(t, y, p):
    osc, log = y["oscillation"], y["decaying"]
    return {
        "oscillation": Oscillation(osc.velocity, -(p.omega**2) * osc.position),
        "decaying": -p.decay * log,
    }


def solve(x, ts=TS, **options):
    """Position and decaying vector at `ts`, of omega, decay and the first position."""
    y0 = {"oscillation": Oscillation(x[2], jnp.zeros_like(x[2])), "decaying": jnp.array([1.0, 2.0])}
    options = {"stepsize_controller": TIGHT, "max_steps": 256} | options
    ys = integrate(field, y0, ts, Spring(x[0], x[1]), **options)
    return jnp.concatenate([ys["oscillation"].position[:, None], ys["decaying"]], axis=1)


def exact(x, ts=TS):
    decaying = jnp.exp(-x[1] * ts)[:, None] * jnp.array([1.0, 2.0])[None]
    return jnp.concatenate([(x[2] * jnp.cos(x[0] * ts))[:, None], decaying], axis=1)


X = jnp.array([1.3, 0.7, 0.9])
WEIGHTS = jnp.cos(jnp.arange(21.0)).reshape(7, 3)


def summed(function):
    return lambda x: jnp.sum(WEIGHTS * function(x))


@pytest.fixture(scope="module")
def derivatives():
    """Value and derivatives of the numerical solution in each mode."""

    def everything(x):
        total = summed(solve)
        return {
            "value": solve(x),
            "grad": jax.grad(total)(x),
            "jacfwd": jax.jacfwd(total)(x),
            "hessian": jax.hessian(total)(x),
        }

    return jax.jit(everything)(X)


@pytest.mark.parametrize(
    ("name", "of_exact"),
    [
        ("value", exact),
        ("grad", jax.grad(summed(exact))),
        ("jacfwd", jax.grad(summed(exact))),
        ("hessian", jax.hessian(summed(exact))),
    ],
    ids=["value", "grad", "jacfwd", "hessian"],
)
def test_solution_and_derivatives_have_their_closed_form(derivatives, name, of_exact):
    np.testing.assert_allclose(derivatives[name], of_exact(X), rtol=GLOBAL, atol=GLOBAL)


@pytest.mark.slow
def test_reverse_mode_equals_forward_mode(derivatives):
    # The same steps in another order of summation: only rounding is between them.
    np.testing.assert_allclose(derivatives["grad"], derivatives["jacfwd"], rtol=1e-12)


@pytest.mark.slow
def test_the_gradient_is_that_of_diffrax_and_batches_follow_each_one():
    many = jnp.stack([X, 1.2 * X])
    own = jax.jit(jax.vmap(jax.grad(summed(solve))))(many)
    theirs = lambda x: solve(x, adjoint=dfx.RecursiveCheckpointAdjoint())
    for x, gradient in zip(many, own, strict=True):
        np.testing.assert_allclose(gradient, jax.grad(summed(exact))(x), rtol=GLOBAL, atol=GLOBAL)
    # diffrax interpolates by a polynomial of order four between steps of 0.05: 1e-6, and less for its gradient's sum.
    np.testing.assert_allclose(own[0], jax.jit(jax.grad(summed(theirs)))(X), rtol=1e-6, atol=1e-6)


def test_a_term_goes_to_diffrax():
    term = dfx.ODETerm(lambda t, y, args: -y)
    _, ys, status, *_ = ds.solve(term, jnp.array(1.0), TS, stepsize_controller=TIGHT)
    # Interpolation of order four between steps, as above.
    np.testing.assert_allclose(ys, jnp.exp(-TS), rtol=1e-6)
    assert status == Status.FINISHED


def test_a_stiff_problem_with_an_implicit_solver():
    def stiff(t, y, args):
        return -args * (y - jnp.cos(t)) - jnp.sin(t)

    def end(rate):
        options = {"solver": dfx.Kvaerno5(), "max_steps": 64}
        solution = ds.solve(stiff, jnp.array(2.0), TS, rate, **options)
        return solution.ys[-1], solution.status

    (y, status), slope = jax.jit(jax.value_and_grad(end, has_aux=True))(jnp.array(1e4))
    assert status == Status.FINISHED
    # The fast part has gone; rtol is 1e-6 and the errors of former steps are damped.
    np.testing.assert_allclose(y, np.cos(3.0), rtol=1e-5)
    assert abs(slope) < 1e-9


@pytest.mark.parametrize(("solver", "order"), [(dfx.Euler(), 1), (dfx.Heun(), 2), (dfx.Tsit5(), 5)], ids=str)
def test_constant_steps_converge_with_the_order_of_the_solver(solver, order):
    @jax.jit
    def error(dt0):
        options = {"solver": solver, "stepsize_controller": dfx.ConstantStepSize(), "dt0": dt0, "max_steps": 128}
        return integrate(lambda t, y, args: -y, jnp.array(1.0), jnp.array([0.0, 1.0]), **options)[-1] - jnp.exp(-1.0)

    measured = jnp.log2(error(1 / 16) / error(1 / 32))
    # The next order adds a share of the step, 1/16, to the ratio of errors, several times for high orders.
    assert measured == pytest.approx(order, abs=0.3)


def test_times_between_constant_steps_are_as_accurate():
    ts = jnp.linspace(0.0, 1.0, 33) ** 2
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 1 / 64, "max_steps": 80}
    ys = jax.jit(lambda y0: integrate(lambda t, y, args: -y, y0, ts, **options))(jnp.array(1.0))
    # Tsit5 has an error of about 1e-3 h^5 over a unit of time.
    np.testing.assert_allclose(ys, jnp.exp(-ts), rtol=1e-11)


def test_a_blow_up_is_flagged_and_leaves_no_number():
    ts = jnp.array([0.0, 0.5, 0.9, 1.1, 1.5])
    options = {"stepsize_controller": TIGHT, "max_steps": 1024}
    _, ys, status, *_ = jax.jit(lambda y0: ds.solve(lambda t, y, args: y**2, y0, ts, **options))(jnp.array(1.0))
    # The steps shrink to the precision of t before a number overflows, unless their size is fixed.
    assert Status(int(status)) in (Status.NON_FINITE, Status.STEP_LIMIT)
    # 1 / (1 - t) amplifies errors a hundredfold at t = 0.9.
    np.testing.assert_allclose(ys[:3], 1 / (1 - ts[:3]), rtol=100 * GLOBAL)
    assert np.all(np.isnan(ys[3:]))


def test_a_blow_up_with_constant_steps_is_not_finite():
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.1, "max_steps": 64}
    ts = jnp.array([0.0, 0.5, 1.5, 3.0])
    _, ys, status, *_ = jax.jit(lambda y0: ds.solve(lambda t, y, args: y**2, y0, ts, **options))(jnp.array(1.0))
    assert status == Status.NON_FINITE
    assert np.all(np.isnan(ys[2:]))


def test_constant_steps_of_a_batch_fail_one_by_one():
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.1, "max_steps": 64}
    solve = lambda y0: ds.solve(lambda t, y, args: y**2, y0, jnp.array([0.0, 0.5, 3.0]), **options)
    starts = jnp.array([0.1, 1.0, -1.0])
    _, ys, status, *_ = jax.vmap(solve)(starts)
    assert list(map(Status, status)) == [Status.FINISHED, Status.NON_FINITE, Status.FINISHED]
    np.testing.assert_allclose(ys[:, -1], [1 / 7, np.nan, -1 / 4], rtol=1e-4)
    slopes = jax.grad(lambda y0: jnp.nansum(jax.vmap(solve)(y0).ys[jnp.array([0, 2]), -1]))(starts)
    np.testing.assert_allclose(slopes[jnp.array([0, 2])], [(1 / 0.7) ** 2, (1 / 4) ** 2], rtol=1e-4)


def test_a_field_that_is_undefined_further_on_is_not_finite():
    # y^(3/2) = 1 - 3/2 t: zero at t = 2/3, where the slope is infinite and beyond which there is no solution.
    ts = jnp.array([0.0, 1.0, 3.0])
    options = {"max_steps": 256}
    solve = jax.jit(lambda y0: ds.solve(lambda t, y, a: -1 / jnp.sqrt(y), y0, ts, **options))
    _, ys, status, *_ = solve(jnp.array(1.0))
    assert status == Status.NON_FINITE
    assert np.all(np.isnan(ys[1:]))


def test_the_step_limit_is_flagged_and_leaves_no_number():
    options = {"stepsize_controller": TIGHT, "max_steps": 20}
    ts = jnp.array([0.0, 0.01, 100.0])
    solve = lambda **adjoint: jax.jit(lambda y0: ds.solve(lambda t, y, a: -y, y0, ts, **options, **adjoint))
    for _, ys, status, num_steps, _ in (solve()(jnp.array(1.0)), solve(adjoint=dfx.DirectAdjoint())(jnp.array(1.0))):
        assert num_steps == 20
        assert status == Status.STEP_LIMIT
        assert np.isnan(ys[-1])
        np.testing.assert_allclose(ys[1], np.exp(-0.01), rtol=GLOBAL)


def test_single_precision():
    y0 = jnp.array([1.0, 0.0], jnp.float32)
    ts = jnp.asarray(TS, jnp.float32)

    @jax.jit
    def end(omega):
        controller = dfx.PIDController(rtol=1e-5, atol=1e-6)
        return integrate(
            lambda t, y, w: jnp.stack([y[1], -(w**2) * y[0]]), y0, ts, omega, stepsize_controller=controller
        )

    ys = end(jnp.float32(2.0))
    assert ys.dtype == jnp.float32
    # rtol 1e-5 over some tens of steps.
    np.testing.assert_allclose(ys[:, 0], np.cos(2.0 * TS), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda t, y, a: y, 1.0, jnp.array([0.0, 2.0, 1.0])), r"ts must increase: ts\[1\]=2, ts\[2\]=1"),
        ((lambda t, y, a: y, 1.0, jnp.array([0.0])), r"ts has shape \(1,\): give at least two times"),
        ((lambda t, y, a: y, 1, TS), r"y0 has dtype int\d+: states are real; write 1\.0 for 1"),
        ((lambda t, y, a: y, {"n": 1, "x": 1.0}, TS), r"y0\['n'\] has dtype int"),
        ((lambda t, y, a: y, (), TS), r"y0 has no arrays"),
        ((lambda t, y, a: (y["x"],), {"x": 1.0}, TS), r"the vector field returned .* return dy/dt in the structure"),
        ((lambda t, y, a: jnp.stack([y, y]), 1.0, TS), r"returned float64\[2\] for y0, which is float64\[\]"),
        ((lambda t, y, a: jnp.float32(y), 1.0, TS), r"returned float32\[\] for y0, which is float64\[\]"),
    ],
    ids=["order", "one time", "integer", "integer leaf", "empty", "structure", "shape", "dtype"],
)
@pytest.mark.parametrize("adjoint", [None, dfx.DirectAdjoint()], ids=["own", "diffrax"])
def test_bad_input_is_named(arguments, message, adjoint):
    with pytest.raises(InputError, match=message):
        integrate(*arguments, adjoint=adjoint)


def test_an_implicit_solver_needs_a_tolerance():
    with pytest.raises(InputError, match=r"Kvaerno5 with ConstantStepSize has no tolerance.*Newton"):
        integrate(
            lambda t, y, a: -y, 1.0, TS, solver=dfx.Kvaerno5(), stepsize_controller=dfx.ConstantStepSize(), dt0=0.1
        )


def test_calls_from_python_are_compiled_once():
    traced = []

    def decay(t, y, rate):
        traced.append(t)
        return -rate * y

    end = lambda rate: integrate(decay, jnp.array(1.0), jnp.array([0.0, 1.0]), rate, dt0=0.1)[-1]
    for mode in (end, jax.grad(end), jax.jacfwd(end)):
        mode(jnp.array(0.5))
        seen = len(traced)
        # diffsim looks at the structure that the field returns before each call, and at nothing else.
        value = mode(jnp.array(0.7))
        assert len(traced) <= seen + 1
        sign = 1 if mode is end else -1
        # rtol 1e-6 over some steps.
        np.testing.assert_allclose(value, sign * np.exp(-0.7), rtol=1e-5)


@pytest.mark.exhaustive
def test_an_ornstein_uhlenbeck_process_with_the_defaults():
    """dx = -theta x dt + sigma dW: mean exp(-theta t), variance sigma^2 (1 - exp(-2 theta t)) / (2 theta)."""
    sigma, ts, number = 0.5, jnp.array([0.0, 1.0, 2.0]), 400

    def path(theta, key):
        noise = dfx.VirtualBrownianTree(0.0, 2.0, tol=0.04, shape=(), key=key)
        drift = dfx.ODETerm(lambda t, x, theta: -theta * x)
        terms = dfx.MultiTerm(drift, dfx.ControlTerm(lambda t, x, theta: sigma, noise))
        return integrate(terms, jnp.array(1.0), ts, theta, solver=dfx.Euler(), dt0=0.05)

    keys = jax.random.split(jax.random.key(0), number)
    both = jax.jit(
        jax.value_and_grad(lambda theta: _mean_and(jax.vmap(path, in_axes=(None, 0))(theta, keys)), has_aux=True)
    )
    (_, paths), slope = both(1.0)
    # Three standard errors of the mean, and Euler's error of some per cent.
    deviation = np.sqrt(sigma**2 * (1 - np.exp(-2 * ts)) / 2)
    np.testing.assert_allclose(paths.mean(axis=0), np.exp(-ts), atol=3 * deviation.max() / np.sqrt(number) + 0.02)
    np.testing.assert_allclose(paths.std(axis=0), deviation, rtol=3 / np.sqrt(2 * number) + 0.03)
    np.testing.assert_allclose(slope, -np.exp(-1.0), atol=0.03)


def _mean_and(paths):
    """The mean at the second time, and the paths."""
    return paths[:, 1].mean(), paths


def test_constant_steps_need_a_size():
    field = lambda t, y, args: -y
    one, unit = jnp.array(1.0), jnp.array([0.0, 1.0])
    with pytest.raises(InputError, match="dt0=None: Euler, which has no error estimate"):
        integrate(field, one, unit, solver=dfx.Euler())
    np.testing.assert_allclose(integrate(field, one, unit, solver=dfx.Euler(), dt0=0.25)[-1], 0.75**4, rtol=1e-12)


def test_a_field_with_products_of_matrices():
    """A rotation of the rows of 12 x 3 numbers, in each kind of solve, with the derivative in the generator."""
    y0, weights = jnp.sin(jnp.arange(36.0)).reshape(12, 3), jnp.cos(jnp.arange(36.0)).reshape(12, 3)
    generator = jnp.array([[0.0, 1.0, -0.5], [-1.0, 0.0, 0.3], [0.5, -0.3, 0.1]])
    rows = lambda t, y, a: y @ a
    options = {"stepsize_controller": TIGHT, "max_steps": 256}
    ends = {
        "integrate": lambda a: integrate(rows, y0, jnp.array([0.0, 2.0]), a, **options)[-1],
        "phase": lambda a: ds.integrate_phase(ds.Phase(rows), 0.0, y0, a, t1=2.0, **options).y,
        "diffrax": lambda a: dfx.diffeqsolve(
            dfx.ODETerm(rows), dfx.Tsit5(), 0.0, 2.0, None, y0, a, adjoint=ds.ReplayAdjoint(), **options
        ).ys[-1],
    }
    loss = lambda end: lambda a: jnp.sum(weights * end(a))
    value, slope = jax.value_and_grad(loss(lambda a: y0 @ jax.scipy.linalg.expm(2 * a)))(generator)
    for name, end in ends.items():
        ours = jax.value_and_grad(loss(end))(generator)
        np.testing.assert_allclose(ours[0], value, rtol=GLOBAL, err_msg=name)
        np.testing.assert_allclose(ours[1], slope, rtol=GLOBAL, atol=GLOBAL, err_msg=name)
