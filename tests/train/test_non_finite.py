"""Steps that are not finite: dropped or reverted by the named policy, counted, and the end of a fit at the limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds


class Line(eqx.Module):
    slope: ds.Scalar = ds.param(1.0, "m/s", bounds=(-5.0, 5.0))
    offset: ds.Scalar = ds.param(0.0, "m")


LINE = Line()
X = jnp.linspace(-1.0, 2.0, 20)
Y = 2.0 * X + 0.5 + 0.3 * jnp.sin(7 * X)


def squares(line, bad):
    """A loss that is not finite, or whose gradient in one parameter is not, for the batches that say so."""
    value = jnp.mean((line.slope * X + line.offset - Y) ** 2)
    # The slope of a root is infinite at zero, and its value is not.
    root = jnp.sqrt(jnp.where(bad == 3, 0.0, 1.0) + 0.0 * line.offset)
    return value * jnp.where(bad == 1, jnp.nan, 1.0) + jnp.where(bad == 2, jnp.inf, 0.0) + 0.0 * root


ADAM = optax.adam(0.05)


def fit(bad, policy, loss=squares, optimizer=ADAM, model=LINE, **options):
    options = {"steps_per_call": 30, "progress": False, "non_finite": policy} | options
    return ds.fit(loss, model, optimizer, jnp.asarray(bad), **options)


def leaves(model):
    return np.array(jax.tree.leaves(model))


@pytest.mark.parametrize("policy", ["skip", "shrink"])
@pytest.mark.parametrize("seed", range(3))
def test_a_fit_with_20_spoiled_batches_ends_like_a_clean_one(policy, seed):
    bad = np.zeros(400, int)
    draw = np.random.default_rng(seed)
    bad[draw.choice(400, 20, replace=False)] = draw.integers(1, 4, 20)
    model, history = fit(bad, policy)
    clean, clean_history = fit(np.zeros(400, int), "stop")
    assert history.dropped == 20
    assert clean_history.dropped == 0
    assert squares(model, 0) == pytest.approx(float(squares(clean, 0)), rel=0.01)
    # The history has the losses that are not finite; if only the gradient is not finite, the loss has a value.
    assert np.array_equal(np.isfinite(history.loss), (bad == 0) | (bad == 3))


def test_a_skipped_batch_leaves_no_trace():
    bad = np.zeros(50, int)
    bad[[0, 7, 8, 30, 49]] = [1, 2, 3, 1, 3]
    model, history = fit(bad, "skip")
    expected, _ = fit(np.zeros(45, int), "skip")
    # The same 45 steps, divided into other calls.
    np.testing.assert_allclose(leaves(model), leaves(expected), rtol=1e-13)
    assert history.dropped == 5


@pytest.mark.parametrize("policy", ["skip", "shrink"])
def test_a_policy_that_is_not_needed_changes_nothing(policy):
    model, history = fit(np.zeros(50, int), policy)
    plain, plain_history = fit(np.zeros(50, int), "stop")
    # The same steps in another program.
    np.testing.assert_allclose(leaves(model), leaves(plain), rtol=1e-12)
    np.testing.assert_allclose(history.loss, plain_history.loss, rtol=1e-12)


def test_shrink_goes_back_and_makes_the_next_steps_smaller():
    """By hand, for a slope of 1 and gradient descent with rate 0.1: 0, -0.1, (bad: back to 0, halved), -0.05, ..."""
    policy = ds.train.NonFinite("shrink", factor=0.5, recover=1)
    loss = lambda x, bad: jnp.where(bad == 1, jnp.nan, x)
    for bad, expected in (
        ([0], -0.1),
        ([0, 1], 0.0),
        ([0, 1, 0], -0.05),
        # After one good step the factor is 1 again.
        ([0, 1, 0, 0], -0.15),
        ([0, 1, 1, 0], -0.025),
        # A state is known to be good once its loss is computed: one step is reverted, not two.
        ([0, 0, 0, 1], -0.2),
    ):
        model, history = fit(bad, policy, loss, optax.sgd(0.1), jnp.array(0.0))
        assert model == pytest.approx(expected, abs=1e-15)
        assert history.dropped == sum(bad)


def test_shrink_finds_a_way_past_a_cliff_that_skip_does_not():
    """From 3 the first step leads below zero, where x - log(x) is not; the least value is 1, at 1."""
    loss = lambda x, _: x - jnp.log(x)
    falling = optax.sgd(optax.cosine_decay_schedule(5.0, 300))
    model, history = fit(np.zeros(300), "shrink", loss, falling, jnp.array(3.0))
    # The rate ends below 2 / 300, and it has been below the 2 that is stable for a hundred steps.
    assert model == pytest.approx(1.0, abs=1e-6)
    assert history.dropped > 0
    with pytest.raises(ds.FitError, match="loss nan at step 10 of 300, the last of 10 in a row"):
        fit(np.zeros(300), "skip", loss, falling, jnp.array(3.0))


@pytest.mark.parametrize("policy", ["skip", "shrink"])
def test_the_limit_ends_a_fit_and_names_the_parameter(policy):
    bad = np.zeros(90, int)
    bad[40:] = 3
    message = (
        r"loss \d\.\d+ at step 43 of 90, the last of 4 in a row that are not finite; "
        r"the gradient of offset is not finite there; .*before that step"
    )
    with pytest.raises(ds.FitError, match=message) as failure:
        fit(bad, ds.train.NonFinite(policy, limit=4))
    expected, _ = fit(bad[: 40 if policy == "skip" else 39], "stop")
    np.testing.assert_allclose(leaves(failure.value.model), leaves(expected), rtol=1e-12)
    assert failure.value.history.dropped == 4
    assert np.all(np.isnan(failure.value.history.loss[44:]))


def test_the_limit_counts_steps_in_a_row_across_calls():
    bad = np.array(([0] + [1] * 3) * 30)
    _, history = fit(bad, ds.train.NonFinite("skip", limit=4))
    assert history.dropped == 90
    with pytest.raises(ds.FitError, match="at step 31 of 120, the last of 3 in a row"):
        fit(np.array([0] * 29 + [1] * 3 + [0] * 88), ds.train.NonFinite("skip", limit=3))


def test_an_update_that_is_not_finite_is_dropped():
    huge = optax.chain(optax.scale(1e300), optax.scale(1e300))
    with pytest.raises(ds.FitError) as failure:
        fit(np.zeros(30, int), "skip", optimizer=huge)
    assert np.all(np.isfinite(leaves(failure.value.model)))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("ignore", "non_finite='ignore': choose stop, skip or shrink"),
        (ds.train.NonFinite("skip", limit=0), "limit=0.*: limit and recover are at least 1"),
        (ds.train.NonFinite("shrink", factor=1.0), r"factor=1\.0.*factor lies between 0 and 1"),
    ],
)
def test_invalid_policies(policy, message):
    with pytest.raises(ds.InputError, match=message):
        fit(np.zeros(3, int), policy)
