"""Episodes in environments of Gymnasium's interface, and policies in files."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.control import episodes, load_policy, save_policy


class Countdown:
    """An environment that pays its action each step, and ends after as many steps as its seed says."""

    def reset(self, seed):
        self.left = seed
        return np.array([float(seed)]), {}

    def step(self, action):
        self.left -= 1
        assert self.left >= 0, "stepped after its end"
        return np.array([float(self.left)]), float(action), self.left == 0 and self.left % 2 == 0, self.left == 0, {}


def test_every_episode_runs_to_its_own_end():
    returns = episodes([Countdown(), Countdown(), Countdown()], [3, 1, 5], lambda seen: seen[:, 0])
    np.testing.assert_array_equal(returns, [3 + 2 + 1, 1, 5 + 4 + 3 + 2 + 1])


def policy(width=8):
    return ds.BoundedMLP(3, -1.0, 1.0, width=width, key=jr.key(0))


def test_a_policy_comes_back_as_it_was(tmp_path):
    trained = eqx.tree_at(lambda p: p.layers.layers[0].bias, policy(), jnp.arange(8.0))
    save_policy(trained, tmp_path / "policy.npz")
    back = load_policy(policy(), tmp_path / "policy.npz")
    assert eqx.tree_equal(back, trained)


def test_a_policy_that_is_not_finite_is_not_written(tmp_path):
    (tmp_path / "policy.npz").write_text("kept")
    bad = eqx.tree_at(lambda p: p.layers.layers[0].bias, policy(), jnp.full(8, jnp.nan))
    with pytest.raises(ds.InputError, match=r"layers.layers.0.bias' is not finite"):
        save_policy(bad, tmp_path / "policy.npz")
    assert (tmp_path / "policy.npz").read_text() == "kept"


def test_files_of_another_network_are_refused(tmp_path):
    save_policy(policy(width=9), tmp_path / "wide.npz")
    with pytest.raises(ds.InputError, match="does not hold this scenario's network"):
        load_policy(policy(), tmp_path / "wide.npz")
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(ds.InputError, match="is no checkpoint"):
        load_policy(policy(), tmp_path / "text.npz")
