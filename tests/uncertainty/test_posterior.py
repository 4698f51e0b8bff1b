"""Posteriors of fits: covariances against closed forms and SciPy, coverage, flat directions, bounds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy import stats
from scipy.optimize import curve_fit

import diffsim as ds
from diffsim import InputError, RunError, Scalar, param

X = jnp.linspace(-1.0, 2.0, 20)
SEEN = 2.0 * X + 0.5 + 0.3 * jnp.sin(9 * X)


class Line(eqx.Module):
    slope: Scalar = param(1.0, "m/s", bounds=(-5.0, 5.0))
    offset: Scalar = param(0.1, "m")


def line(model, seen):
    return model.slope * X + model.offset - seen


@pytest.fixture(scope="module")
def fitted():
    model, _ = ds.fit_least_squares(line, Line(), SEEN, progress=False)
    return model, ds.posterior(line, model, SEEN)


def test_linear_regression_has_its_closed_form(fitted):
    model, posterior = fitted
    matrix = np.stack([X, np.ones(20)], axis=1)
    variance = np.sum(np.square(line(model, SEEN))) / 18
    closed = variance * np.linalg.inv(matrix.T @ matrix)
    np.testing.assert_allclose(posterior.covariance, closed, rtol=1e-12)
    np.testing.assert_allclose(posterior.std(), np.sqrt(np.diag(closed)), rtol=1e-12)
    assert float(posterior.correlation()[0, 1]) == pytest.approx(closed[0, 1] / np.sqrt(np.prod(np.diag(closed))))
    assert (float(posterior.degrees_of_freedom), float(posterior.noise)) == (18, pytest.approx(np.sqrt(variance)))
    # The band of a line and of a new point near it: the textbook's formulas.
    at = jnp.array([0.0, 3.0])
    predict = lambda model: model.slope * at + model.offset
    spread = np.sqrt(variance * (1 / 20 + (np.asarray(at) - X.mean()) ** 2 / np.sum((X - X.mean()) ** 2)))
    for observed, std in ((False, spread), (True, np.sqrt(spread**2 + variance))):
        band = posterior.credible_band(predict, 0.95, include_noise=observed)
        np.testing.assert_allclose(band.std, std, rtol=1e-12)
        np.testing.assert_allclose(band.high - band.value, stats.t(18).ppf(0.975) * std, rtol=1e-10)
        np.testing.assert_allclose(band.value - band.low, band.high - band.value, rtol=1e-10)


def test_known_noise_takes_the_place_of_its_estimate(fitted):
    posterior = ds.posterior(line, fitted[0], SEEN, noise=0.5)
    matrix = np.stack([X, np.ones(20)], axis=1)
    np.testing.assert_allclose(posterior.covariance, 0.25 * np.linalg.inv(matrix.T @ matrix), rtol=1e-12)
    assert float(posterior.critical_value(0.9)) == pytest.approx(stats.norm.ppf(0.95))


TS = jnp.linspace(0.0, 4.0, 40)


class Wave(eqx.Module):
    amplitude: Scalar = param(1.5, "m", bounds=(0.0, 10.0))
    omega: Scalar = param(1.8, "rad/s", bounds=(0.5, 4.0))
    decay: Scalar = param(0.5, "1/s", bounds=(0.0, np.inf))
    phase: Scalar = param(0.0, "rad")

    def __call__(self, t):
        return self.amplitude * jnp.exp(-self.decay * t) * jnp.cos(self.omega * t + self.phase)


def wave(model, seen):
    return model(TS) - seen


TRUE = Wave(amplitude=2.0, omega=2.0, decay=0.3, phase=0.4)


def test_a_nonlinear_fit_has_the_covariance_of_scipy():
    seen = TRUE(TS) + 0.1 * jax.random.normal(jax.random.key(0), TS.shape)
    model, _ = ds.fit_least_squares(wave, Wave(), seen, progress=False)
    posterior = ds.posterior(wave, model, seen)
    form = lambda t, a, w, d, p: a * np.exp(-d * t) * np.cos(w * t + p)
    values, covariance = curve_fit(form, TS, seen, p0=[1.5, 1.8, 0.5, 0.0], xtol=1e-12, ftol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(model), values, rtol=1e-6)
    # SciPy's Jacobian is one of differences.
    np.testing.assert_allclose(posterior.covariance, covariance, rtol=1e-3, atol=1e-6)
    rows = {row.path: row for row in posterior.summary(0.9)}
    assert rows["omega"].unit == "rad/s"
    assert rows["omega"].low < float(model.omega) < rows["omega"].high
    reach = stats.t(36).ppf(0.95) * rows["omega"].std
    # The transform bends the interval by a fraction of its width.
    assert rows["omega"].high - rows["omega"].low == pytest.approx(2 * reach, rel=1e-2)


def test_the_hessian_of_a_likelihood_agrees_where_the_model_is_linear(fitted):
    model, posterior = fitted
    nll = lambda model, seen: jnp.sum(line(model, seen) ** 2) / (2 * posterior.noise**2)
    np.testing.assert_allclose(
        ds.uncertainty.laplace_posterior(nll, model, SEEN).covariance, posterior.covariance, rtol=1e-10
    )
    with pytest.raises(RunError, match="the loss curves downwards at this model: it is no minimum"):
        ds.uncertainty.laplace_posterior(lambda model, seen: -nll(model, seen), model, SEEN)


def test_the_laplace_approximation_of_a_rate_has_its_closed_form():
    """The likelihood of counts: the rate's variance is rate / count."""

    class Rate(eqx.Module):
        rate: Scalar = param(1.0, "1/s", bounds=(0.0, np.inf))

    counts = jnp.array([3.0, 5.0, 4.0, 7.0, 2.0])
    nll = lambda model, counts: jnp.sum(model.rate - counts * jnp.log(model.rate))
    model, _ = ds.minimize(nll, Rate(), counts, progress=False)
    assert float(model.rate) == pytest.approx(4.2, rel=1e-7)
    assert float(ds.uncertainty.laplace_posterior(nll, model, counts).covariance[0, 0]) == pytest.approx(
        4.2 / 5, rel=1e-6
    )


