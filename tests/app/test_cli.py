"""The command line: what it parses, prints and writes, and how each kind of failure ends."""

import json
import math
import os
import signal
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from diffsim._errors import RunError
from diffsim.app import cli, config, parse
from diffsim.io.json_encoding import plain, show

SCENARIO = '''
"""How far does a cannon shoot?"""
import time
from diffsim.app import cli
from diffsim._errors import InputError, RunError

def throw(*, wind: float = 0.0, outcome: str = "fine") -> dict:
    """The range of one shot."""
    if outcome == "failed":
        raise RunError("the ball never\\nlanded; try a shorter sling")
    if outcome == "bad":
        raise InputError("outcome = bad; use fine")
    if outcome == "missing":
        open("nowhere/throws.csv")
    if outcome == "bug":
        raise ValueError("a bug")
    if outcome == "long":
        print("x\\n" * 100_000)
    if outcome == "wait":
        print("ready", flush=True)
        time.sleep(60)
    return {"range": 100.0 + wind}

if __name__ == "__main__":
    cli.main(throw)
'''


def train(
    *,
    seed: int = 0,
    steps: int = 2,
    limit: float | None = None,
    window: tuple[float, float] = (0.0, 1.0),
    solver: Literal["euler", "heun"] = "heun",
    fast: bool = True,
    run: cli.Run,
) -> dict:
    """A trained aim.

    Args:
        steps: of the optimiser
    """
    for step in range(steps):
        run.metric(step=step, loss=np.float32(math.nan) if step else 0.5)
    run.say("trained")
    return {
        "limit": limit,
        "window": window,
        "solver": solver,
        "fast": fast,
        "losses": np.array([1.0, np.inf]),
    }


def sweep(table: Path, out: Path, *, gradients: bool = False, by_row: bool = False) -> dict:
    """The range of every machine in a table."""
    return {"table": table, "out": out, "gradients": gradients, "by_row": by_row}


def aim(*, distance: float, fail: bool = False) -> None:
    """The release that reaches a distance."""
    if fail:
        raise RunError(f"nothing reaches {distance} m")


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs the command line in an empty folder; returns its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            cli.main(train, sweep, aim, argv=[str(word) for word in words])
        return exit.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "cannon.py"
    path.write_text(SCENARIO)
    return path


def spawn(script: Path, *words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell that runs this in the background starts its processes with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([sys.executable, script, *words], env=environment, cwd=script.parent, **streams)


def result(call, *words: object) -> dict:
    code, out, _ = call(*words, "--json")
    assert code == 0
    return json.loads(out.splitlines()[-1])


def test_the_first_job_runs_without_a_name(call):
    code, out, err = call()
    assert code == 0
    assert err == "trained\n"
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["losses"] == "[1, inf]"
    assert lines["run"].startswith("runs/test_cli/")


@pytest.mark.parametrize(("requested", "expected"), [(None, "1"), ("2", "2")])
def test_factorisations_run_in_one_thread_unless_set_otherwise(call, monkeypatch, requested, expected):
    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.setenv(name, "")  # so that it is restored
    monkeypatch.delenv(name) if requested is None else monkeypatch.setenv(name, requested)
    call()
    assert os.environ[name] == expected


def test_json_is_one_valid_object(call):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    _, out, _ = call("--json", "--steps", 1)
    values = json.loads(out, parse_constant=refuse)
    assert values["losses"] == [1.0, None]
    assert values["limit"] is None


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--limit", "-5"], "limit", -5.0),
        (["--limit=-5e-3"], "limit", -0.005),
        (["--limit", "None"], "limit", None),
        (["--limit", "-inf"], "limit", None),
        (["--window", "-1", "2"], "window", [-1.0, 2.0]),
        (["--no-fast"], "fast", False),
        (["--solver", "euler"], "solver", "euler"),
    ],
)
def test_flags(call, words, name, value):
    assert result(call, "train", *words)[name] == value


def test_parameters_without_default_are_positional(call):
    values = result(call, "sweep", "in.csv", "out.csv", "--by_row", "--gradients")
    assert values == {"table": "in.csv", "out": "out.csv", "gradients": True, "by_row": True}


def test_a_job_may_return_nothing(call):
    assert call("aim", "--distance", 3) == (0, "", "")


def test_run_folder_holds_settings_versions_and_metrics(call):
    folder = Path(result(call, "--seed", 7, "--runs", "elsewhere")["run"])
    assert folder.parent == Path("elsewhere/test_cli")
    assert folder.name.endswith("-7")
    versions = json.loads((folder / "versions.json").read_text())
    assert {"python", "platform", "jax", "diffrax", "equinox", "optax", "optimistix", "numpy"} <= set(versions)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": None}]


def test_run_folders_are_never_shared(call):
    assert len({result(call)["run"] for _ in range(3)}) == 3


