"""What a fit returns with its model, and the error of a fit that failed."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from .._errors import RunError
from .._types import Model


class History(NamedTuple):
    """The course of a fit.

    Attributes:
        loss: The loss of each step.
        seconds: The wall time of the steps.
        compile_seconds: The wall time of compiling.
        dropped: The number of steps that were not finite and left out.
        validation: The validation loss after each compiled call, if there is one.
        stopped: What ended the fit before its last batch: "minutes", "patience" or "" for nothing.
        at_bound: The paths of the parameters that a least-squares fit or a minimizer left on a bound.
        status: For these fits the name of their `FitStatus` in lower case; for any fit "no_progress" if no step
            lowered the loss.
        message: A sentence that says how the fit ended, and what keeps it from moving.
        optimizer_state: The state of the optimizer after the last step of `fit`, with which another call goes on:
            `fit(..., optimizer_state=history.optimizer_state)`.

    Examples:
        >>> x, history = ds.fit(lambda x, _: x**2, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(4))
        >>> history.loss.tolist(), history.dropped, history.stopped
        ([1.0, 0.25, 0.0625, 0.015625], 0, '')
    """

    loss: Float[np.ndarray, " steps"]
    seconds: float
    compile_seconds: float
    dropped: int = 0
    validation: Float[np.ndarray, " calls"] | None = None
    stopped: str = ""
    at_bound: tuple[str, ...] = ()
    status: str = ""
    message: str = ""
    optimizer_state: PyTree = None

    @property
    def last_loss(self) -> float:
        """The last loss that is finite; NaN if there is none."""
        finite = self.loss[np.isfinite(self.loss)]
        return float(finite[-1]) if len(finite) else float("nan")

    def __repr__(self) -> str:
        """The first and the last loss, the number of steps, the times, and how the fit ended."""
        if not isinstance(self.loss, np.ndarray):
            return tuple.__repr__(self)
        steps_made = int(np.sum(~np.isnan(self.loss)))
        first = f"{self.loss[0]:.4g} -> " if steps_made > 1 else ""
        phrases = [f"loss {first}{self.last_loss:.4g} in {steps_made} of {len(self.loss)} steps"]
        phrases += [f"{self.seconds:.3g} s (and {self.compile_seconds:.3g} s of compiling)"]
        phrases += [f"{self.dropped} steps dropped"] if self.dropped else []
        phrases += [f"at its bound: {', '.join(self.at_bound)}"] if self.at_bound else []
        phrases += [self.message] if self.message else []
        return f"History({'; '.join(phrases)})"


class FitError(RunError):
    """A fit met a loss or gradient that is not finite, or its stream of batches failed or ended too early.

    Attributes:
        model: The model at which that happened, before an update by it; its parameters are finite.
        history: The history up to there.

    Examples:
        >>> try:
        ...     ds.fit(lambda x, _: jnp.log(x), jnp.array(1.0), optax.sgd(2.0), jnp.zeros(9))
        ... except ds.FitError as error:
        ...     print(error.history.loss[:2])
        [ 0. nan]
    """

    def __init__(self, message: str, model: Model, history: History):
        super().__init__(message)
        self.model, self.history = model, history
