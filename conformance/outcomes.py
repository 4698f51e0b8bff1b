"""How an answer is judged: right, inaccurate, a silent failure, a loud failure, or not expressible."""

import math
from typing import Any

from .problem import Problem

RIGHT, INACCURATE, SILENT, LOUD, MISSING = "right", "inaccurate", "silent failure", "loud failure", "not expressible"
OUTCOMES = (RIGHT, INACCURATE, SILENT, LOUD, MISSING)
QUANTITIES = ("value", "gradient", "hvp", "event_times")
WORST_FIRST = (SILENT, INACCURATE, LOUD, MISSING, RIGHT)

FACTORS = {"value": 1.0, "gradient": 10.0, "hvp": 100.0, "event_times": 1.0}
"""How much larger the tolerance of a quantity is than that of the problem."""

SILENT_FROM = 0.01
"""The relative error from which a finite number without a warning is called a silent failure."""


def error(answer: Any, reference: Any, scale: float) -> float:
    """Returns the largest error relative to the largest entry of the reference, or to `scale` if that is larger.

    Lists of different lengths, as of events of which one is missing, have an infinite error; NaN is an error of NaN.
    """
    answer, reference = ([x] if isinstance(x, float | int) else list(x) for x in (answer, reference))
    if len(answer) != len(reference):
        return math.inf
    size = max([scale, *(abs(x) for x in reference)])
    errors = [abs(a - r) / size for a, r in zip(answer, reference, strict=True)]
    return math.nan if any(math.isnan(e) for e in errors) else max(errors, default=0.0)


def judge(problem: Problem, quantity: str, answer: Any, accepted: list[dict]) -> tuple[str, float | None]:
    """Returns the outcome of an answer and its smallest error over the references that are accepted.

    Args:
        problem: The problem.
        quantity: "value", "gradient", "hvp" or "event_times".
        answer: A number, a list of numbers, or None for a failure that was reported.
        accepted: References; none for a row of a batch without a solution, where only a failure is right.
    """
    numbers = [] if answer is None else [answer] if isinstance(answer, float | int) else list(answer)
    refused = answer is None or not all(math.isfinite(x) for x in numbers)
    if refused:
        return (RIGHT if problem.refusal or not accepted else LOUD), None
    if not accepted:
        return SILENT, None
    errors = [error(answer, one[quantity], problem.scale) for one in accepted if one[quantity] is not None]
    if not errors:
        return RIGHT, 0.0
    smallest = min(errors)
    if smallest <= problem.tolerance * FACTORS[quantity]:
        return RIGHT, smallest
    return (INACCURATE if smallest <= SILENT_FROM else SILENT), smallest


def worst(outcomes: list[str]) -> str:
    """Returns the worst of several outcomes; silent failures are the worst, since nobody notices them."""
    return next(outcome for outcome in WORST_FIRST if outcome in outcomes)
