"""All problems, by family: `PROBLEMS` lists them, and `by_name` finds one."""

from ..problem import Problem
from . import balls, batches, clocks, coincidences, grazing, growth, guards, jumps, rest, smooth, switching

PROBLEMS: tuple[Problem, ...] = tuple(
    problem
    for module in (smooth, jumps, balls, coincidences, grazing, guards, switching, clocks, rest, growth, batches)
    for problem in module.PROBLEMS
)


def by_name(name: str) -> Problem:
    """Returns the problem of that name.

    Raises:
        KeyError: For a name that is not there.
    """
    return {problem.name: problem for problem in PROBLEMS}[name]
