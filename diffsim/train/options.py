"""What a fit may be told beside its loss, model, optimiser and data: when to save, to go on, to stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._errors import InputError
from .._types import Model, Scalar
from ..io.files import write_text
from .compiled_steps import Guard, Rule, State


class Checkpoint(NamedTuple):
    """The file a fit is saved in, and how often: after so many seconds or so many compiled calls, whichever is first.

    A fit is saved between calls; its start, its end and its last call before Ctrl-C in any case. Good values: a
    hundred times what saving takes, which is milliseconds for a small model.
    """

    path: str | Path
    seconds: float = 60.0
    calls: int | None = None


class NonFinite(NamedTuple):
    """What a fit does at a loss or gradient that is not finite; with `limit` such steps in a row it fails.

    "stop" fails at the first. "skip" drops the batch and keeps the state. "shrink" drops the batch, goes back to the
    state before the last step and multiplies the steps that follow by `factor`, which fades away over `recover` good
    steps: for a loss that fails where the last step led, and not because of one batch.
    """

    policy: str = "stop"
    limit: int = 10
    factor: float = 0.5
    recover: int = 20

    def rule(self) -> Rule | None:
        """The rule of the guarded steps, None for "stop"; raises InputError for values that make no sense."""
        if self.policy not in ("stop", "skip", "shrink"):
            raise InputError(f"non_finite={self.policy!r}: choose stop, skip or shrink")
        if self.limit < 1 or self.recover < 1 or not 0 < self.factor < 1:
            raise InputError(f"{self}: limit and recover are at least 1, factor lies between 0 and 1")
        return None if self.policy == "stop" else Rule(self.limit, self.factor, self.factor ** (-1 / self.recover))

    def guard(self, state: State, row: int = 0) -> Guard | None:
        """What the policy remembers at a state that `row` bad steps have led to; None for "stop"."""
        if self.policy == "stop":
            return None
        if self.policy == "skip":
            return Guard(jnp.array(row))
        return Guard(jnp.array(row), jnp.ones(()), (state.trained, state.memory))


class EarlyStopping(NamedTuple):
    """When a fit ends before its batches do.

    `minutes` of wall time, compiling included, counted anew when a fit is resumed. `validation(model)` is a scalar,
    taken after each compiled call; the fit then returns the model with the least one, and after `patience` calls
    without a lesser one it stops. NaN is never less; if it is all there is, the last model is returned.
    """

    minutes: float | None = None
    validation: Callable[[Model], Scalar] | None = None
    patience: int | None = None


TO_THE_END = EarlyStopping()


class FitProgress(NamedTuple):
    """What a fit shows between two compiled calls: steps made, and the losses of the call that made the last of them.

    `dropped` tells which of these steps were not finite and left out, `validation` is the validation loss, if there
    is one, and `model()` gives the model.
    """

    step: int
    losses: Float[np.ndarray, " steps"]
    dropped: Bool[np.ndarray, " steps"]
    validation: float | None
    model: Callable[[], Model]


class MetricsFile:
    """A callbacker of a fit that appends one JSON object for each compiled call to a file.

    Its entries are the `step` reached, the `loss` of the last step and the `mean` of the call's, the number `dropped`
    and the `validation` loss; numbers that are not finite become null. Lines of steps that are yet to come are taken
    out first: those of a fit that was killed after its last checkpoint, or all lines if it starts anew.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.begun = False

    def __call__(self, progress: FitProgress) -> None:
        if not self.begun:
            self._cut(progress.step - len(progress.losses))
        values = {"step": progress.step, "loss": progress.losses[-1], "mean": np.mean(progress.losses)}
        values |= {"dropped": int(np.sum(progress.dropped)), "validation": progress.validation}
        line = {name: _plain(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self.begun = True

    def _cut(self, first: int) -> None:
        """Leaves the whole lines of steps up to `first`."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first]
        write_text(self.path, "".join(kept))


def _plain(value: Array | np.ndarray | float | int | None):
    """A number for JSON."""
    if value is None or isinstance(value, int):
        return value
    return float(value) if np.isfinite(value) else None
