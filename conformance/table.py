"""Tables of the results, in Markdown."""

from collections import Counter

from . import outcomes
from .adapters import LIBRARIES
from .problems import PROBLEMS

FIRST_ORDER = ("value", "gradient", "event_times")


def overall(entry: dict) -> str:
    """Returns the outcome of a problem: the worst of value, gradient and event times."""
    found = entry["quantities"]
    return outcomes.worst([found[quantity]["outcome"] for quantity in FIRST_ORDER if quantity in found])


def counts(results: dict) -> dict[str, Counter]:
    """Returns how often each outcome happened: "all", for each quantity, and right answers of each level."""
    problems = results["problems"]
    found: dict[str, Counter] = {"all": Counter(overall(entry) for entry in problems.values())}
    for quantity in outcomes.QUANTITIES:
        found[quantity] = Counter(
            entry["quantities"][quantity]["outcome"] for entry in problems.values() if quantity in entry["quantities"]
        )
    levels = {problem.name: problem.level for problem in PROBLEMS}
    found["levels"] = Counter(levels[name] for name, entry in problems.items() if overall(entry) == outcomes.RIGHT)
    return found


def ordered(results: dict[str, dict]) -> list[str]:
    """Returns the libraries that have results, in the order of `LIBRARIES`."""
    return [library for library in LIBRARIES if library in results]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def summary(results: dict[str, dict], quantity: str = "all") -> str:
    """Returns the table of outcomes by library, with the number of problems that it was not asked, if there are any."""
    total = sum(1 for problem in PROBLEMS if quantity == "all" or not problem.batch)
    rows, missing = [], []
    for library in ordered(results):
        found = counts(results[library])[quantity]
        name = f"{library} {results[library]['version']}"
        rows.append([name, *(str(found[outcome]) for outcome in outcomes.OUTCOMES)])
        missing.append(str(total - sum(found.values())))
    if set(missing) <= {"0"}:
        return markdown(["library", *outcomes.OUTCOMES], rows)
    rows = [[*row, count] for row, count in zip(rows, missing, strict=True)]
    return markdown(["library", *outcomes.OUTCOMES, "not asked"], rows)


def by_level(results: dict[str, dict]) -> str:
    """Returns the table of right answers by level."""
    sizes = Counter(problem.level for problem in PROBLEMS)
    rows = []
    for library in ordered(results):
        found = counts(results[library])["levels"]
        rows.append([library, *(f"{found[level]} of {size}" for level, size in sorted(sizes.items()))])
    return markdown(["library", *(f"level {level}" for level in sorted(sizes))], rows)


def by_problem(results: dict[str, dict]) -> str:
    """Returns the table of all problems: what each library answered, and about a failure which quantities it is of."""
    rows = []
    for problem in PROBLEMS:
        cells = [_cell(results[library]["problems"].get(problem.name)) for library in ordered(results)]
        rows.append([f"`{problem.name}`", str(problem.level), problem.about, *cells])
    return markdown(["problem", "level", "what it is", *ordered(results)], rows)


def _cell(entry: dict | None) -> str:
    if entry is None:
        return ""
    worst = outcomes.worst([found["outcome"] for found in entry["quantities"].values()])
    names = [
        q.replace("_", " ").replace("hvp", "Hessian")
        for q, found in entry["quantities"].items()
        if found["outcome"] == worst
    ]
    whole = len(names) == len(entry["quantities"])
    return worst if whole else f"{worst}: {', '.join(names)}"
