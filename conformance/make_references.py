"""References of all problems: `python -m conformance.make_references` writes them to references.json.

Values are closed forms, to 30 digits, with derivatives by `mpmath.diff`, which computes differences in as many digits
as it needs. Where there is no closed form, Taylor series in 60 digits and differences of them give 20 digits.
"""

import json

import mpmath as mp

from .problem import Formula, Problem
from .problems import PROBLEMS
from .references import PATH
from .simulate import simulate

DIGITS = 30


def derivatives(function: Formula, p: list, direction: tuple[float, ...]) -> dict:
    """Returns value, gradient and Hessian-vector product of `function(p)`, by differences in many digits."""

    def along(i):
        """The function of a step in a parameter and a step in the direction."""
        unit = [mp.mpf(k == i) for k in range(len(p))]
        return lambda a, b: function([x + a * u + b * v for x, u, v in zip(p, unit, direction, strict=True)])

    count = range(len(p))
    return {
        "value": function(p),
        "gradient": [mp.diff(along(i), (0, 0), (1, 0)) for i in count],
        "hvp": [mp.diff(along(i), (0, 0), (1, 1)) for i in count],
    }


def few_runs(function: Formula, p: list, direction: tuple[float, ...]) -> dict:
    """Returns what `derivatives` does for a function that takes long: central differences with a step of 1e-15."""
    h = mp.mpf(10) ** -15

    def at(i, a, b):
        step = [h * (a * (k == i) + b * v) for k, v in enumerate(map(mp.mpf, direction))]
        return function([x + s for x, s in zip(p, step, strict=True)])

    def mixed(i):
        return (at(i, 1, 1) - at(i, 1, -1) - at(i, -1, 1) + at(i, -1, -1)) / (4 * h * h)

    count = range(len(p))
    gradient = [(at(i, 1, 0) - at(i, -1, 0)) / (2 * h) for i in count]
    return {"value": function(p), "gradient": gradient, "hvp": [mixed(i) for i in count]}


def reference(problem: Problem, exact: Formula | None, row: tuple[float, ...]) -> dict:
    """Returns value, gradient, Hessian-vector product and event times at one row of parameters, as text."""
    run = (lambda p: exact(mp, p)) if exact else (lambda p: simulate(problem, p))
    digits = DIGITS if exact else 20  # of 60, of which two differences take 15 each
    with mp.workdps(DIGITS + 10 if exact else 60):
        p = [mp.mpf(x) for x in row]
        differences = derivatives if exact else few_runs
        found = differences(lambda p: problem.measure(mp, run(p)), p, problem.direction)
        times = run(p).event_times
        found["event_times"] = None if times is None else list(times)
        write = lambda x: mp.nstr(mp.mpf(x), digits, strip_zeros=True)
        return {
            key: value if value is None else [write(x) for x in value] if isinstance(value, list) else write(value)
            for key, value in found.items()
        }


def references(problem: Problem) -> list[list[dict | None]]:
    """Returns for each row of parameters the references that are accepted; none for a row that has no solution."""
    rows = problem.batch or (problem.parameters,)
    return [
        [] if i in problem.failing else [reference(problem, exact, row) for exact in (problem.exact, *problem.others)]
        for i, row in enumerate(rows)
    ]


def main() -> None:
    """Writes the references of all problems."""
    found = {}
    for problem in PROBLEMS:
        print(problem.name, flush=True)
        found[problem.name] = references(problem)
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
