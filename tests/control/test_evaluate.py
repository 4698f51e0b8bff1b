"""Episodes in environments of Gymnasium's interface."""

import numpy as np

from diffsim.control import evaluate_episodes


class Countdown:
    """An environment whose reward is the action, and which ends after as many steps as its seed."""

    def reset(self, seed):
        self.left = seed
        return np.array([float(seed)]), {}

    def step(self, action):
        self.left -= 1
        assert self.left >= 0, "stepped after its end"
        return np.array([float(self.left)]), float(action), self.left == 0 and self.left % 2 == 0, self.left == 0, {}


def test_every_episode_runs_to_its_own_end():
    returns = evaluate_episodes(
        [Countdown(), Countdown(), Countdown()], [3, 1, 5], lambda observations: observations[:, 0]
    )
    np.testing.assert_array_equal(returns, [3 + 2 + 1, 1, 5 + 4 + 3 + 2 + 1])
