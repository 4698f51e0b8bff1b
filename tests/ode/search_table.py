"""What random searches find, and their command line: a row for each kind of systems and seed."""

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np

from diffsim import Status


class Outcome(NamedTuple):
    """For each system: its status, and the errors of value and derivative in units of the tolerance."""

    status: np.ndarray
    value: np.ndarray
    slope: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """The systems that ended FINISHED with a wrong number."""
        worst = np.maximum(self.value, self.slope)
        return np.flatnonzero((self.status == Status.FINISHED) & ~(worst <= 1.0))


def print_table(description: str | None, kinds: Iterable[str], outcome: Callable) -> None:
    """Prints how many systems failed and how many are wrong.

    `outcome(kind, seed, count)` returns a status of each system, errors in units of their limits, and the `wrong` ones.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seeds", default="0:6")
    parser.add_argument("--kinds", nargs="*", default=list(kinds))
    words = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(f"{'kind':12s} {'seed':>5s} {'systems':>8s} {'failed':>7s} {'wrong':>6s}  worst errors (1: limit)")
    total = np.zeros(3, int)
    for kind in words.kinds:
        for seed in range(*map(int, words.seeds.split(":"))):
            result = outcome(kind, seed, words.count)
            good = result.status == Status.FINISHED
            row = len(good), int(np.sum(~good)), len(result.wrong)
            total += row
            worst = ", ".join(f"{np.max(x[good], initial=0.0):.2g}" for x in result[1:])
            print(f"{kind:12s} {seed:5d} {row[0]:8d} {row[1]:7d} {row[2]:6d}  {worst}  {result.wrong[:8]}", flush=True)
    print(f"{'all':12s} {'':5s} {total[0]:8d} {total[1]:7d} {total[2]:6d}")
