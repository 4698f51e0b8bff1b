"""The options of a fit: when to save, what to do with steps that are not finite, when to stop, what to report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from .._errors import InputError
from .._types import Model, Scalar
from ..io.files import write_text
from ..io.json_encoding import json_line
from .compiled_steps import NonFiniteRule, NonFiniteState, TrainState


class Checkpoint(NamedTuple):
    """The file in which a fit is saved, and how often.

    A fit is saved between compiled calls, when one of the two intervals has passed; in any case at its start, at its
    end, and after its last call before Ctrl-C. Good values: a hundred times what saving takes, which is milliseconds
    for a small model.

    Attributes:
        path: The file.
        seconds: The wall time between two savings.
        calls: The number of compiled calls between two savings; None for no such limit.

    Examples:
        >>> checkpoint = ds.Checkpoint("fit.ckpt", seconds=600.0)
        >>> loss = lambda x, target: (x - target) ** 2
        >>> first, _ = ds.fit(loss, jnp.array(0.0), optax.sgd(0.1), jnp.ones(8), checkpoint=checkpoint)
        >>> again, _ = ds.fit(loss, jnp.array(0.0), optax.sgd(0.1), jnp.ones(8), checkpoint=checkpoint)  # from the file
        >>> bool(first == again)
        True
    """

    path: str | Path
    seconds: float = 60.0
    calls: int | None = None


class NonFinite(NamedTuple):
    """What a fit does at a loss or gradient that is not finite.

    Attributes:
        policy: "stop" fails at the first such step. "skip" drops the batch and keeps the state. "shrink" drops the
            batch, returns to the state before the last step and multiplies the following updates by `factor`: for a
            loss that fails where the last step led, and not because of one batch.
        limit: The number of such steps in a row at which "skip" and "shrink" fail.
        factor: For "shrink", between 0 and 1.
        recover: For "shrink", the number of good steps over which the factor grows back to 1.

    Examples:
        >>> skip = ds.train.NonFinite("skip", limit=3)
        >>> batches = jnp.array([1.0, jnp.nan, 1.0, 1.0])
        >>> x, history = ds.fit(lambda x, b: b * x**2, jnp.array(1.0), optax.sgd(0.25), batches, non_finite=skip)
        >>> float(x), history.dropped
        (0.125, 1)
    """

    policy: str = "stop"
    limit: int = 10
    factor: float = 0.5
    recover: int = 20

    def rule(self) -> NonFiniteRule | None:
        """The rule of the guarded steps, None for "stop"; raises InputError for values out of range."""
        if self.policy not in ("stop", "skip", "shrink"):
            raise InputError(f"non_finite={self.policy!r}: choose stop, skip or shrink")
        if self.limit < 1 or self.recover < 1 or not 0 < self.factor < 1:
            raise InputError(f"{self}: limit and recover are at least 1, factor lies between 0 and 1")
        if self.policy == "stop":
            return None
        return NonFiniteRule(self.limit, self.factor, self.factor ** (-1 / self.recover))

    def state(self, train_state: TrainState, bad_in_a_row: int = 0) -> NonFiniteState | None:
        """The policy's state after so many bad steps in a row; None for "stop"."""
        if self.policy == "stop":
            return None
        if self.policy == "skip":
            return NonFiniteState(jnp.array(bad_in_a_row))
        return NonFiniteState(jnp.array(bad_in_a_row), jnp.ones(()), (train_state.trained, train_state.opt_state))


class EarlyStopping(NamedTuple):
    """When a fit ends before all batches are used.

    Attributes:
        minutes: The limit of wall time, including compilation. A fit that is resumed has all of it again.
        validation: `validation(model)`, a scalar that is computed after each compiled call. The fit then returns the
            model with the least value. NaN is never less; if there is nothing else, the last model is returned.
        patience: The number of compiled calls without a lesser validation loss after which the fit stops.

    Examples:
        >>> stopping = ds.EarlyStopping(validation=lambda x: abs(x - 0.5), patience=2)
        >>> loss, batches = lambda x, _: x**2, jnp.zeros(50)
        >>> x, history = ds.fit(
        ...     loss, jnp.array(1.0), optax.sgd(0.25), batches, steps_per_call=1, early_stopping=stopping
        ... )
        >>> float(x), history.stopped, history.loss.size
        (0.5, 'patience', 3)
    """

    minutes: float | None = None
    validation: Callable[[Model], Scalar] | None = None
    patience: int | None = None


NO_EARLY_STOPPING = EarlyStopping()


class FitProgress(NamedTuple):
    """What a fit passes to its callback after each compiled call.

    Attributes:
        step: The number of steps made.
        losses: The losses of the steps of this call.
        dropped: Which of these steps were not finite and left out.
        validation: The validation loss, if there is one.
        model: A function without arguments that returns the model; called only if needed, since it takes time.
        total: The number of steps of the fit; None for a stream of which nobody knows it.

    Examples:
        >>> show = lambda progress: print(progress.step, progress.losses, progress.model())
        >>> loss, batches = lambda x, _: x**2, jnp.zeros(4)
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), batches, steps_per_call=2, callback=show)
        2 [1.   0.25] 0.25
        4 [0.0625   0.015625] 0.0625
    """

    step: int
    losses: Float[np.ndarray, " steps"]
    dropped: Bool[np.ndarray, " steps"]
    validation: float | None
    model: Callable[[], Model]
    total: int | None


class MetricsFile:
    """A callback of a fit that appends one JSON object for each compiled call to a file.

    Its entries are the number of the last `step`, the `loss` of that step, the `mean` loss of the call, the number of
    steps `dropped` and the `validation` loss. Numbers that are not finite become null. Lines of later steps are removed
    first: those that a fit wrote after its last checkpoint before it was killed, or all lines if the fit starts again.

    Args:
        path: The file.

    Examples:
        >>> metrics, loss = ds.train.MetricsFile("metrics.jsonl"), lambda x, _: x**2
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(4), callback=metrics)
        >>> with open("metrics.jsonl") as file:
        ...     print(file.read().strip())
        {"step": 4, "loss": 0.015625, "mean": 0.33203125, "dropped": 0, "validation": null}
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.is_truncated = False

    def __call__(self, progress: FitProgress) -> None:
        if not self.is_truncated:
            self._truncate(progress.step - len(progress.losses))
        values = {"step": progress.step, "loss": progress.losses[-1], "mean": np.mean(progress.losses)}
        values |= {"dropped": int(np.sum(progress.dropped)), "validation": progress.validation}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_line(values) + "\n")
        self.is_truncated = True

    def _truncate(self, last_step: int) -> None:
        """Removes lines of steps after `last_step` and a line that is cut short."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        valid = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
        write_text(self.path, "".join(valid))