def test_written_settings_load_again(call):
    words = ["--seed", "3", "--limit", "-2.5", "--window", "-1", "1e-9", "--solver", "euler", "--no-fast"]
    first = result(call, *words)
    config = Path(first["run"]) / "config.toml"
    second = result(call, "--config", config)
    assert (Path(second["run"]) / "config.toml").read_text() == config.read_text()
    assert {**second, "run": ""} == {**first, "run": ""}


def test_settings_round_trip_through_toml(tmp_path):
    settings = {"text": 'a "quote"\n\x7f\té', "none": None, "tiny": 1e-300, "big": 1e22, "path": Path("a b")}
    settings |= {"word": "None", "sizes": (), "kind": Kind.SMALL, "infinite": -math.inf, "data": Path("a")}
    parameters = parse._parameters(_takes_anything)
    path = tmp_path / "config.toml"
    path.write_text(config.toml(settings), encoding="utf-8")
    assert config.read(path, parameters) == settings


class Kind(Enum):
    SMALL = 1


def _takes_anything(
    *,
    text: str,
    none: float | None,
    tiny: float,
    big: float,
    path: Path,
    word: str,
    sizes: tuple[int, ...],
    kind: Kind,
    infinite: cli.Finite,
    data: cli.InFile | None,
) -> None:
    """Only its signature is used."""


def test_a_flag_wins_over_the_file(call, tmp_path):
    (tmp_path / "c.toml").write_text("limit = 5\nfast = false\nseed = 2\n")
    values = result(call, "--config=c.toml", "--limit", 6, "--fast")
    assert (values["limit"], values["fast"]) == (6.0, True)
    assert values["run"].endswith("-2")


def test_a_file_may_give_positional_arguments(call, tmp_path):
    (tmp_path / "c.toml").write_text('table = "in.csv"\nout = "out.csv"\nby-row = true\n')
    assert result(call, "sweep", "--config", "c.toml")["by_row"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "c.toml: unknown setting 'stepz'; did you mean 'steps'?"),
        ("zzz = 3", "known settings: seed, steps"),
        ('steps = "3"', "c.toml: steps = '3' does not fit its type, int"),
        ("steps = 2.5", "steps = 2.5 does not fit"),
        ("limit = true", "limit = True does not fit its type, float | None"),
        ("fast = 1", "fast = 1 does not fit"),
        ("solver = 3", "solver = 3 does not fit"),
        ("window = [1.0]", "window = [1.0] does not fit"),
        ("window = [[1.0], 2.0]", "window = [[1.0], 2.0] does not fit"),
        ("steps = {a = 1}", "does not fit"),
        ("steps = 1979-05-27", "does not fit"),
        ("steps = true", "steps = True does not fit its type, int"),
        ("window = [1, 2, 3]", "window = [1, 2, 3] does not fit its type, tuple[float, float]"),
        ('solver = "rk4"', "solver = 'rk4' does not fit its type, Literal['euler', 'heun']"),
        ('steps = "None"', "steps = 'None' does not fit its type, int"),
        ("limit = " + "9" * 400, "does not fit its type, float | None"),
        ("steps = ", "c.toml is not a TOML file"),
    ],
)
def test_unusable_settings_are_named(call, tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    code, out, err = call("--config", "c.toml")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no sub-command 'trian'; did you mean 'train'? Sub-commands: train, sweep, aim"),
        (["--config", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--config"], "--config"),
        (["--setps", "3"], "--steps"),
        (["--steps", "x"], "--steps"),
        (["sweep", "in.csv"], "OUT"),
        (["aim"], "--distance"),
        (["aim", "--distance", "3", "--runs", "here"], "--runs"),
    ],
)
def test_bad_arguments_are_named(call, words, message):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert message in err


def test_failed_work_is_one_line(call):
    assert call("aim", "--distance", -3, "--fail") == (1, "", "error: nothing reaches -3.0 m\n")


def test_help_lists_the_sub_commands_and_the_default_flags(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "sweep  The range of every machine in a table." in out
    assert "of the optimiser" in out


def test_figure_returns_its_path(tmp_path):
    class Figure:
        def savefig(self, path, **_):
            path.write(b"png")

    path = cli.Run(tmp_path, {}).figure("loss", Figure())
    assert path == tmp_path / "figures" / "loss.png"
    assert path.read_bytes() == b"png"


def test_values_become_plain():
    assert plain({"a": np.arange(2), "b": (np.float32(0.5), Path("x")), "c": np.bool_(True)}) == {
        "a": [0, 1],
        "b": [0.5, "x"],
        "c": True,
    }
    assert plain([math.inf, -math.inf, np.array(np.nan)]) == [None, None, None]
    assert show([math.inf, np.float32(np.nan), None]) == "[inf, nan, None]"
    assert show(list(range(9))) == "[0, 1, 2, 3, 4, 5, ...] (9 in all)"
    assert show(1 / 3) == "0.333333"


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        ("fine", 0, ""),
        ("failed", 1, "error: the ball never landed; try a shorter sling\n"),
        ("bad", 2, "error: outcome = bad; use fine\n"),
        ("missing", 2, "error: nowhere/throws.csv: No such file or directory\n"),
    ],
)
def test_exit_codes_of_a_script(script, outcome, code, message):
    process = spawn(script, "--outcome", outcome)
    out, err = process.communicate()
    assert (process.returncode, err) == (code, message)
    assert out == ("range  100\n" if code == 0 else "")


