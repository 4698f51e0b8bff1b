"""The command line: lists, tables and pictures, mistakes of the user, and workers that crash or hang."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conformance import outcomes
from conformance.__main__ import main
from conformance.problems import PROBLEMS, by_name

ROOT = Path(__file__).parent.parent.parent


def run(folder, *words):
    """The exit code of a command whose results are in a folder."""
    return main(["--results", str(folder), *map(str, words)])


def test_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PROBLEMS) + 1
    assert any("one_bounce" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--library", "nothing"], 2, "library 'nothing' is not known: choose from diffsim"),
        (["run", "--problem", "nothing"], 2, "problem 'nothing' is not known: choose from decay"),
        (["run", "--limit", "-1"], 2, "--limit -1: the time limit has to be positive"),
        (["run", "--limit", "soon"], 2, "invalid float value"),
        (["walk"], 2, "invalid choice"),
        ([], 2, "required"),
        (["table"], 1, "there are no results yet"),
        (["run", "--library", "diffsim", "--python", "/no/python"], 1, "library 'diffsim' does not start"),
    ],
)
def test_mistakes_are_one_line(words, code, message, tmp_path, capsys):
    assert run(tmp_path, *words) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_the_command_runs_as_a_process():
    done = subprocess.run([sys.executable, "-m", "conformance", "run", "--library", "x"], cwd=ROOT, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def stand_in(tmp_path, code):
    """A Python that behaves as the worker of a library would, but for what is planted."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n" + textwrap.dedent(code))
    script.chmod(0o755)
    return str(script)


FAULTY = """
import json, os, sys, time
from conformance.worker import MARK
print(MARK + json.dumps({"version": "1.0"}), flush=True)
for line in sys.stdin:
    if line.strip() == "oscillator":
        os._exit(3)
    if line.strip() == "logistic":
        time.sleep(100)
    print("noise of the library", flush=True)
    reports = {"value": {"answer": 0.4931939278}, "gradient": {"answer": [0.0, 0.0]}}
    print(MARK + json.dumps({"reports": reports}), flush=True)
"""


def test_crashes_and_hangs_count_for_one_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    python = stand_in(tmp_path, FAULTY)
    names = ["decay", "oscillator", "logistic", "forced"]
    options = ["--problem", *names, "--python", python, "--limit", "3", "--first-order"]
    assert run(tmp_path, "run", "--library", "scipy", *options) == 0
    found = json.loads((tmp_path / "scipy.json").read_text())["problems"]
    outcome = {name: found[name]["quantities"]["gradient"]["outcome"] for name in names}
    assert outcome["decay"] == outcome["forced"] == outcomes.SILENT
    assert outcome["oscillator"] == outcome["logistic"] == outcomes.LOUD
    assert "exit code 3" in found["oscillator"]["quantities"]["gradient"]["words"]
    assert "no answer in 3 s" in found["logistic"]["quantities"]["gradient"]["words"]


def test_run_table_and_picture(capsys, tmp_path):
    """SciPy answers two problems in a process of its own."""
    assert run(tmp_path, "run", "--library", "scipy", "--problem", "one_bounce", "single_decay") == 0
    found = json.loads((tmp_path / "scipy.json").read_text())
    bounce = found["problems"]["one_bounce"]
    assert {entry["outcome"] for entry in bounce["quantities"].values()} == {outcomes.RIGHT}
    assert bounce["peak_mb"] > 10
    assert found["problems"]["single_decay"]["quantities"]["value"]["outcome"] == outcomes.MISSING
    assert run(tmp_path, "table") == 0
    shown = capsys.readouterr().out
    assert "| `one_bounce` | 2 |" in shown
    assert run(tmp_path, "picture", tmp_path / "grid.png") == 0
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_results_are_complete():
    names = {problem.name for problem in PROBLEMS}
    for path in (ROOT / "conformance" / "results").glob("*.json"):
        results = json.loads(path.read_text())
        assert set(results["problems"]) <= names
        assert results["library"] == path.stem
        assert results["version"]


def test_an_unknown_problem_has_no_name():
    with pytest.raises(KeyError):
        by_name("nothing")