def many_posteriors(count, seed):
    """Fits of the wave to so many noisy data sets, and their posteriors."""
    seen = TRUE(TS)[None] + 0.1 * jax.random.normal(jax.random.key(seed), (count, 40))
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count,)), Wave())
    fits = ds.optimize.fit_many(wave, starts, seen, separate_data=True)
    assert np.all(np.asarray(fits.status) == ds.optimize.FitStatus.CONVERGED)

    @eqx.filter_jit
    @eqx.filter_vmap
    def believe(model, seen):
        posterior = ds.posterior(wave, model, seen)
        return posterior, posterior.delta_method(lambda model: model(TS))

    return believe(fits.models, seen)


def test_bands_and_intervals_cover_the_truth_as_often_as_they_say():
    """Of 90% bands over 200 fits 87 to 93% contain the truth; over 2,000 fits, 88.5 to 91.5%."""
    posterior, (value, std) = many_posteriors(2000, 0)
    reach = posterior.critical_value(0.9)[:, None]
    inside = np.abs(value - TRUE(TS)[None]) <= reach * std
    assert 0.87 <= inside[:200].mean() <= 0.93
    assert 0.885 <= inside.mean() <= 0.915
    values, truth = np.stack(jax.tree.leaves(posterior.trained), axis=1), np.array(jax.tree.leaves(TRUE))
    stds = np.sqrt(np.asarray(jnp.diagonal(posterior.covariance, axis1=1, axis2=2)))
    covered = np.abs(values - truth) <= reach * stds
    # The standard error of each of the four shares is 0.7%.
    assert np.all(np.abs(covered.mean(axis=0) - 0.9) < 0.02)
    # The noise is estimated from residuals: its square is chi-squared with 36 degrees of freedom.
    assert float(np.mean(posterior.noise**2)) == pytest.approx(0.01, rel=0.02)


