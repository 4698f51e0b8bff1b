"""The pendulum scenario as a user runs it, and its messages for bad input."""

import json
from functools import partial

import pytest


@pytest.fixture(scope="session")
def pendulum(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "pendulum")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pendulum):
    folder = tmp_path_factory.mktemp("pendulum")
    done = pendulum("train", "--policies", 1, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return result, folder / result["run"]


@pytest.mark.slow
def test_one_seed_comes_near_the_optimum_and_writes_a_complete_run(trained):
    result, run = trained
    # The aim is -140.5; rounding, which training amplifies, moves a seed by about one between machines.
    assert -145 < result["best_score"] <= result["optimum"] + 0.4
    assert {path.name for path in run.iterdir()} >= {"report.html", "policy.npz", "figures", "metrics.jsonl"}


@pytest.mark.slow
def test_a_saved_policy_is_judged_as_it_was_trained(trained, tmp_path, pendulum):
    done = pendulum("evaluate", "--policy", trained[1] / "policy.npz", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["mean_score"] == pytest.approx(trained[0]["best_score"], abs=1e-6)


@pytest.mark.exhaustive
def test_guided_by_the_optimum_a_network_comes_within_three_of_it(tmp_path, pendulum):
    done = pendulum("guided", "--policies", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert -133.1 < result["optimum"] < -132.8
    assert result["optimum"] - 3 < result["score"] <= result["optimum"] + 0.4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--seeds", "9:3"), "seeds '9:3': give FIRST:LAST"),
        (("train", "--policies", "0"), "policies=0"),
        (("train", "--seed", "-1"), "seed=-1"),
        (("guided", "--policies", "0"), "policies=0"),
        (("evaluate", "--policy", "missing.npz"), "missing.npz"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, command):
    code, _, complaint = command("pendulum", *words)
    assert code == 2
    assert message in complaint
