"""Short runs of swing-up, quadrotor and rocket as a user starts them, and their messages for bad input."""

import json

import numpy as np
import pytest

import diffsim as ds

RUN = {"config.toml", "metrics.jsonl", "versions.json", "report.html", "figures", "policy.npz"}


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def swung(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("swingup")
    result = result_of(scenario("swingup", "train", "--policies", 1, "--json", cwd=folder))
    return result, folder / result["run"]


@pytest.fixture(scope="module")
def flown(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("quadrotor")
    result = result_of(scenario("quadrotor", "train", "--policies", 1, "--json", cwd=folder))
    return result, folder / result["run"]


@pytest.fixture(scope="module")
def landed(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("rocket")
    result = result_of(scenario("rocket", "train", "--policies", 1, "--json", cwd=folder))
    return result, folder / result["run"]


@pytest.mark.slow
def test_a_swing_up_succeeds_from_every_hanging_start_in_the_exact_motion(swung):
    result, run = swung
    assert result["at_64_of_64"] == 1
    # Steps of 0.05 s with a constant force agree with the motion of tolerance 1e-9.
    assert result["angle_difference_rad_median"] < 1e-5
    assert {path.name for path in run.iterdir()} >= RUN


@pytest.mark.slow
def test_a_saved_swing_up_succeeds_from_other_starts(swung, tmp_path, scenario):
    words = ("evaluate", "--policy", swung[1] / "policy.npz", "--seeds", "0:16", "--json")
    result = result_of(scenario("swingup", *words, cwd=tmp_path))
    assert (result["starts"], result["good"], result["good_in_our_steps"]) == (16, 16, 16)


@pytest.mark.exhaustive
def test_a_quadrotor_stays_in_unseen_winds(flown):
    result, run = flown
    assert result["least_winds_of_1000"] >= 990
    assert abs(result["least_in_finer_steps"] - result["least_winds_of_1000"]) <= 2
    assert {path.name for path in run.iterdir()} >= RUN


@pytest.mark.exhaustive
def test_stronger_gusts_carry_a_saved_quadrotor_farther(flown, tmp_path, scenario):
    words = ("evaluate", "--policy", flown[1] / "policy.npz", "--seeds", "0:2", "--json")
    calm, wild = (result_of(scenario("quadrotor", *words, "--gust", g, cwd=tmp_path)) for g in (0.5, 8.0))
    assert calm["share_within_half_a_metre"] == 1.0
    assert calm["median_distance_m"] < wild["median_distance_m"]


@pytest.mark.exhaustive
def test_a_rocket_lands_softly_on_little_more_than_the_least_fuel(landed):
    result, run = landed
    assert result["landings_least"] >= 980
    assert 1.0 < result["fuel_over_least_median"] < 1.15
    assert {path.name for path in run.iterdir()} >= RUN


@pytest.mark.exhaustive
def test_a_saved_rocket_lands_from_other_starts(landed, tmp_path, scenario):
    words = ("--policy", landed[1] / "policy.npz")
    result = result_of(scenario("rocket", "evaluate", *words, "--seeds", "0:2", "--json", cwd=tmp_path))
    assert result["starts"] == 200
    assert result["landings"] >= 195
    result_of(scenario("rocket", "animate", "landing.gif", *words, "--json", cwd=tmp_path))
    assert (tmp_path / "landing.gif").read_bytes().startswith(b"GIF8")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("swingup", ("train", "--policies", "0"), "policies=0"),
        ("swingup", ("evaluate", "--seeds", "9:3"), "seeds '9:3': give FIRST:LAST"),
        ("swingup", ("evaluate", "--policy", "other.npz"), "is of another state"),
        ("quadrotor", ("train", "--horizon", "0"), "horizon=0"),
        ("quadrotor", ("evaluate", "--policy", "missing.npz"), "missing.npz"),
        ("quadrotor", ("evaluate", "--gust", "-1"), "gust=-1.0: give a finite number, at least 0 and at most 1000"),
        ("rocket", ("train", "--policies", "0"), "policies=0"),
        ("rocket", ("evaluate", "--policy", "other.npz"), "is of another state"),
        ("rocket", ("evaluate", "--seeds", "9:3"), "seeds '9:3': give FIRST:LAST"),
        ("quadrotor", ("animate", "picture.gif", "--policy", "other.npz"), "is of another state"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(name, words, message, tmp_path, command):
    ds.save(tmp_path / "other.npz", {"weights": np.zeros(3)})
    code, _, complaint = command(name, *words)
    assert code == 2
    assert message in complaint
    # A run folder may exist, but nothing has been written into it.
    assert {path.name for path in tmp_path.rglob("*.*")} <= {"other.npz", "config.toml", "versions.json"}
