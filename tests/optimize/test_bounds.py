"""Optima on bounds: reached to the last digits by every solver, named, and released if the optimum is inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.optimize import lsq_linear

import diffsim as ds
from diffsim import InputError, Scalar, param
from diffsim.optimize.least_squares import SumOfSquares

SOLVERS = {
    "LM": ds.optimize.LEVENBERG_MARQUARDT,
    "dogleg": optx.Dogleg(rtol=1e-9, atol=1e-12),
    "BFGS": optx.BFGS(rtol=1e-9, atol=1e-12),
    "L-BFGS": ds.optimize.LBFGS,
}


class Four(eqx.Module):
    a: Scalar = param(0.3, "m", bounds=(-1.0, 1.0))
    b: Scalar = param(0.5, "m", bounds=(0.0, np.inf))
    c: Scalar = param(-0.5, "m", bounds=(-np.inf, 0.25))
    d: Scalar = param(0.1, "m")


def residuals(model, data):
    matrix, seen = data
    return matrix @ jnp.stack([model.a, model.b, model.c, model.d]) - seen


def problems(count):
    """Random linear problems of four parameters, most with an optimum on a bound, and their optima by SciPy."""
    rng = np.random.default_rng(0)
    matrices, seen = rng.normal(size=(count, 12, 4)), 3 * rng.normal(size=(count, 12))
    bounds = ([-1, 0, -np.inf, -np.inf], [1, np.inf, 0.25, np.inf])
    optima = [lsq_linear(*pair, bounds, tol=1e-14).x for pair in zip(matrices, seen, strict=True)]
    return (jnp.asarray(matrices), jnp.asarray(seen)), np.array(optima)


@pytest.mark.parametrize("name", SOLVERS)
def test_optima_of_random_problems_are_those_of_scipy(name):
    """At least 198 of 200 to 1e-6; the others say that they did not converge."""
    count, solver = 200, SOLVERS[name]
    data, optima = problems(count)
    function = SumOfSquares(residuals) if isinstance(solver, optx.AbstractMinimiser) else residuals
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count,)), Four())
    fits = ds.optimize.fit_many(function, starts, data, separate_data=True, solver=solver, steps=300)
    fitted = np.stack(jax.tree.leaves(fits.models), axis=1)
    good = np.max(np.abs(fitted - optima), axis=1) < 1e-6
    assert good.sum() >= 198
    assert np.all(np.asarray(fits.status)[~good] == ds.optimize.FitStatus.STEP_LIMIT)
    on = np.any(np.abs(optima - [[-1, 0, 0.25, 9]]) < 1e-9, axis=1) | (np.abs(optima[:, 0] - 1) < 1e-9)
    assert on.sum() > 100
    assert np.array_equal(np.asarray(fits.status)[good] == ds.optimize.FitStatus.AT_BOUND, on[good])


X = jnp.linspace(-1.0, 2.0, 20)


class Line(eqx.Module):
    slope: Scalar = param(1.0, "m/s", bounds=(-5.0, 5.0))
    offset: Scalar = param(0.1, "m", bounds=(0.0, np.inf))


def line(model, seen):
    return model.slope * X + model.offset - seen


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(
    ("true", "stuck"),
    [((7.0, 0.5), ("slope",)), ((2.0, -1.0), ("offset",)), ((7.0, -1.0), ("slope", "offset")), ((2.0, 0.5), ())],
    ids=["two bounds", "one bound", "both", "none"],
)
def test_a_parameter_at_its_bound_is_there_exactly_and_named(name, true, stuck):
    seen = true[0] * X + true[1] + 0.1 * jnp.sin(9 * X)
    fitted, history = ds.fit_least_squares(line, Line(), seen, solver=SOLVERS[name], progress=False)
    matrix = np.stack([X, np.ones(20)], axis=1)
    optimum = lsq_linear(matrix, seen, ([-5, 0], [5, np.inf]), tol=1e-14).x
    np.testing.assert_allclose((fitted.slope, fitted.offset), optimum, atol=1e-6)
    assert history.at_bound == tuple(ds.at_bound(fitted, width=0.0)) == stuck
    assert np.isnan(history.loss[-1])


@pytest.mark.parametrize("name", SOLVERS)
def test_an_optimum_close_to_a_bound_is_not_taken_for_one_on_it(name):
    seen = 4.9999 * X + 1e-4
    fitted, history = ds.fit_least_squares(line, Line(), seen, solver=SOLVERS[name], progress=False)
    # Residuals vanish at the optimum, so that least squares converge quadratically; for a minimizer the slope is a
    # hundred times smaller because of the transform.
    accuracy = 1e-5 if isinstance(SOLVERS[name], optx.AbstractMinimiser) else 1e-9
    np.testing.assert_allclose((fitted.slope, fitted.offset), (4.9999, 1e-4), atol=accuracy)
    assert history.at_bound == ()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_start_close_to_the_wrong_bound_comes_back(name):
    seen = 2.0 * X + 0.5
    start = Line(slope=-4.999, offset=1e-3)
    fitted, history = ds.fit_least_squares(line, start, seen, solver=SOLVERS[name], steps=300, progress=False)
    np.testing.assert_allclose((fitted.slope, fitted.offset), (2.0, 0.5), rtol=1e-6)
    assert history.at_bound == ()


def test_a_loss_is_minimised_as_its_closed_form_says():
    """Rosenbrock's function, whose optimum with x <= 0.5 is (0.5, 0.25)."""

    class Point(eqx.Module):
        x: Scalar = param(-1.2, "", bounds=(-2.0, 0.5))
        y: Scalar = param(1.0, "")

    rosenbrock = lambda p, _: 100 * (p.y - p.x**2) ** 2 + (1 - p.x) ** 2
    fitted, history = ds.minimize(rosenbrock, Point(), progress=False)
    np.testing.assert_allclose((fitted.x, fitted.y), (0.5, 0.25), atol=1e-6)
    assert history.at_bound == ("x",)
    assert history.loss[np.isfinite(history.loss)][-1] == pytest.approx(0.25, rel=1e-9)


