"""How a trajectory ended: a number per trajectory that compiled code can carry and a caller can act on."""

import enum

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int

_EXPLANATIONS = (
    "finished",
    "step limit: max_steps was reached or the step fell below the precision of t; "
    "raise max_steps, loosen rtol and atol, or use an implicit solver if the problem is stiff",
    "non-finite: the state or its derivative became NaN or infinite; look at the vector field there",
    "event not found: the final time came before any event was crossed; raise t1 or check the event's sign",
    "grazing: the event is touched rather than crossed, or events pile up; the event time has no derivative",
    "event limit: max_events was reached before t1; raise max_events",
    "invalid input: a time that is not finite, times that are not in order or nearer to each other than their number "
    "format resolves, or a tolerance or step size that is negative or not finite; correct it, or use float64",
)


class Status(enum.IntEnum):
    """How one trajectory ended. Above FINISHED, the values after the end are not to be trusted.

    Attributes:
        FINISHED: It ended as intended: at the last time, or at an event that ends it.
        STEP_LIMIT: `max_steps` was reached, or the step fell below the precision of the time.
        NON_FINITE: The state or its derivative became NaN or infinite.
        EVENT_NOT_FOUND: The final time came before any event.
        GRAZING: The event is touched rather than crossed, or events pile up; its time has no derivative.
        EVENT_LIMIT: `max_events` was reached before the final time.
        INVALID_INPUT: The times, the tolerances or the step size make no sense.

    Examples:
        >>> solution = ds.solve(lambda t, y, _: -y, jnp.array(1.0), jnp.array([0.0, 9.0]), max_steps=2)
        >>> status = ds.Status(int(solution.status))
        >>> print(status.name, "-", status.explanation.split(";")[0])
        STEP_LIMIT - step limit: max_steps was reached or the step fell below the precision of t
    """

    FINISHED = 0
    STEP_LIMIT = 1
    NON_FINITE = 2
    EVENT_NOT_FOUND = 3
    GRAZING = 4
    EVENT_LIMIT = 5
    INVALID_INPUT = 6

    @property
    def explanation(self) -> str:
        """What the status means and what to do about it."""
        return _EXPLANATIONS[self]


def finished(status: Int[ArrayLike, "..."]) -> Bool[Array, "..."]:
    """Returns whether each trajectory ended as intended: its `status` is FINISHED.

    Examples:
        >>> rates = jnp.array([1.0, jnp.nan])
        >>> solve = lambda rate: ds.solve(lambda t, y, rate: -rate * y, jnp.array(1.0), jnp.array([0.0, 1.0]), rate)
        >>> ds.finished(jax.vmap(solve)(rates).status).tolist()
        [True, False]
    """
    return jnp.asarray(status) == Status.FINISHED


def count_statuses(status: Int[ArrayLike, "..."]) -> dict[str, int]:
    """Returns how many trajectories ended with each status, by its name in lower case. Not for compiled code.

    Examples:
        >>> ds.ode.count_statuses(jnp.array([0, 0, 1, 0]))
        {'finished': 3, 'step_limit': 1}
    """
    values, counts = np.unique(np.asarray(status), return_counts=True)
    return {Status(value).name.lower(): int(count) for value, count in zip(values, counts, strict=True)}
