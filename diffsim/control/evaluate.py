"""Evaluation of a policy in environments with Gymnasium's interface."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def evaluate_episodes(
    environments: Sequence[Any], seeds: Sequence[int], act: Callable
) -> Float[np.ndarray, " episodes"]:
    """The return of one episode in each environment.

    Args:
        environments: Environments with Gymnasium's interface.
        seeds: The seed with which each environment is reset.
        act: `act(observations)`, the actions for the observations of all environments, shape (episodes, n). Those of
            ended episodes are included, so that one call of the policy serves one step of all episodes.

    Returns:
        The sum of the rewards of each episode, shape (episodes,).

    Examples:
        >>> import gymnasium
        >>> environments = [gymnasium.make("CartPole-v1") for _ in range(3)]
        >>> policy = lambda observations: (observations @ np.array([0.1, 0.3, 1.0, 1.0]) > 0).astype(int)
        >>> ds.control.evaluate_episodes(environments, range(3), policy).tolist()
        [500.0, 500.0, 500.0]
    """
    observations = np.stack([e.reset(seed=seed)[0] for e, seed in zip(environments, seeds, strict=True)])
    returns, running = np.zeros(len(observations)), np.ones(len(observations), bool)
    while running.any():
        actions = np.asarray(act(observations))
        for i in map(int, np.flatnonzero(running)):
            observations[i], reward, terminated, truncated, _ = environments[i].step(actions[i])
            returns[i] += reward
            running[i] = not (terminated or truncated)
    return returns
