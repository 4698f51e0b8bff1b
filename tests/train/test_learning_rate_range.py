"""The learning-rate range test on quadratics, whose rates are known in closed form, and on fits that fail."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim.train.learning_rate_range import first_diverged

CURVATURE, STEPS = 10.0, 200
RANGE = {"lowest": 1e-4, "highest": 10.0}
FACTOR = (RANGE["highest"] / RANGE["lowest"]) ** (1 / (STEPS - 1))
NOISE = 0.01 * jax.random.normal(jax.random.key(0), (STEPS,))
START = jnp.array(1.0)


def quadratic(x, noise):
    return 0.5 * CURVATURE * (x - noise) ** 2


def test_rates_of_a_quadratic():
    """Gradient descent diverges above 2 / c. Below, loss(rate) = exp(-2 c rate / ln q), steepest at ln q / (2 c)."""
    test = ds.train.learning_rate_range(quadratic, START, optax.sgd, NOISE, **RANGE)
    np.testing.assert_allclose(test.rates[1:] / test.rates[:-1], FACTOR)
    # The window of the smoothing reaches ten steps to either side, and the fall is not symmetric.
    assert abs(np.log(test.suggested / (np.log(FACTOR) / (2 * CURVATURE)))) < 10 * np.log(FACTOR)
    # Noise of the size of the least losses takes some steps to grow by four.
    assert 2 / CURVATURE < test.divergence < 2 / CURVATURE * FACTOR**15
    assert len(test.rates) == len(test.losses) == len(test.smoothed) < STEPS
    until = test.rates < test.divergence
    assert np.isfinite(test.smoothed[until]).all()
    assert np.isnan(test.smoothed[~until]).all()
    assert repr(test).startswith(f"LearningRateRange(suggested {test.suggested:.3g}, diverges at {test.divergence:.3g}")


def test_losses_are_those_of_a_fit_with_the_rates():
    test = ds.train.learning_rate_range(quadratic, START, optax.sgd, NOISE, **RANGE)
    x = 1.0
    for rate, noise, loss in zip(test.rates[:100], np.asarray(NOISE), test.losses, strict=False):
        assert loss == pytest.approx(0.5 * CURVATURE * (x - noise) ** 2, rel=1e-5)
        x -= rate * CURVATURE * (x - noise)


def test_without_divergence_all_rates_are_made():
    test = ds.train.learning_rate_range(quadratic, START, optax.sgd, NOISE, lowest=1e-4, highest=0.1)
    assert test.divergence is None
    assert len(test.losses) == STEPS
    assert "does not diverge; 200 rates from 0.0001 to 0.1" in repr(test)


def test_a_loss_that_is_not_finite_ends_the_test():
    """The logarithm of a negative number is NaN: the first step of rate r reaches 1 - r."""
    loss = lambda x, noise: jnp.log(x) + 0 * noise
    test = ds.train.learning_rate_range(loss, START, optax.sgd, NOISE, **RANGE)
    assert np.isnan(test.losses[test.rates >= test.divergence][0])
    assert np.isfinite(test.losses[test.rates < test.divergence]).all()
    assert test.suggested < test.divergence


def test_a_loss_that_never_falls_suggests_no_rate():
    test = ds.train.learning_rate_range(lambda x, noise: 1.0 + 0 * x * noise, START, optax.adam, NOISE, **RANGE)
    assert np.isnan(test.suggested)
    assert test.divergence is None


def test_parameters_may_be_chosen():
    model = {"a": START, "b": START}
    loss = lambda model, noise: quadratic(model["a"], noise) + quadratic(model["b"], 0.0)
    spec = ds.trainable(model, "a")
    test = ds.train.learning_rate_range(loss, model, optax.sgd, NOISE, filter_spec=spec, **RANGE)
    assert np.nanmin(test.losses) >= 0.5 * CURVATURE


def test_divergence_is_found_for_losses_of_any_sign_and_not_at_outliers():
    falling = np.linspace(5.0, 1.0, 30)
    assert first_diverged(falling) is None
    assert first_diverged(np.append(falling, np.full(6, 5.5))) == 30
    assert first_diverged(falling - 6.0) is None
    outlier = falling.copy()
    outlier[20] = 1e3
    assert first_diverged(outlier) is None
    outlier[20] = np.inf
    assert first_diverged(outlier) == 20
    # Noise, and rounding errors, of a loss that has fallen to nothing.
    assert first_diverged(np.append(falling, [1e-20] * 9 + [1e-18] * 9 + [0.1] * 9)) is None


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": NOISE[:19]}, "batches have 19 steps: a range test takes at least 20, better a hundred"),
        ({"lowest": 1.0, "highest": 0.1}, "lowest=1, highest=0.1: give rates with 0 < lowest < highest"),
        ({"lowest": 0.0}, "lowest=0, highest=1: give rates with 0 < lowest"),
        ({"highest": np.inf}, "lowest=1e-06, highest=inf: give rates"),
        ({"optimizer": optax.sgd(0.1)}, "has its learning rate already: give the function that makes it, such as"),
        ({"optimizer": lambda rate: rate}, "is no optimizer"),
    ],
    ids=["batches", "order", "zero", "infinite", "optimizer", "no optimizer"],
)
def test_bad_arguments(change, message):
    arguments = {"loss": quadratic, "model": START, "optimizer": optax.sgd, "batches": NOISE} | change
    with pytest.raises(ds.InputError, match=message):
        ds.train.learning_rate_range(**arguments)


def test_a_loss_that_is_not_finite_from_the_start_is_reported():
    with pytest.raises(ds.RunError, match="the loss diverges at its step 1 of a range test, at the rate 1e-06: start"):
        ds.train.learning_rate_range(lambda x, noise: jnp.log(-x) + noise, START, optax.sgd, NOISE)
