"""The loss over starts, and policies in files: unchanged, of another size, not finite."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.control import check_finite, mean_cost


def policy(width=8):
    return ds.BoundedMLP(3, -1.0, 1.0, width=width, key=jr.key(0))


def costs(gain, start, length, decay):
    return gain * decay * start[0] * jnp.arange(1.0, length + 1)


def test_the_loss_is_the_mean_over_starts_and_steps_and_one_object():
    loss = mean_cost(costs, 3)
    starts = jnp.array([[1.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(loss(2.0, (starts, 0.5)), 2.0 * 0.5 * 2.0 * 2.0, rtol=1e-12)
    assert mean_cost(costs, 3) is loss
    assert mean_cost(costs, 4) is not loss


def test_a_policy_comes_back_as_it_was(tmp_path):
    trained = eqx.tree_at(lambda p: p.layers.layers[0].bias, policy(), jnp.arange(8.0))
    ds.save(tmp_path / "policy.npz", trained)
    assert eqx.tree_equal(check_finite(ds.load(tmp_path / "policy.npz", policy())), trained)


def test_a_policy_that_is_not_finite_is_refused():
    bad = eqx.tree_at(lambda p: p.layers.layers[0].bias, policy(), jnp.full(8, jnp.nan))
    with pytest.raises(ds.InputError, match=r"layers.layers.0.bias' of the policy is not finite"):
        check_finite(bad)


def test_a_network_of_another_size_is_refused(tmp_path):
    ds.save(tmp_path / "wide.npz", policy(width=9))
    with pytest.raises(ds.InputError, match=r"has shape .*9.*expected .*8"):
        ds.load(tmp_path / "wide.npz", policy())
