"""Noise models: densities against SciPy, residuals against densities, derivatives at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import diffsim as ds
from diffsim import InputError
from diffsim.experiments import Normal, Proportional, Student

PREDICTION = jnp.array([[0.0, 2.0], [-1.5, 30.0], [1e-9, 4.0]])
DATA = jnp.array([[0.0, 2.5], [-1.0, 20.0], [0.3, 4.0]])
WEIGHTS = jnp.array([[1.0, 2.0], [0.5, 1.0], [3.0, 1.0]])
STD, SHARE, DEGREES = np.array([0.3, 2.0]), np.array([0.1, 0.2]), np.array([3.0, 7.0])
MODELS = {
    "normal": (Normal(STD), lambda p, w: stats.norm(p, STD / np.sqrt(w))),
    "proportional": (
        Proportional(SHARE, STD),
        # The weight divides the standard deviation.
        lambda p, w: stats.norm(p, np.sqrt(STD**2 + (SHARE * p) ** 2) / np.sqrt(w)),
    ),
    "student": (Student(STD, DEGREES), lambda p, w: stats.t(DEGREES, p, STD / np.sqrt(w))),
    "student, one number": (Student(0.7, 4.0), lambda p, w: stats.t(4.0, p, 0.7 / np.sqrt(w))),
}


@pytest.mark.parametrize("name", MODELS)
def test_densities_are_those_of_scipy(name):
    noise, distribution = MODELS[name]
    for weights in (1.0, WEIGHTS):
        expected = distribution(np.asarray(PREDICTION), np.broadcast_to(weights, DATA.shape)).logpdf(DATA)
        np.testing.assert_allclose(noise.log_density(PREDICTION, DATA, weights), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_half_the_squares_of_residuals_are_the_negative_log_likelihood_up_to_a_constant(name):
    """With its first and second derivatives by the predictions, at zero residuals and predictions too."""
    noise = MODELS[name][0]
    by_squares = lambda p: 0.5 * jnp.sum(noise.residuals(p, DATA, WEIGHTS) ** 2)
    by_density = lambda p: -jnp.sum(noise.log_density(p, DATA, WEIGHTS))
    derivatives = lambda f: jax.jit(lambda p: (jax.jacrev(f)(p), jax.jacfwd(f)(p), jax.hessian(f)(p)))
    constant = by_density(PREDICTION) - by_squares(PREDICTION)
    assert float(by_density(DATA) - by_squares(DATA)) == pytest.approx(float(constant), rel=1e-12)
    for point in (PREDICTION, DATA, jnp.zeros_like(DATA)):
        for found, expected in zip(derivatives(by_squares)(point), derivatives(by_density)(point), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_residuals_are_smooth_at_zero():
    """Residuals themselves, not only their squares, have the derivatives of their power series."""
    std, degrees, share, floor = 0.5, 4.0, 0.2, 0.3
    student = lambda p: Student(std, degrees).residuals(p, jnp.array(0.0))
    # sqrt((n + 1) log(1 + e^2 / n)) = sqrt((n + 1) / n) (e - e^3 / (4 n) + ...)
    slope = np.sqrt((degrees + 1) / degrees) / std
    of = lambda f: jax.jit(lambda x: [f(x), jax.grad(f)(x), jax.hessian(f)(x), jax.grad(jax.hessian(f))(x)])(0.0)
    expected = [0.0, slope, 0.0, -6 / (4 * degrees) * slope / std**2]
    np.testing.assert_allclose(of(student), expected, rtol=1e-12, atol=1e-14)
    second = lambda p: Proportional(share, floor).residuals(p, jnp.array(0.0))[1]
    # sqrt(log(1 + u^2)) = u - u^3 / 4 + ...
    expected = [0.0, share / floor, 0.0, -6 / 4 * (share / floor) ** 3]
    np.testing.assert_allclose(of(second), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
def test_the_series_meets_the_formula(x64):
    with jax.enable_x64(x64):
        e = jnp.concatenate([jnp.linspace(0.195, 0.205, 40), jnp.geomspace(1e-8, 1e8, 60)])
        noise = Student(1.0, 4.0)
        r, slope = jax.vmap(jax.value_and_grad(lambda e: noise.residuals(e, jnp.zeros(()))))(e)
        exact = np.sqrt(5 * np.log1p(np.float64(e) ** 2 / 4))
        rtol = 1e-14 if x64 else 1e-6
        np.testing.assert_allclose(r, exact, rtol=rtol)
        np.testing.assert_allclose(slope, 5 * np.float64(e) / (4 + np.float64(e) ** 2) / exact, rtol=100 * rtol)


def test_noise_of_one_column_is_that_of_the_other():
    one = Normal(0.3).log_density(PREDICTION[:, 0], DATA[:, 0])
    np.testing.assert_allclose(one, Normal(STD).log_density(PREDICTION, DATA)[:, 0], rtol=1e-14)


def test_a_noise_model_is_anything_with_its_methods():
    assert isinstance(Normal(1.0), ds.experiments.NoiseModel)
    assert not isinstance(0.1, ds.experiments.NoiseModel)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(0.0), r"std=0: give positive numbers"),
        (lambda: Normal([0.1, -2.0]), r"std=-2: give positive numbers"),
        (lambda: Student(1.0, np.nan), r"degrees=nan: give positive numbers"),
        (lambda: Proportional(-0.1, 1.0), r"share=-0.1: give numbers from 0 up, such as 0.1"),
        (lambda: Proportional(0.1, 0.0), r"floor=0: give positive numbers, so that the noise never vanishes"),
    ],
)
def test_impossible_noise_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
