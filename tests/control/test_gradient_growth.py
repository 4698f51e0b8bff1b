"""The growth of gradients against its closed form, the warning with its numbers, the curriculum's weights."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, rollout
from diffsim.control import compare_gradient_growth, gradient_growth, horizon_weights

STARTS = jnp.array([0.5, -1.0, 2.0])


def costs(factor, start, decay=1.0):
    """x after each of 40 steps of x -> factor x: its derivative in the start is factor^k decay^k."""
    return rollout(lambda x, _: factor * x, start, length=40, decay=decay)[1]


def test_growth_of_a_linear_step_is_its_power():
    growth = gradient_growth(costs, jnp.array(1.2), STARTS, lengths=[1, 5, 20, 40])
    np.testing.assert_allclose(growth.norm_initial_state, 1.2 ** np.array([1, 5, 20, 40]), rtol=1e-12)
    k = np.array([1, 5, 20, 40])
    # d(a^k x)/da = k a^(k-1) x, root mean square over the starts.
    rms = np.sqrt(np.mean(np.asarray(STARTS) ** 2))
    np.testing.assert_allclose(growth.norm_model, k * 1.2 ** (k - 1) * rms, rtol=1e-12)


def test_useful_length_is_where_the_growth_passes_the_limit():
    lengths = np.arange(1, 41)
    growth = gradient_growth(costs, jnp.array(1.2), STARTS, lengths=lengths, limit=10.0)
    # 1.2^(k - 1) <= 10 for k - 1 <= 12.6.
    assert growth.useful_horizon == 13
    assert gradient_growth(costs, jnp.array(0.9), STARTS).useful_horizon == 40
    damped = lambda factor, start: costs(factor, start, decay=0.8)
    assert gradient_growth(damped, jnp.array(1.2), STARTS, limit=10.0).useful_horizon == 40


def test_the_true_growth_and_the_decaying_one_differ_by_the_decay():
    growths = compare_gradient_growth(costs, jnp.array(1.2), STARTS, 0.9)
    steps = growths["true"].lengths
    np.testing.assert_allclose(
        growths["decaying"].norm_initial_state, growths["true"].norm_initial_state * 0.9**steps, rtol=1e-12
    )


def test_default_lengths_span_the_rollout():
    growth = gradient_growth(costs, jnp.array(1.0), STARTS)
    assert (growth.lengths[0], growth.lengths[-1]) == (1, 40)
    assert np.all(np.diff(growth.lengths) > 0)


def test_a_horizon_longer_than_the_useful_one_warns_with_the_number():
    growth = gradient_growth(costs, jnp.array(1.2), STARTS, lengths=range(1, 41), limit=10.0)
    with pytest.warns(UserWarning, match=r"horizon of 30 steps is longer than the useful one of 13: .* 198 times"):
        growth.warn(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        growth.warn(13)


@pytest.mark.parametrize("lengths", [[0, 3], [41], []], ids=str)
def test_lengths_beyond_the_rollout_are_named(lengths):
    with pytest.raises(InputError, match="of a rollout of 40 steps"):
        gradient_growth(costs, jnp.array(1.0), STARTS, lengths=lengths)


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        gradient_growth(costs, jnp.array(jnp.nan), STARTS)


def test_weights_count_the_steps_up_to_the_horizon():
    np.testing.assert_allclose(horizon_weights(3, 5), [1 / 3, 1 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(horizon_weights(1.5, 3), [1 / 1.5, 0.5 / 1.5, 0])
    np.testing.assert_allclose(horizon_weights(9, 2), [0.5, 0.5])


def test_weighted_costs_have_the_gradient_of_the_shorter_rollout():
    """A curriculum compiles once: the horizon is data."""
    cut = jax.jit(jax.grad(lambda a, horizon: jnp.sum(horizon_weights(horizon, 40) * costs(a, STARTS[0]))))
    for horizon in (1, 7, 40):
        short = lambda a, n=horizon: jnp.mean(rollout(lambda x, _: a * x, STARTS[0], length=n)[1])
        np.testing.assert_allclose(cut(jnp.array(1.1), horizon), jax.grad(short)(jnp.array(1.1)), rtol=1e-12)
