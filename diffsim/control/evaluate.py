"""A policy in environments that somebody else wrote."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def episodes(environments: Sequence[Any], seeds: Sequence[int], act: Callable) -> Float[np.ndarray, " episodes"]:
    """The return of one episode in each environment, reset with the seed of its place.

    The environments have Gymnasium's interface. `act` gives the actions for the observations (episodes, n) of all of
    them, so that a policy is called once for each step of all episodes; those that have ended are passed over.
    """
    seen = np.stack([e.reset(seed=seed)[0] for e, seed in zip(environments, seeds, strict=True)])
    returns, running = np.zeros(len(seen)), np.ones(len(seen), bool)
    while running.any():
        actions = np.asarray(act(seen))
        for i in map(int, np.flatnonzero(running)):
            seen[i], reward, terminated, truncated, _ = environments[i].step(actions[i])
            returns[i] += reward
            running[i] = not (terminated or truncated)
    return returns