def test_a_bug_keeps_its_traceback(script):
    process = spawn(script, "--outcome", "bug")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" in err
    assert "ValueError: a bug" in err


def test_an_interrupt_is_one_line(script):
    process = spawn(script, "--outcome", "wait")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "error: interrupted\n")


def test_an_output_closed_by_its_reader_is_no_error(script):
    process = spawn(script, "--outcome", "long")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


EARLY = '''
"""A script that takes long to import."""
from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)

import time
print("importing", flush=True)
{slow}

def throw(*, wind: cli.Finite = 0.0) -> dict:
    """The range of one shot."""
    return {{"range": 100.0 + wind, "device": str(__import__("jax").devices()[0])}}

if __name__ == "__main__":
    cli.main(throw)
'''


@pytest.fixture
def early(tmp_path):
    """Writes the script with the given code among its imports."""

    def write(slow: str) -> Path:
        (tmp_path / "early.py").write_text(EARLY.format(slow=slow))
        return tmp_path / "early.py"

    return write


def test_an_interrupt_while_importing_is_one_line_even_if_the_import_would_catch_it(early):
    for slow in ("time.sleep(60)", "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)"):
        process = spawn(early(slow))
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, "error: interrupted\n")


@pytest.mark.parametrize(
    "slow", ["pass", "import jax.numpy as jnp; jnp.zeros(3)"], ids=["in the job", "while importing"]
)
def test_a_device_that_is_absent_is_named(early, monkeypatch, slow):
    monkeypatch.setenv("JAX_PLATFORMS", "absent")
    process = spawn(early(slow))
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.startswith("error: JAX_PLATFORMS=absent: Unable to initialize backend 'absent'")
    assert "leave it unset, or name a device that is available" in err
    assert err.count("\n") == 1


def test_a_bug_while_importing_keeps_its_traceback(early):
    process = spawn(early("raise RuntimeError('a bug')"))
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" in err
    assert "RuntimeError: a bug" in err


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--outcome", "failed"), 1), (("--outcome", "bad"), 2)])
@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_a_standard_error_that_cannot_be_written_changes_nothing(script, words, code, stream):
    command = f'exec "{sys.executable}" "{script}" {" ".join(words)} {stream}'
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ("range  100\n" if code == 0 else "")


def test_a_full_standard_output_is_a_failure_in_one_line(script):
    command = f'exec "{sys.executable}" "{script}" >/dev/full'
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("error", [MemoryError("of 8 TiB"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_memory_that_runs_out_is_one_line(capsys, error):
    def throw() -> dict:
        """Too much."""
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.main(throw, argv=[])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: memory ran out: ask for less. {error}\n"


def resumable(*, seed: cli.Seed = 0, run: cli.ResumableRun) -> dict:
    """Writes two metrics; fails before the first or after it if a file says so."""
    for step in range(2):
        fails = Path("fails").read_text() if Path("fails").exists() else ""
        if fails == str(step):
            raise RunError("broken off")
        run.metric(step=step, again=Path("again").exists())
    return {}


def another(*, seed: cli.Seed = 0, run: cli.ResumableRun) -> dict:
    """A sub-command with the same settings."""
    return {}


def test_a_resume_that_fails_leaves_the_metrics(capsys, tmp_path, monkeypatch):
    def call(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(resumable, another, argv=list(map(str, words)))
        return ended.value.code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    run = Path(json.loads(call("--json")[1])["run"])
    metrics = run / "metrics.jsonl"
    before = metrics.read_bytes()
    Path("again").touch()
    for step in ("0", "1"):
        Path("fails").write_text(step)
        (run / "fit.npz.partial").write_bytes(b"half")
        assert call("--resume", run) == (1, "", "error: broken off\n")
        assert metrics.read_bytes() == before
        assert sorted(path.name for path in run.iterdir()) == ["config.toml", "metrics.jsonl", "versions.json"]
    code, _, complaint = call("another", "--resume", run)
    assert (code, metrics.read_bytes()) == (2, before)
    assert f"--resume {run} is a run of test_cli resumable, not of test_cli another" in complaint
    Path("fails").unlink()
    assert call("--resume", run)[0] == 0
    assert [json.loads(line) for line in metrics.read_text().splitlines()] == [
        {"step": 0, "again": True},
        {"step": 1, "again": True},
    ]
    for text in ("{}", "[", "[3]", '{"scenario": 3, "command": []}'):
        (run / "versions.json").write_text(text)
        assert call("--resume", run)[0] == 2
