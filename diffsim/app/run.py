"""Run folders: settings, versions, metrics and figures of a run."""

import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._extras import installed_version
from ..io.files import check_path, clear_partial, partial_of, write_text, write_whole
from ..io.json_encoding import json_line
from . import config

METRICS = "metrics.jsonl"
PACKAGES = ("diffsim", "jax", "jaxlib", "diffrax", "equinox", "optax", "optimistix", "lineax", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder and the settings of the run.

    A sub-command with a parameter annotated `cli.Run` receives a new one.

    Attributes:
        folder: The folder.
        settings: The settings by name.
    """

    folder: Path
    settings: Mapping[str, Any]

    def metric(self, **values: Any) -> None:
        """Appends one JSON object to `metrics.jsonl`; numbers that are not finite become null."""
        with self._metrics().open("a", encoding="utf-8") as file:
            file.write(json_line(values) + "\n")

    def figure(self, name: str, fig: Any) -> Path:
        """Saves a matplotlib figure as `figures/<name>.png` and returns its path."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        return write_whole(path, lambda file: fig.savefig(file, dpi=150, format="png"))

    def say(self, text: str) -> None:
        """Prints progress on standard error, separate from the result."""
        print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Completes the files of a run whose work is done."""

    def clear(self) -> None:
        """Removes files that are only needed during the run."""

    def _metrics(self) -> Path:
        return self.folder / METRICS


@dataclass(frozen=True)
class ResumableRun(Run):
    """A run that can be resumed after an interruption: its folder contains the checkpoints of its parts.

    A sub-command with a parameter annotated `cli.ResumableRun` has the flag `--resume RUN`. It then runs again from
    the start with the same settings, in the same folder; its fits resume from their checkpoints at `state`.

    A resumed run writes its metrics again, to a second file. The first file is kept until the second has as many
    lines, so that no metric is lost if the run fails or is killed again.
    """

    def state(self, part: str = "fit") -> Path:
        """Returns the path of the checkpoint of a part of the run."""
        return self.folder / f"{part}.npz"

    def metric(self, **values: Any) -> None:
        """Appends one JSON object to `metrics.jsonl`, or to the file that will replace it."""
        super().metric(**values)
        new_metrics = partial_of(self.folder / METRICS)
        if new_metrics.exists() and _lines(new_metrics) >= _lines(self.folder / METRICS):
            self.finish()

    def finish(self) -> None:
        """Replaces the old metrics by those of the resumed run."""
        new_metrics = partial_of(self.folder / METRICS)
        if new_metrics.exists():
            new_metrics.replace(self.folder / METRICS)

    def clear(self) -> None:
        """Removes new metrics that are fewer than the old ones."""
        partial_of(self.folder / METRICS).unlink(missing_ok=True)

    def _metrics(self) -> Path:
        new_metrics = partial_of(self.folder / METRICS)
        return new_metrics if new_metrics.exists() else self.folder / METRICS


def check_own(folder: Path, scenario: str, command: str) -> None:
    """Raises InputError unless a folder contains a run of this scenario and sub-command; changes nothing in it."""
    check_path(folder)
    if not (folder / "config.toml").is_file():
        raise InputError(f"--resume {folder}: there is no run; give a folder such as runs/<scenario>/<time>-<seed>")
    try:
        versions = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
        started = versions["scenario"], versions["command"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"--resume {folder}: versions.json does not name its scenario; begin a new run") from None
    if started != (scenario, command):
        raise InputError(f"--resume {folder} is a run of {' '.join(map(str, started))}, not of {scenario} {command}")


def resumed_run(folder: Path, scenario: str, command: str, settings: Mapping[str, Any]) -> ResumableRun:
    """Returns the run in an old folder, after removing the partial files of a killed process."""
    check_own(folder, scenario, command)
    clear_partial(folder)
    if (folder / METRICS).exists():
        partial_of(folder / METRICS).touch()
    return ResumableRun(folder, settings)


def new_run(root: Path, scenario: str, command: str, settings: Mapping[str, Any], kind: type[Run] = Run) -> Run:
    """Creates the folder `root/scenario/<time>-<seed>`, writes settings and versions, and returns its run.

    Args:
        root: The folder of all runs.
        scenario: The name of the scenario.
        command: The name of the sub-command.
        settings: The settings; the seed in the folder's name is the setting of that name, or 0. If the folder exists,
            a number is appended to its name.
        kind: The type of the run.
    """
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.get('seed', 0)}"
    folder = root / scenario / stem
    for number in count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if not folder.is_dir():
                raise
            folder = folder.with_name(f"{stem}-{number}")
    write_text(folder / "config.toml", config.toml(settings))
    system = {"python": platform.python_version(), "platform": platform.platform()}
    versions = {package: installed_version(package) for package in PACKAGES}
    about = {"scenario": scenario, "command": command, **system, **versions}
    write_text(folder / "versions.json", json.dumps(about, indent=2) + "\n")
    return kind(folder, settings)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
