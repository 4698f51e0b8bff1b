"""Sub-commands from plain functions: their signatures are the flags, what they return is the result.

A scenario script has functions such as

    def throw(*, wind: float = 0.0, seed: int = 0, run: cli.Run) -> dict: ...

and ends with

    if __name__ == "__main__":
        cli.main(train, throw)
"""

import difflib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import tyro

from diffsim import _config
from diffsim._errors import InputError, WorkFailed
from diffsim._plain import plain, show
from diffsim._run import ResumableRun, Run, new_run, resumed_run

__all__ = ["ResumableRun", "Run", "main", "seed_range"]

Job = Callable[..., Mapping[str, Any] | None]

DONE, FAILED, BAD_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
WRONG_PATH = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)

_Config = Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml", help="settings to start from")]
_Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="print one JSON object")]
_Runs = Annotated[Path, tyro.conf.arg(metavar="DIR", help="where the run folder is made")]
_Resume = Annotated[Path | None, tyro.conf.arg(metavar="RUN", help="folder of a run to go on with")]


def main(*jobs: Job, argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the job that the command line names, the first if it names none, and exits.

    Of a job's parameters, those without default that may be passed by position are arguments, the others
    flags; one annotated `Run` receives a new run folder, one annotated `ResumableRun` an old one if the flag
    `--resume RUN` names it. Its first docstring line and `Args:` are its help.
    The returned mapping is printed as `name  value` lines, or with `--json` as one JSON object.

    Exit codes: 0 done, 1 the work failed (`WorkFailed`), 2 bad arguments (`InputError`, a file that cannot be
    used), 130 interrupted, 141 the reader of the output left. Other exceptions are bugs and pass through.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # OpenBLAS, which JAX loads with its first factorisation, has threads that wait for one another at full load; for
    # matrices as small as a scenario's one is as fast, and several times faster where other programs run.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        _answer(jobs, words)
        print(end="", flush=True)  # here, so that a closed pipe is met while it can be answered
    except BrokenPipeError:
        _discard_output()
        sys.exit(PIPE_CLOSED)
    except InputError as error:
        _fail(BAD_ARGUMENTS, error)
    except WorkFailed as error:
        _fail(FAILED, error)
    except OSError as error:
        _fail(BAD_ARGUMENTS if isinstance(error, WRONG_PATH) else FAILED, _reason(error))
    except KeyboardInterrupt:
        _fail(INTERRUPTED, "interrupted")
    sys.exit(DONE)


def seed_range(text: str) -> range:
    """The seeds FIRST:LAST, without the last. Raises InputError if there is none."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise InputError(f"seeds '{text}': give FIRST:LAST, such as 0:100, with at least one seed before the last")
    return range(int(first), int(last))


def _answer(jobs: Sequence[Job], words: Sequence[str]) -> None:
    script = Path(inspect.getfile(inspect.unwrap(jobs[0])))
    if words and not words[0].startswith("-"):
        job, words = _named(jobs, words[0]), words[1:]
        settings = _parse(job, words, f"{script.name} {_name(job)}", None)
    else:
        job = jobs[0]
        settings = _parse(job, words, script.name, _overview(jobs))
    as_json, root, old = settings.pop("json"), settings.pop("runs", None), settings.pop("resume", None)
    begin = lambda kind: resumed_run(old, settings) if old else new_run(root, script.stem, settings, kind)
    extra = {name: begin(kind) for name, kind in _run_parameter(job).items()}
    result = dict(job(**settings, **extra) or {})
    for run in extra.values():
        result["run"] = str(run.folder)
    _print(result, as_json)


def _named(jobs: Sequence[Job], word: str) -> Job:
    known = {_name(job): job for job in jobs}
    wanted = word.replace("_", "-")
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InputError(f"no sub-command '{word}'; {hint}Sub-commands: {', '.join(known)}")


def _name(job: Job) -> str:
    return job.__name__.replace("_", "-")


def _overview(jobs: Sequence[Job]) -> str:
    width = max(len(_name(job)) for job in jobs)
    lines = [f"  {_name(job):<{width}}  {(inspect.getdoc(job) or '').split(chr(10))[0]}" for job in jobs]
    return "\n".join(["Sub-commands (the first is the default, its flags are below):", *lines])


def _parse(job: Job, words: Sequence[str], prog: str, description: str | None) -> dict[str, Any]:
    """Returns the job's settings, and beside them `json` and `runs`: flags over file over defaults."""
    parameters = _parameters(job)
    runs = _run_parameter(job)
    resumable = ResumableRun in runs.values()
    file, old = _config.named_path(words, "--config"), _config.named_path(words, "--resume") if resumable else None
    if file and old:
        raise InputError("--config and --resume exclude each other: a run goes on with its own settings")
    file = _config.of_run(old) if old else file
    given = _config.read(file, parameters) if file else {}

    def collect(**values: Any) -> dict[str, Any]:
        return values

    fields = [_field(parameter, given) for parameter in parameters.values()]
    fields += [_flag("config", _Config, None), _flag("json", _Json, False)]
    fields += [_flag("runs", _Runs, Path("runs"))] if runs else []
    fields += [_flag("resume", _Resume, None)] if resumable else []
    collect.__signature__ = inspect.Signature(fields)  # pyright: ignore[reportFunctionMemberAccess]
    collect.__annotations__ = {field.name: field.annotation for field in fields}
    collect.__doc__ = job.__doc__
    markers = (tyro.conf.PositionalMetavarFromFieldName,)
    settings = tyro.cli(collect, prog=prog, description=description, args=words, config=markers)
    del settings["config"]
    if old:
        _config.check_same(old, given, settings)
    return settings


def _parameters(job: Job) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(job, include_extras=True)
    parameters = inspect.signature(job).parameters.items()
    return {name: p.replace(annotation=hints[name]) for name, p in parameters if name not in _run_parameter(job)}


def _field(parameter: inspect.Parameter, given: Mapping[str, Any]) -> inspect.Parameter:
    """Returns the parameter as tyro is to see it, its default the value `given` by a file if there is one."""
    required = parameter.default is parameter.empty and parameter.kind == parameter.POSITIONAL_OR_KEYWORD
    annotation = tyro.conf.Positional[parameter.annotation] if required else parameter.annotation
    return _flag(parameter.name, annotation, given.get(parameter.name, parameter.default))


def _run_parameter(job: Job) -> dict[str, type[Run]]:
    """Returns the name of the parameter that takes the run folder, with its kind; empty if there is none."""
    return {name: hint for name, hint in get_type_hints(job).items() if hint in (Run, ResumableRun)}


def _flag(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _print(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plain(result), allow_nan=False))
        return
    width = max(map(len, result), default=0)
    for name, value in result.items():
        print(f"{name:<{width}}  {show(value)}")


def _fail(code: int, reason: object) -> NoReturn:
    print(f"error: {' '.join(str(reason).split())}", file=sys.stderr)
    sys.exit(code)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)


def _discard_output() -> None:
    """Points standard output at nothing, so that Python's flush at exit does not fail on the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
