"""Libraries asked in processes of their own, with a time limit, and what they say judged and written to files."""

import datetime
import json
import math
import os
import platform
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import outcomes, references
from .problem import Problem
from .problems import PROBLEMS
from .worker import MARK

STARTING = 120.0
"""Seconds for a process to import its library, which are not counted."""

DEFAULT_PYTHON = sys.executable
RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent  # the folder from which `conformance` is imported


class Worker:
    """A process that answers problems for one library; it is started again after a crash or at the time limit."""

    def __init__(self, library: str, python: str, limit: float, first_order: bool = False):
        self.command = [python, "-m", f"{__package__}.worker", library, *(["--first-order"] if first_order else [])]
        self.limit = limit
        self.process: subprocess.Popen | None = None
        self.version = ""
        self.unread = b""

    def ask(self, problem: Problem) -> dict:
        """Returns the reports of a problem; a crash or the time limit is a report too."""
        try:
            if self.process is None:
                self._begin()
            assert self.process is not None
            assert self.process.stdin is not None
            self.process.stdin.write(f"{problem.name}\n".encode())
            self.process.stdin.flush()
            return self._line(self.limit)
        except (OSError, TimeoutError) as error:
            self.stop()
            return {"reports": {"prepare": {"answer": None, "failure": str(error) or "the process ended"}}}

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _begin(self) -> None:
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=none, cwd=ROOT)
        self.unread = b""
        self.version = self._line(max(self.limit, STARTING))["version"]

    def _line(self, limit: float) -> dict:
        """The next answer of the process; other lines are what the library prints."""
        assert self.process is not None
        assert self.process.stdout is not None
        until = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                line, end, rest = self.unread.partition(b"\n")
                if end:
                    self.unread = rest
                    if line.startswith(MARK.encode()):
                        return json.loads(line[len(MARK) :])
                    continue
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"no answer in {limit:g} s")
                read = os.read(self.process.stdout.fileno(), 65536)
                if not read:
                    raise OSError(f"the process ended with exit code {self.process.wait()}")
                self.unread += read


def judged(problem: Problem, reports: dict, accepted: list[list[dict]], first_order: bool = False) -> dict:
    """Returns the outcome of each quantity, with its error, and a failure's words."""
    found: dict[str, dict[str, Any]] = {}
    for quantity in _asked(problem, accepted, first_order):
        report = reports.get(quantity) or reports.get("prepare") or reports["value"]
        if "missing" in report:
            found[quantity] = {"outcome": outcomes.MISSING, "words": report["missing"]}
            continue
        answers = report["answer"] if problem.batch else [report["answer"]]
        answers = answers if answers is not None else [None] * len(accepted)
        pairs = [outcomes.judge(problem, quantity, a, row) for a, row in zip(answers, accepted, strict=True)]
        errors = [error for _, error in pairs if error is not None]
        found[quantity] = {"outcome": outcomes.worst([outcome for outcome, _ in pairs])}
        if errors:
            found[quantity]["error"] = float(f"{max(errors):.2g}") if math.isfinite(max(errors)) else None
        found[quantity] |= {"words": report["failure"]} if "failure" in report else {}
        if found[quantity]["outcome"] in (outcomes.SILENT, outcomes.INACCURATE):
            found[quantity]["answer"] = _finite(report["answer"])
    return found


def _finite(answer):
    """An answer with None for what is not finite, which JSON does not have."""
    if isinstance(answer, list):
        return [_finite(part) for part in answer]
    return answer if answer is None or math.isfinite(answer) else None


def _asked(problem: Problem, accepted: list[list[dict]], first_order: bool) -> list[str]:
    """The quantities of a problem that are judged."""
    times = not problem.batch and bool(accepted[0]) and accepted[0][0]["event_times"] is not None
    names = ["value", "gradient"] if problem.batch or first_order else ["value", "gradient", "hvp"]
    return [*names, "event_times"] if times and problem.max_events else names


def run(
    library: str,
    names: list[str],
    python: str,
    limit: float,
    first_order: bool = False,
    folder: Path = RESULTS,
    say: Callable = print,
) -> dict:
    """Returns the results of a library, which are also written to FOLDER/LIBRARY.json after each problem.

    Args:
        library: The name of the library.
        names: The names of the problems.
        python: The Python in which the library is installed.
        limit: The most seconds for a problem.
        first_order: Whether to leave out Hessian-vector products; results that are there are kept.
        folder: Where the results are.
        say: Called with a line of text after each problem.
    """
    path = folder / f"{library}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"problems": {}}
    right = references.read()
    worker = Worker(library, python, limit, first_order)
    for problem in [problem for problem in PROBLEMS if problem.name in names]:
        answer = worker.ask(problem)
        if not worker.version:
            raise OSError(f"library {library!r} does not start with {python}: is it installed there?")
        verdict = judged(problem, answer["reports"], right[problem.name], first_order)
        before = results["problems"].get(problem.name, {}).get("quantities", {}) if first_order else {}
        results["problems"][problem.name] = {"quantities": before | verdict, **_cost(answer)}
        results |= {"library": library, "version": worker.version, **_about()}
        _write(path, results)
        say(f"{library}: {problem.name}: " + ", ".join(f"{q} {v['outcome']}" for q, v in verdict.items()))
    worker.stop()
    return results


def _cost(answer: dict) -> dict[str, float]:
    """Seconds of a problem, of a second call of its gradient, and peak memory."""
    gradient = answer["reports"].get("gradient", {})
    cost = {
        "seconds": answer.get("seconds"),
        "gradient_seconds": gradient.get("seconds_again"),
        "peak_mb": answer.get("peak_mb"),
    }
    return {key: float(f"{value:.3g}") for key, value in cost.items() if value is not None}


def _about() -> dict:
    return {"date": datetime.date.today().isoformat(), "machine": f"{platform.system()} {platform.machine()}"}


def _write(path: Path, results: dict) -> None:
    order = {problem.name: i for i, problem in enumerate(PROBLEMS)}
    kept = {name: entry for name, entry in results["problems"].items() if name in order}
    results["problems"] = dict(sorted(kept.items(), key=lambda pair: order[pair[0]]))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


def read(folder: Path = RESULTS) -> dict[str, dict]:
    """Returns the results of all libraries that have been run."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
