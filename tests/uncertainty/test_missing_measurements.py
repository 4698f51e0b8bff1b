"""Missing measurements do not count: a fit with gaps in its data has the posterior of the data without them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import diffsim as ds
from diffsim import InputError, Scalar, param

X = np.linspace(-1.0, 2.0, 20)
SEEN = 2.0 * X + 0.5 + 0.3 * np.sin(9 * X)
GAPS = np.isin(np.arange(20), [0, 3, 4, 11, 19])
WITH_GAPS = np.where(GAPS, np.nan, SEEN)
MODEL = {"slope": 1.0, "offset": 0.1}


def by_where(model, data):
    x, seen = data
    there = jnp.isfinite(seen)
    return jnp.where(there, model["slope"] * x + model["offset"] - jnp.where(there, seen, 0.0), 0.0)


def by_weight(model, data):
    x, seen = data
    weight = jnp.isfinite(seen).astype(x.dtype)
    return weight * (model["slope"] * x + model["offset"] - jnp.nan_to_num(seen))


def closed_form(x, seen):
    """Values, covariance, noise and degrees of freedom of the regression on a line."""
    matrix = np.stack([x, np.ones(len(x))], axis=1)
    values, (squares,), *_ = np.linalg.lstsq(matrix, seen, rcond=None)
    noise = np.sqrt(squares / (len(x) - 2))
    return values, noise**2 * np.linalg.inv(matrix.T @ matrix), noise, len(x) - 2


@pytest.mark.parametrize("kind", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("residuals", [by_where, by_weight], ids=["where", "weight"])
def test_a_fit_with_gaps_is_that_of_the_measured_points(residuals, kind):
    double = kind is np.float64
    rtol = 1e-8 if double else 1e-4
    with jax.enable_x64(double):
        # The order of a dictionary is that of its keys: the offset first.
        model = {name: jnp.array(value, kind) for name, value in MODEL.items()}
        gaps, rest = [(kind(x), kind(seen)) for x, seen in ((X, WITH_GAPS), (X[~GAPS], SEEN[~GAPS]))]
        fitted, _ = ds.fit_least_squares(residuals, model, gaps, progress=False)
        posterior, plain = ds.posterior(residuals, fitted, gaps), ds.posterior(residuals, fitted, rest)
        (slope, offset), covariance, noise, freedom = closed_form(X[~GAPS], SEEN[~GAPS])
        np.testing.assert_allclose((fitted["slope"], fitted["offset"]), (slope, offset), rtol=rtol)
        np.testing.assert_allclose(posterior.covariance, covariance[::-1, ::-1], rtol=rtol)
        assert float(posterior.noise) == pytest.approx(noise, rel=rtol)
        assert int(posterior.degrees_of_freedom) == freedom
        for observed in (False, True):
            bands = [
                b.credible_band(lambda m: m["slope"] * X.astype(kind), 0.9, include_noise=observed)
                for b in (posterior, plain)
            ]
            np.testing.assert_allclose(bands[0].high, bands[1].high, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kind", [np.float64, np.float32], ids=["float64", "float32"])
def test_a_profile_with_gaps_is_that_of_the_measured_points(kind):
    with jax.enable_x64(kind is np.float64):
        values, covariance, _, freedom = closed_form(X[~GAPS], SEEN[~GAPS])
        model = dict(zip(("slope", "offset"), jnp.asarray(values, kind), strict=True))
        profile = ds.profile_likelihood(by_where, model, (kind(X), kind(WITH_GAPS)), path="slope", level=0.9)
        reach = stats.t(freedom).ppf(0.95) * np.sqrt(covariance[0, 0])
        # Narrowed down to 1e-4 of the distance; float32 resolves the difference of two losses to about 1e-3.
        assert profile.high - profile.value == pytest.approx(reach, rel=2e-4 if kind is np.float64 else 3e-3)


def test_gaps_are_left_out_under_jit_and_vmap():
    data = (np.stack([X, X]), np.stack([WITH_GAPS, SEEN]))
    model = {"slope": jnp.array(2.0), "offset": jnp.array(0.5)}
    degrees = eqx.filter_jit(jax.vmap(lambda data: ds.posterior(by_where, model, data).degrees_of_freedom))(data)
    np.testing.assert_array_equal(degrees, [13, 18])


class Line(eqx.Module):
    slope: Scalar = param(2.0, "")
    offset: Scalar = param(0.5, "")


def test_a_residual_that_is_zero_by_chance_is_a_measurement():
    x, model = jnp.array([-1.0, 0.0, 1.0, 2.0]), Line()
    line = lambda model, seen: model.slope * x + model.offset - seen
    seen = line(model, 0.0) + jnp.array([0.1, 0.0, -0.1, 0.0])
    posterior = ds.posterior(line, model, seen)
    assert int(posterior.degrees_of_freedom) == 2
    assert float(posterior.noise) == pytest.approx(0.1, rel=1e-12)


def test_the_count_of_measurements_may_be_given():
    """A line through the origin, one measurement of which lies there exactly: it depends on no parameter."""
    x, seen = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 1.1, 1.9])
    through = lambda model, _: model["slope"] * x - seen
    slope = {"slope": jnp.sum(x * seen) / jnp.sum(x**2)}
    squares = float(jnp.sum(through(slope, None) ** 2))
    assert float(ds.posterior(through, slope).noise) == pytest.approx(np.sqrt(squares / 1))
    assert float(ds.posterior(through, slope, measurements=3).noise) == pytest.approx(np.sqrt(squares / 2))


def test_too_few_measurements_between_gaps_are_refused():
    seen = np.where(np.arange(20) < 2, SEEN, np.nan)
    model = {"slope": jnp.array(2.0), "offset": jnp.array(0.5)}
    message = r"2 residuals \(18 of 20 are masked\) cannot determine the noise and 2 parameters: give noise="
    with pytest.raises(InputError, match=message):
        ds.posterior(by_where, model, (X, seen))
    assert np.isfinite(ds.posterior(by_where, model, (X, seen), noise=0.1).std()).all()
    # Compiled code does not raise: the noise is not known.
    assert np.isnan(jax.jit(lambda seen: ds.posterior(by_where, model, (X, seen)).noise)(seen))


def test_data_with_nan_are_named():
    line = lambda model, data: model["slope"] * data["x"] + model["offset"] - data["seen"]
    model = {"slope": jnp.array(2.0), "offset": jnp.array(0.5)}
    message = r"5 of 20 residuals are not finite, the first is number 0; data\['seen'\] holds NaN in row 0 \(5 of 20"
    with pytest.raises(InputError, match=message):
        ds.posterior(line, model, {"x": X, "seen": WITH_GAPS})
