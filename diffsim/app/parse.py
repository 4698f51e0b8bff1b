"""Parsing of a command line into the checked settings of one of a script's sub-commands."""

import difflib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import tyro

from .._errors import InputError
from ..io.aligned_columns import aligned
from . import config
from .run import ResumableRun, Run, check_own
from .values import check_folder_can_be_made, check_values

Job = Callable[..., Mapping[str, Any] | None]

_Config = Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml", help="settings to start from")]
_Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="print one JSON object")]
_Runs = Annotated[Path, tyro.conf.arg(metavar="DIR", help="where the run folder is created")]
_Resume = Annotated[Path | None, tyro.conf.arg(metavar="RUN", help="folder of a run to resume")]


class Request(NamedTuple):
    """What a command line asks for.

    Attributes:
        script: The file of the script.
        number: The index of the job.
        command: The name of the sub-command.
        settings: The job's arguments by name.
        as_json: Whether to print the result as JSON.
        runs: The folder in which a run folder is created; None for a job without one.
        resume: The folder of a run to resume.
    """

    script: Path
    number: int
    command: str
    settings: dict[str, Any]
    as_json: bool
    runs: Path | None
    resume: Path | None


def parse(jobs: Sequence[Job], words: Sequence[str]) -> Request:
    """Parses a command line.

    Args:
        jobs: The functions of the sub-commands; the first is the default.
        words: The words of the command line.

    Returns:
        The job, its settings, and the general flags.

    Raises:
        InputError: For an unknown sub-command, a file of settings that cannot be used, and values not allowed.
        SystemExit: After help, and after tyro's message about other bad arguments.
    """
    for word in words:
        if not _is_text(word):
            raise InputError(f"{word!r:.80} is not UTF-8: give plain text, or rename the file")
    script = Path(inspect.getfile(inspect.unwrap(jobs[0])))
    if words and not words[0].startswith("-"):
        job, words, description = _named(jobs, words[0]), words[1:], None
        prog = f"{script.name} {_name(job)}"
    else:
        job, prog, description = jobs[0], script.name, _overview(jobs)
    own = script.stem, _name(job)
    settings = _parse(job, words, prog, description, own)
    as_json, runs, resume = settings.pop("json"), settings.pop("runs", None), settings.pop("resume", None)
    check_values(
        get_type_hints(job, include_extras=True), {**settings, **dict.fromkeys(run_parameter(job)), "return": None}
    )
    if runs is not None and resume is None:
        check_folder_can_be_made(runs)
    return Request(script, jobs.index(job), own[1], settings, as_json, runs, resume)


def run_parameter(job: Job) -> dict[str, type[Run]]:
    """Returns the parameter that takes the run folder, as {name: type}; empty if there is none."""
    return {name: hint for name, hint in get_type_hints(job).items() if hint in (Run, ResumableRun)}


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    first, *rest = [(_name(job), (inspect.getdoc(job) or "").partition("\n")[0]) for job in jobs]
    table = textwrap.indent(aligned(first, rest), "  ")
    return f"Sub-commands (the first is the default, its flags are below):\n{table}"


def _parse(job: Job, words: Sequence[str], prog: str, description: str | None, own: tuple[str, str]) -> dict[str, Any]:
    """Returns the job's settings together with `json`, `runs` and `resume`.

    Flags override the file of settings, which overrides defaults. `own` are the names of scenario and sub-command,
    which must be those of a resumed run.
    """
    parameters = _parameters(job)
    runs = run_parameter(job)
    resumable = ResumableRun in runs.values()
    file, old = config.named_path(words, "--config"), config.named_path(words, "--resume") if resumable else None
    if file and old:
        raise InputError("--config and --resume exclude each other: a resumed run has its own settings")
    if old:
        check_own(old, *own)
        file = config.of_run(old)
    given = config.read(file, parameters) if file else {}

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
        config.check_same(old, given, settings)
    return settings


def _parameters(job: Job) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(job, include_extras=True)
    parameters = inspect.signature(job).parameters.items()
    return {name: p.replace(annotation=hints[name]) for name, p in parameters if name not in run_parameter(job)}


def _field(parameter: inspect.Parameter, given: Mapping[str, Any]) -> inspect.Parameter:
    """Returns the parameter as tyro needs it; a value `given` by the file of settings becomes its default."""
    required = parameter.default is parameter.empty and parameter.kind == parameter.POSITIONAL_OR_KEYWORD
    annotation = tyro.conf.Positional[parameter.annotation] if required else parameter.annotation
    return _flag(parameter.name, annotation, given.get(parameter.name, parameter.default))


def _flag(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