def test_clusters_have_the_sandwich_of_the_textbook(fitted):
    model, plain = fitted
    matrix, r = np.stack([X, np.ones(20)], axis=1), np.asarray(line(model, SEEN))
    clusters = np.arange(20) % 7
    bread = np.linalg.inv(matrix.T @ matrix)
    scores = [matrix[clusters == c].T @ r[clusters == c] for c in range(7)]
    meat = sum(np.outer(score, score) for score in scores)
    posterior = ds.posterior(line, model, SEEN, clusters=clusters)
    np.testing.assert_allclose(posterior.covariance, 7 / 6 * 19 / 18 * bread @ meat @ bread, rtol=1e-9)
    assert float(posterior.degrees_of_freedom) == 6
    assert float(posterior.noise) == float(plain.noise)


def test_intervals_of_clusters_cover_the_truth_where_others_do_not():
    """Four residuals share half of the variance: of 90% intervals over 1,000 fits, 87 to 93% contain the truth."""
    groups, design = np.repeat(np.arange(100), 4), np.random.default_rng(0).normal(size=(100, 2)).repeat(4, axis=0)
    predict = lambda model, seen: design @ model - seen
    shared, own = (np.random.default_rng(seed).normal(size=(1000, n)) for seed, n in ((1, 100), (2, 400)))
    seen = jnp.asarray(shared[:, groups] + own)

    @jax.jit
    @jax.vmap
    def covered(seen):
        model = jnp.linalg.lstsq(design, seen)[0]
        kinds = [ds.posterior(predict, model, seen, clusters=c).std() for c in (groups, None)]
        return jnp.abs(model)[None] <= stats.t(99).ppf(0.95) * jnp.stack(kinds)

    share = np.asarray(covered(seen)).mean(axis=(0, 2))
    assert 0.87 < share[0] < 0.93
    assert share[1] < 0.8  # as if the residuals were independent


class Product(eqx.Module):
    a: Scalar = param(2.0, "kg")
    b: Scalar = param(3.0, "m/s")
    c: Scalar = param(0.5, "N", bounds=(0.5, 1.0))
    gains: Float[Array, " 2"] = param(np.array([1.0, 2.0]), "")


def product(model, seen):
    inner = model.gains[0] * jnp.cos(X) + model.gains[1] * jnp.cos(2 * X)
    return model.a * model.b * X + model.c + inner - seen


def test_a_direction_that_data_do_not_determine_is_named():
    """Only the product a b is measured: a may grow by as many percent as b falls. c is on its bound."""
    model = Product()
    posterior = ds.posterior(product, model, product(model, 0.0) + 0.1 * jnp.sin(5 * X))
    (direction,) = posterior.flat_directions()
    assert set(direction) == {"a", "b"}
    assert direction["a"] == pytest.approx(-direction["b"], rel=1e-6)
    rows = {row.path: row for row in posterior.summary()}
    assert [rows[name].remark for name in ("a", "b", "c", "gains[1]")] == [*2 * ["not determined"], "at its bound", ""]
    assert (rows["a"].low, rows["a"].high) == (-np.inf, np.inf)
    assert np.isnan(rows["c"].std)
    predict = lambda model: jnp.stack([model.a * model.b, model.a, model.gains[1]])
    std = posterior.credible_band(predict).std
    assert np.isfinite(std[0])
    assert np.isinf(std[1])
    # The product is as certain as if it were one parameter, and c like a fixed one.
    matrix = jnp.stack([X, jnp.cos(X), jnp.cos(2 * X)], axis=1)
    spread = np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix))) * float(posterior.noise)
    np.testing.assert_allclose((std[0], std[2]), spread[[0, 2]], rtol=1e-9)
    assert float(posterior.degrees_of_freedom) == 20 - 3


class Triple(eqx.Module):
    a: Scalar = param(1.0)
    b: Scalar = param(1.0)
    c: Scalar = param(1.0)


