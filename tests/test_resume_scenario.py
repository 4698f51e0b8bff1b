"""Resumed runs of scenarios: after a kill in the middle, and refused for a run of another scenario."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WORDS = ["train", "--policies", "3"]


def lines(folder):
    """The metrics of a run, without the times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a cart-pole run that was killed after the start of its second policy."""
    pytest.importorskip("gymnasium")
    place = tmp_path_factory.mktemp("killed")
    own = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    command = [sys.executable, str(ROOT / "scenarios" / "cartpole.py"), *WORDS]
    process = subprocess.Popen(command, cwd=place, env=os.environ | own, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(place.glob("runs/cartpole/*/fit-1.npz")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return next(place.glob("runs/cartpole/*"))


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_bit_for_bit(killed, tmp_path, scenario):
    for words in (["--resume", killed], ["--seed", "1", "--resume", killed]):
        done = scenario("cartpole", "train", *words, "--json", cwd=tmp_path)
        if "--seed" in words:
            assert done.returncode == 2
            assert "uses the settings of its run: seed is 0 there, here 1" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.splitlines()[-1])["run"] == str(killed)
    finished = scenario("cartpole", *WORDS, "--json", cwd=tmp_path)
    folder = tmp_path / json.loads(finished.stdout.splitlines()[-1])["run"]
    assert lines(killed) == lines(folder)
    assert len(lines(killed)) == 3
    assert (killed / "policy.npz").read_bytes() == (folder / "policy.npz").read_bytes()


def test_a_folder_without_a_run_or_of_another_scenario_is_refused(killed, tmp_path, scenario):
    for name, folder, message in (
        ("cartpole", tmp_path, "there is no run"),
        ("quadrotor", killed, "is a run of cartpole train, not of quadrotor train"),
    ):
        done = scenario(name, "train", "--resume", folder, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert len(lines(killed)) >= 1
    done = scenario("cartpole", "train", "--resume", killed, "--config", killed / "config.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "--config and --resume exclude each other" in done.stderr
