"""Profile likelihood: closed forms of linear and of one-parameter models, ends on bounds, better fits elsewhere."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import diffsim as ds
from diffsim import InputError, RunError, Scalar, param

X = jnp.linspace(-1.0, 2.0, 20)
SEEN = 2.0 * X + 0.5 + 0.3 * jnp.sin(9 * X)


class Line(eqx.Module):
    slope: Scalar = param(1.0, "m/s", bounds=(-5.0, 5.0))
    offset: Scalar = param(0.1, "m")


def line(model, seen):
    return model.slope * X + model.offset - seen


def test_the_profile_of_a_line_is_its_students_interval():
    model, _ = ds.fit_least_squares(line, Line(), SEEN, progress=False)
    profile = ds.profile_likelihood(line, model, SEEN, path="offset", level=0.95)
    reach = stats.t(18).ppf(0.975) * float(ds.posterior(line, model, SEEN).std()[1])
    # Narrowed down to 1e-4 of the distance.
    assert profile.high - profile.value == pytest.approx(reach, rel=2e-4)
    assert profile.value - profile.low == pytest.approx(reach, rel=2e-4)
    assert profile.open == (False, False)
    # A straight line in standard deviations.
    slope = stats.t(18).ppf(0.975) / reach
    np.testing.assert_allclose(profile.points[:, 1], slope * (profile.points[:, 0] - profile.value), atol=1e-6)


class Decay(eqx.Module):
    rate: Scalar = param(1.0, "1/s", bounds=(0.0, np.inf))


def test_a_curved_model_has_an_interval_that_is_not_symmetric():
    """One parameter and known noise: the ends solve 2 (loss - least) = quantile^2."""
    ts = jnp.linspace(0.0, 3.0, 15)
    residuals = lambda model, seen: jnp.exp(-model.rate * ts) - seen
    seen = jnp.exp(-2.0 * ts)
    profile = ds.profile_likelihood(residuals, Decay(rate=2.0), seen, path="rate", noise=0.2)
    for end in (profile.low, profile.high):
        excess = np.sum(np.square(residuals(Decay(rate=end), seen))) / 0.04
        assert excess == pytest.approx(stats.chi2(1).ppf(0.9), rel=3e-4)
    assert profile.high - 2.0 > 1.5 * (2.0 - profile.low)


def test_ends_on_a_bound_or_at_infinity_are_open():
    model, _ = ds.fit_least_squares(line, Line(), 4.9 * X, progress=False)
    wide = ds.profile_likelihood(line, model, 4.9 * X, path="slope", noise=1.0)
    assert (wide.high, wide.open) == (5.0, (False, True))
    # On the bound itself, with the other parameter fitted again.
    model, _ = ds.fit_least_squares(line, Line(), 6.0 * X, progress=False)
    on = ds.profile_likelihood(line, model, 6.0 * X, path="slope", noise=1.0)
    assert (on.value, on.high, on.open) == (5.0, 5.0, (False, True))
    assert on.low < 5.0
    nothing = lambda model, seen: line(eqx.tree_at(lambda m: m.offset, model, model.slope * 0), seen)
    model, _ = ds.fit_least_squares(nothing, Line(), SEEN, progress=False)
    flat = ds.profile_likelihood(nothing, model, SEEN, path="offset")
    assert (flat.low, flat.high, flat.open) == (-np.inf, np.inf, (True, True))


def test_others_on_their_bounds_are_fitted_again():
    model, history = ds.fit_least_squares(line, Line(), 6.0 * X, progress=False)
    assert history.at_bound == ("slope",)
    profile = ds.profile_likelihood(line, model, 6.0 * X, path="offset", noise=1.0)
    assert profile.low < float(model.offset) < profile.high


def test_a_better_fit_elsewhere_is_reported():
    with pytest.raises(RunError, match=r"offset=.* fits better .* than the model given .*: fit it again from there"):
        ds.profile_likelihood(line, Line(slope=2.0, offset=3.0), SEEN, path="offset", noise=0.1)


def test_the_parameter_must_be_one_that_trains():
    with pytest.raises(InputError, match=r"path='gain': give one trained number, one of slope, offset"):
        ds.profile_likelihood(line, Line(), SEEN, path="gain")
    with pytest.raises(InputError, match=r"path='offset': give one trained number, one of slope"):
        ds.profile_likelihood(line, Line(), SEEN, path="offset", filter_spec=ds.trainable(Line(), "slope"))