def test_a_second_minimisation_does_not_compile_again():
    other, twice = Line(slope=3.0), 2 * X
    minimize = ds.compilation.count_compilations(
        lambda model, x: ds.minimize(
            lambda model, seen: jnp.sum(line(model, seen) ** 2), model, x, steps=3, progress=False
        )
    )
    minimize(Line(), X)
    assert minimize.count == 1
    minimize(other, twice)
    assert minimize.count == 1


def test_float32_settles_on_its_bounds_too():
    class Single(eqx.Module):
        slope: Scalar = param(np.float32(1.0), "m/s", bounds=(-5.0, 5.0))
        offset: Scalar = param(np.float32(0.1), "m", bounds=(0.0, np.inf))

    solver = optx.LevenbergMarquardt(rtol=1e-5, atol=1e-6)
    with jax.enable_x64(False):
        x = X.astype(jnp.float32)
        residuals = lambda model, seen: model.slope * x + model.offset - seen
        fitted, history = ds.fit_least_squares(residuals, Single(), 7 * x - 1, solver=solver, progress=False)
    assert fitted.slope.dtype == jnp.float32
    assert (float(fitted.slope), float(fitted.offset)) == (5.0, 0.0)
    assert history.at_bound == ("slope", "offset")


@pytest.mark.usefixtures("wrong_types")
def test_what_cannot_be_fitted_is_named():
    with pytest.raises(InputError, match=r"the loss has shape \(20,\); it must be one number"):
        ds.minimize(line, Line(), X, progress=False)
    with pytest.raises(InputError, match="LevenbergMarquardt needs residuals, not a loss: use fit_least_squares"):
        ds.minimize(line, Line(), X, solver=ds.optimize.LEVENBERG_MARQUARDT, progress=False)
    with pytest.raises(InputError, match="solver NelderMead: give one of optimistix that follows slopes"):
        ds.fit_least_squares(line, Line(), X, solver=optx.NelderMead(1e-6, 1e-6), progress=False)
    with pytest.raises(InputError, match="nothing to train"):
        ds.fit_least_squares(line, Line(), X, filter_spec=ds.frozen(Line(), "*"), progress=False)
    with pytest.raises(ds.FitError, match="the loss of the starting model is not finite: start elsewhere"):
        ds.minimize(lambda m, d: m.slope * jnp.nan, Line(), progress=False)


def test_a_solver_without_damping_that_loses_its_way_keeps_the_last_healthy_model():
    class Root(eqx.Module):
        x: Scalar = param(3.0, "m")

    # Gauss-Newton's first step from 3 leads beyond the root of the square root's range.
    leaving = lambda model, _: jnp.stack([jnp.sqrt(model.x) * 10.0 - 1.0])
    with pytest.raises(ds.FitError, match=r"the residuals are not finite after iteration 1 of 100") as failure:
        ds.fit_least_squares(leaving, Root(), solver=optx.GaussNewton(1e-9, 1e-12), progress=False)
    assert failure.value.model.x == 3.0