def test_standard_deviations_do_not_depend_on_values_and_units():
    """Random linear models: units over twelve decades, values down to a billionth of their unit, and zero."""
    draw = np.random.default_rng(0)

    def stds(matrix, values):
        residuals = lambda model, seen: matrix @ jnp.stack([model.a, model.b, model.c]) - seen
        model, seen = Triple(*values), matrix @ values + 0.1 * jnp.cos(jnp.arange(40.0))
        likelihood = lambda model, seen: 50 * jnp.sum(residuals(model, seen) ** 2)
        both = (
            ds.posterior(residuals, model, seen, noise=0.1),
            ds.uncertainty.laplace_posterior(likelihood, model, seen),
        )
        return [posterior.std() for posterior in both]

    stds = jax.jit(stds)
    for _ in range(100):
        unit, matrix = 10.0 ** draw.uniform(-6, 6, 3), draw.normal(size=(40, 3))
        values = draw.normal(size=3) * 10.0 ** draw.uniform(-9, 3, 3) * (draw.random(3) > 0.15) * unit
        exact = 0.1 * unit * np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix)))
        for std in stds(jnp.asarray(matrix / unit), jnp.asarray(values)):
            np.testing.assert_allclose(std, exact, rtol=1e-9)


def test_a_flat_direction_is_found_near_zero_too():
    model = ds.replace(Product(), {"a": 1e-9})
    posterior = ds.posterior(product, model, product(model, 0.0) + 0.1 * jnp.sin(5 * X))
    (direction,) = posterior.flat_directions()
    assert direction["a"] == pytest.approx(-direction["b"], rel=1e-6)


def test_intervals_never_leave_the_bounds():
    model = Wave(amplitude=0.05, omega=2.0, decay=0.3, phase=0.4)
    posterior = ds.posterior(wave, model, model(TS) + 0.1 * jnp.sin(50 * TS))
    low, high = posterior.credible_intervals(0.99)
    assert np.all(low[:3] >= np.array([0.0, 0.5, 0.0]))
    assert np.all(high[:2] <= np.array([10.0, 4.0]))
    assert np.all(low < high)


def test_only_trained_parameters_have_a_posterior(fitted):
    model, _ = fitted
    posterior = ds.posterior(line, model, SEEN, filter_spec=ds.trainable(model, "slope"))
    assert [row.path for row in posterior.summary()] == ["slope"]
    assert float(posterior.covariance[0, 0]) == pytest.approx(float(posterior.noise) ** 2 / float(jnp.sum(X**2)))


def test_intervals_within_a_compiled_function_are_refused_with_the_remedy(fitted):
    interval = jax.jit(lambda seen: ds.posterior(line, fitted[0], seen).credible_intervals(0.9))
    with pytest.raises(InputError, match=r"take std\(\) within jit and vmap"):
        interval(SEEN)


def test_bad_input_is_named(fitted):
    two = lambda model, _: jnp.stack([model.slope, model.offset])
    with pytest.raises(InputError, match="2 residuals cannot determine the noise and 2 parameters: give noise="):
        ds.posterior(two, fitted[0])
    for options, message in [
        ({"clusters": np.arange(20) % 2, "noise": 0.1}, "noise=0.1 with clusters: .* give one of both"),
        ({"clusters": np.arange(19) % 2}, "clusters has 19 numbers for 20 residuals; give one for each"),
        ({"clusters": np.arange(20) % 2 + 1}, "clusters has 2 different numbers; give 0, 1, ..."),
        ({"clusters": np.zeros(20, int)}, "clusters has 1 different numbers; .* at least two"),
    ]:
        with pytest.raises(InputError, match=message):
            ds.posterior(line, fitted[0], SEEN, **options)
    with pytest.raises(InputError, match=r"level=90: give a share between 0 and 1"):
        fitted[1].credible_intervals(90)
    with pytest.raises(InputError, match="nothing to train"):
        ds.posterior(line, fitted[0], SEEN, filter_spec=ds.frozen(fitted[0], "*"))
