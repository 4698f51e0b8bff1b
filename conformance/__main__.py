"""The command line: `python -m conformance run`, `list`, `table` or `picture`."""

import argparse
import sys
from pathlib import Path

from . import references, runner, table
from .adapters import LIBRARIES
from .problems import PROBLEMS


class UsageError(Exception):
    """A mistake on the command line."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 if the work failed, 2 for a mistake on the command line."""
    try:
        arguments = _parser().parse_args(argv)
        return arguments.command(arguments) or 0
    except UsageError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    except SystemExit as ended:
        return int(ended.code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("conformance", description="A yardstick for gradients of hybrid ODE systems.")
    parser.add_argument("--results", type=Path, default=runner.RESULTS, metavar="FOLDER", help="where the results are")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="ask libraries, and write results/LIBRARY.json")
    run.add_argument("--library", nargs="+", default=list(LIBRARIES), metavar="NAME", help=", ".join(LIBRARIES))
    run.add_argument("--problem", nargs="+", default=[], metavar="NAME", help="all by default; see `list`")
    run.add_argument("--python", default=runner.DEFAULT_PYTHON, help="the Python in which the libraries are installed")
    run.add_argument("--limit", type=float, default=600.0, help="seconds of the clock for each problem (600)")
    run.add_argument("--first-order", action="store_true", help="leave Hessian-vector products out, which take longest")
    run.set_defaults(command=_run)
    listing = commands.add_parser("list", help="the problems")
    listing.set_defaults(command=_list)
    tables = commands.add_parser("table", help="the tables of the results")
    tables.set_defaults(command=_table)
    picture = commands.add_parser("picture", help="the picture of the results (needs matplotlib)")
    picture.add_argument("path", help="the file, such as conformance.png")
    picture.set_defaults(command=_picture)
    return parser


def _check(kind: str, names: list[str], known: list[str]) -> list[str]:
    """The names, if all of them are known."""
    for name in names:
        if name not in known:
            raise UsageError(f"{kind} {name!r} is not known: choose from {', '.join(known)}")
    return names or known


def _run(arguments) -> None:
    libraries = _check("library", arguments.library, list(LIBRARIES))
    names = _check("problem", arguments.problem, [problem.name for problem in PROBLEMS])
    if not arguments.limit > 0:
        raise UsageError(f"--limit {arguments.limit:g}: the time limit has to be positive")
    for library in libraries:
        runner.run(library, names, arguments.python, arguments.limit, arguments.first_order, arguments.results)


def _list(arguments) -> None:
    for problem in PROBLEMS:
        print(f"{problem.level}  {problem.family:13} {problem.name:30} {problem.about}")
    print(f"{len(PROBLEMS)} problems; their references are in {references.PATH.name}")


def _results(arguments) -> dict:
    found = runner.read(arguments.results)
    if not found:
        raise OSError("there are no results yet: use `python -m conformance run` first")
    return found


def _table(arguments) -> None:
    results = _results(arguments)
    print("\n\n".join([table.summary(results), table.by_level(results), table.by_problem(results)]))


def _picture(arguments) -> None:
    from .picture import draw  # needs matplotlib, which nothing else does

    draw(_results(arguments), arguments.path)


def command() -> None:
    """The entry point of the installed command."""
    sys.exit(main())


if __name__ == "__main__":
    command()
