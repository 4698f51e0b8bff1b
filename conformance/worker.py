"""One library asked one problem after another, in this process: `python -m conformance.worker LIBRARY`.

Names of problems are read from the standard input, one a line; each is answered by one line of JSON on the standard
output, which starts with a marker so that whatever a library prints is not taken for it.
"""

import json
import os
import sys
import time
from pathlib import Path

from . import adapters
from .adapters.answers import Answer, NotExpressible, Refused
from .problem import Problem
from .problems import by_name

MARK = "conformance-answer "


def answers(library: str, problem: Problem, second_order: bool = True) -> dict:
    """Returns what a library says about a problem: a report for each quantity, and the peak memory in MB."""
    _forget_peak()
    before = time.process_time()
    try:
        solver = adapters.load(library).prepare(problem)
        reports = _batch(solver, problem) if problem.batch else _single(solver, problem, second_order)
    except Exception as error:
        reports = {"prepare": _failure(error)}
    return {"reports": reports, "seconds": time.process_time() - before, "peak_mb": _peak()}


def _single(solver, problem: Problem, second_order: bool) -> dict:
    """Reports of the quantities of a problem with one row of parameters; times are those of the processor."""
    p = list(problem.parameters)
    reports = {"value": _timed(lambda: solver.value(p))}
    answer = reports["value"]["answer"]
    if isinstance(answer, Answer):
        reports["value"]["answer"] = float(answer.value)
        reports["event_times"] = {"answer": [float(t) for t in answer.event_times]}
    reports["gradient"] = _timed(lambda: solver.gradient(p))
    if reports["gradient"]["answer"] is not None:
        reports["gradient"]["seconds_again"] = _timed(lambda: solver.gradient(p))["seconds"]
    if second_order:
        reports["hvp"] = _timed(lambda: solver.hvp(p, list(problem.direction)))
    return reports


def _batch(solver, problem: Problem) -> dict:
    """Reports of a batch: lists with an entry for each row, None where the row failed."""
    both = _timed(lambda: solver.batch([list(row) for row in problem.batch]))
    if both["answer"] is None:
        return {"value": both, "gradient": both}
    rows = [None if isinstance(row, Refused) else row for row in both["answer"]]
    values = [None if row is None else float(row[0].value) for row in rows]
    gradients = [None if row is None else [float(x) for x in row[1]] for row in rows]
    return {"value": both | {"answer": values}, "gradient": both | {"answer": gradients}}


def _timed(ask) -> dict:
    """The answer with its time, or the failure."""
    before = time.process_time()
    try:
        return {"answer": ask(), "seconds": time.process_time() - before}
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict:
    """The report of a failure, with the first line of what the library says."""
    if isinstance(error, NotExpressible):
        return {"answer": None, "missing": str(error)}
    words = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return {"answer": None, "failure": next(iter(words.strip().splitlines()), "")[:200]}


def _forget_peak() -> None:
    """Sets the peak memory of this process to the present memory, where the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> float:
    """The peak memory in MB, since it was last forgotten."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1e3
    import resource  # of Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Answers the problems that the standard input names."""
    library, second_order = sys.argv[1], "--first-order" not in sys.argv[2:]
    # What a library prints goes to the error output.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(MARK + json.dumps({"version": adapters.load(library).version()}), file=output, flush=True)
    for line in sys.stdin:
        report = answers(library, by_name(line.strip()), second_order)
        print(MARK + json.dumps(report), file=output, flush=True)


if __name__ == "__main__":
    main()
