"""Sub-commands from plain functions: their signatures define the flags, and they return the results.

A scenario script has functions such as

    def throw(*, wind: cli.Finite = 0.0, seed: cli.Seed = 0, run: cli.Run) -> dict: ...

and ends with

    if __name__ == "__main__":
        cli.main(train, throw)

The annotation of a parameter says which values are allowed: `Seed`, `Seeds`, `Count`, `Finite`, `Positive`, `InFile`,
`OutFile`, or a type with a constraint, as in `Annotated[int, cli.Within(1, 100)]` and `Annotated[Path,
cli.WritableFile((".gif",))]`. A script that begins with

    if __name__ == "__main__":
        cli.check_arguments(__file__)

prints its help and reports bad arguments before it imports JAX, which takes a second.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .._errors import InputError, RunError
from ..io.aligned_columns import aligned
from ..io.json_encoding import json_line, show
from .run import ResumableRun, Run, new_run, resumed_run
from .script_stubs import stubs
from .streams import flush_or_discard, on_interrupt, without_write_errors
from .values import (
    Count,
    Each,
    ExistingFolder,
    Finite,
    InFile,
    Matching,
    NonZero,
    OutFile,
    Positive,
    RawFile,
    ReadableFile,
    Seed,
    Seeds,
    Within,
    WritableFile,
    seed_range,
)

if TYPE_CHECKING:
    from .parse import Job, Request

__all__ = [
    "Count",
    "Each",
    "ExistingFolder",
    "Finite",
    "InFile",
    "Matching",
    "NonZero",
    "OutFile",
    "Positive",
    "RawFile",
    "ReadableFile",
    "ResumableRun",
    "Run",
    "Seed",
    "Seeds",
    "Within",
    "WritableFile",
    "check_arguments",
    "main",
    "seed_range",
]

DONE, FAILED, BAD_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
WRONG_PATH = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def check_arguments(script: str | Path, argv: Sequence[str] | None = None) -> None:
    """Checks the command line of a script against its source; exits after help and for bad arguments.

    Call it in the first lines of a script, before slow imports. Until `main` is called, Ctrl-C ends the script with a
    one-line message, and so does an absent device in `JAX_PLATFORMS`. Signatures that need more than the source, such
    as computed defaults, are checked by `main`.

    Args:
        script: The file of the script.
        argv: The words of the command line; by default those of this process.
    """
    sys.stderr = without_write_errors(sys.stderr)
    on_interrupt(lambda: _fail(INTERRUPTED, "interrupted"))
    sys.excepthook = _exit_on_import_error
    jobs = stubs(Path(script))
    if jobs:
        with _exit_on_error():
            _request(jobs, argv)


def main(*jobs: "Job", argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the sub-command that the command line names, by default the first, and exits.

    Positional parameters of a job that have no default become arguments, all others flags. A parameter annotated
    `Run` receives a new run folder; one annotated `ResumableRun` does too, or an old one with the flag `--resume RUN`.
    The first line of the docstring and its `Args:` are the help. The returned mapping is printed as `name  value`
    lines, or with `--json` as one JSON object.

    Exit codes: 0 done, 1 the work failed (`RunError`, out of memory), 2 bad arguments (`InputError`, a file that
    cannot be used, an absent device), 130 interrupted, 141 the output was closed by its reader. Other exceptions are
    bugs and are raised.

    Args:
        *jobs: The functions of the sub-commands.
        argv: The words of the command line; by default those of this process.
    """
    # OpenBLAS, which JAX loads with its first factorisation, has threads that wait actively for one another. For the
    # small matrices of a scenario one thread is as fast, and several times faster where other programs run.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    original, sys.stderr = sys.stderr, without_write_errors(sys.stderr)
    on_interrupt(None)
    sys.excepthook = sys.__excepthook__
    try:
        with _exit_on_error():
            _run(jobs, _request(jobs, argv))
            print(end="", flush=True)  # flushed here, so that the error of a closed pipe is caught
        sys.exit(DONE)
    finally:
        sys.stderr = original


def _request(jobs: Sequence[Callable], argv: Sequence[str] | None) -> "Request":
    from .parse import parse  # imported late: tyro takes half of the time of `--help`

    return parse(jobs, list(sys.argv[1:] if argv is None else argv))


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Turns exceptions other than bugs into one line on standard error and an exit code."""
    try:
        yield
    except BrokenPipeError:
        flush_or_discard(sys.stdout)
        sys.exit(PIPE_CLOSED)
    except InputError as error:
        _fail(BAD_ARGUMENTS, error)
    except RunError as error:
        _fail(FAILED, error)
    except OSError as error:
        _fail(BAD_ARGUMENTS if isinstance(error, WRONG_PATH) else FAILED, _reason(error))
    except KeyboardInterrupt:
        _fail(INTERRUPTED, "interrupted")
    except (MemoryError, RuntimeError) as error:
        _exit_on_missing_resource(error)
        raise


def _exit_on_missing_resource(error: BaseException) -> None:
    """Exits if the error means that memory ran out, or that a device is absent."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        _fail(FAILED, f"memory ran out: ask for less. {str(error)[:200]}")
    if "Unable to initialize backend" in str(error) or "Unknown backend" in str(error):
        requested = os.environ.get("JAX_PLATFORMS", "")
        remedy = "leave it unset, or name a device that is available"
        _fail(BAD_ARGUMENTS, f"JAX_PLATFORMS={requested}: {str(error)[:300]}; {remedy}")


def _exit_on_import_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Reports an exception between `check_arguments` and `main`, where nothing else catches it."""
    if isinstance(error, KeyboardInterrupt):
        _fail(INTERRUPTED, "interrupted")
    if isinstance(error, MemoryError | RuntimeError):
        _exit_on_missing_resource(error)
    if isinstance(error, InputError):
        _fail(BAD_ARGUMENTS, error)
    sys.__excepthook__(kind, error, trace)


def _run(jobs: Sequence["Job"], request: "Request") -> None:
    """Runs the requested job and prints its result."""
    from .parse import run_parameter

    job, settings, own = jobs[request.number], request.settings, (request.script.stem, request.command)
    open_run = lambda kind: (
        resumed_run(request.resume, *own, settings)
        if request.resume
        else new_run(request.runs or Path("runs"), *own, settings, kind)
    )
    runs = {name: open_run(kind) for name, kind in run_parameter(job).items()}
    try:
        result = dict(job(**settings, **runs) or {})
        for run in runs.values():
            run.finish()
            result["run"] = str(run.folder)
    finally:
        for run in runs.values():
            run.clear()
    _print(result, request.as_json)


def _print(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json_line(result))
    elif result:
        first, *rest = [(name, show(value)) for name, value in result.items()]
        print(aligned(first, rest))


def _fail(code: int, reason: object) -> NoReturn:
    flush_or_discard(sys.stdout)
    print(f"error: {' '.join(str(reason).split())}", file=sys.stderr, flush=True)
    sys.exit(code)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
