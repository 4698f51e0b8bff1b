"""What adapters return and raise, and what several of them need.

An adapter is a module with `version()`, which names the library's version, and `prepare(problem)`, which returns an
object with these methods, each for one vector `p` of parameters:

- `value(p)` returns an `Answer`;
- `gradient(p)` returns the derivatives with respect to the parameters;
- `hvp(p, v)` returns the Hessian times v;
- `batch(rows)`, for the problems that have a batch, returns an `Answer` and a gradient for each row of parameters,
  or a `Refused` in its place.

Each may raise `Refused` if the library reports a failure, and `NotExpressible` if there is no way of asking it. Any
other exception counts as a failure that the library reports.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class NotExpressible(Exception):
    """The library has no way of stating the problem, or of asking for the quantity."""


class Refused(Exception):
    """The library said that it failed."""


class Answer(NamedTuple):
    """The number that is measured, and the times of the events in their order."""

    value: float
    event_times: list[float]


def each(solver: Any, rows: Sequence[Sequence[float]]) -> list:
    """Returns answers and gradients of a batch by a loop, for libraries without a batch axis."""

    def one(row):
        try:
            return solver.value(row), solver.gradient(row)
        except Exception as error:
            return Refused(f"{type(error).__name__}: {error}"[:200])

    return [one(row) for row in rows]
