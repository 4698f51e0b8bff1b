"""The folder of a run: what it was asked, what it ran on, what it measured, what it drew."""

import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

from diffsim import _config
from diffsim._plain import plain

PACKAGES = ("diffsim", "jax", "jaxlib", "diffrax", "equinox", "optax", "optimistix", "lineax", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder and the settings of the run.

    A sub-command with a parameter annotated `cli.Run` receives a new one.
    """

    folder: Path
    settings: Mapping[str, Any]

    def metric(self, **values: Any) -> None:
        """Appends one JSON object to `metrics.jsonl`; non-finite numbers become strings (`plain`)."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(values), allow_nan=False) + "\n")

    def figure(self, name: str, fig: Any) -> Path:
        """Returns the path of `figures/<name>.png`, where the matplotlib figure `fig` is now saved."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        fig.savefig(path, dpi=150)
        return path

    def say(self, text: str) -> None:
        """Prints progress, on standard error, where it cannot mix with the result."""
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class ResumableRun(Run):
    """A run that can go on after it was broken off: what its parts save is in its folder.

    A sub-command with a parameter annotated `cli.ResumableRun` has the flag `--resume RUN`. It then does all of its
    work again with the same settings, in the same folder; its fits, whose checkpoints are at `state`, do not.
    """

    def state(self, part: str = "fit") -> Path:
        """Returns the path of the checkpoint of a part of the run."""
        return self.folder / f"{part}.ckpt"


def resumed_run(folder: Path, settings: Mapping[str, Any]) -> ResumableRun:
    """Returns the run in an old folder, whose metrics are begun anew: its parts tell them again."""
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    return ResumableRun(folder, settings)


def new_run(root: Path, scenario: str, settings: Mapping[str, Any], kind: type[Run] = Run) -> Run:
    """Returns a run in the new folder `root/scenario/<time>-<seed>`, its settings and versions written.

    The seed is the setting of that name, or 0. A folder that exists is never reused: a number is appended.
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
    (folder / "config.toml").write_text(_config.toml(settings), encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps(_versions(), indent=2) + "\n", encoding="utf-8")
    return kind(folder, settings)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
