"""Failed solves in scenarios: an error in one line, or a count in the result."""

import errno
import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems.trebuchet import ThrowStatus
from diffsim.viz import report


@pytest.fixture(autouse=True)
def _as_in_a_script():
    with jax.numpy_rank_promotion("allow"):
        yield


def failed(outcome, message):
    code, out, complaint = outcome
    assert (code, out) == (1, "")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_more_angles_than_the_default_number_of_steps_are_generated(command, tmp_path):
    code, out, _ = command("identify", "generate", "a.csv", "--rows", 5000, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 5000)
    gaps = sum(line.endswith(",") for line in (tmp_path / "a.csv").read_text().splitlines())
    assert 400 < gaps < 600  # one in ten, and half a second


def test_measurements_of_a_failed_solve_are_not_written(command, module_of, monkeypatch, tmp_path):
    identify = module_of("identify")
    monkeypatch.setattr(identify, "solve", lambda model, ts: (jnp.nan * ts, jnp.array(ds.Status.STEP_LIMIT)))
    failed(command("identify", "generate", "a.csv"), "the pendulum's motion was not solved: step limit")
    monkeypatch.setattr(identify, "ranges", lambda model, shots: jnp.nan * shots[:, 0])
    failed(command("identify", "generate", "a.csv", "--of", "throws"), "24 of 24 throws have no range")
    assert not (tmp_path / "a.csv").exists()


def test_measurements_are_written_whole_or_not_at_all(command, module_of, monkeypatch, tmp_path):
    def full_disk(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)
    failed(command("identify", "generate", "a.csv"), "a.csv was not saved: No space left on device")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(("count", "converged"), [(3, True), (5, False)])
def test_a_fit_that_ran_out_of_iterations_is_not_converged(count, converged, module_of):
    losses = np.where(np.arange(5) < count, 1.0, np.nan)
    posterior = SimpleNamespace(summary=lambda level: [], noise=0.1)
    result = module_of("identify").summary(posterior, ds.train.History(losses, 0.0, 0.0))
    assert result["converged"] is converged


def throws(ranges, status):
    return SimpleNamespace(range=np.array(ranges), status=np.full(len(ranges), status))


def test_throws_without_a_range_are_an_error(command, module_of, monkeypatch):
    trebuchet = module_of("trebuchet")
    lost = lambda angles, masses, winds: throws([np.nan, 90.0], ThrowStatus.NEVER_LIFTS)
    monkeypatch.setattr(trebuchet, "exact_throws", lost)
    failed(command("trebuchet", "aim"), "1 of 2 throws have no range: the ball never lifts off the ground")
    with pytest.raises(ds.RunError, match="1 of 2 throws"):
        trebuchet.reach()
    near = np.array([-20.0, 20.0]), np.array([25.0, 25.0])
    with pytest.raises(ds.RunError, match="of 50 targets are within reach of the machine: give another seed"):
        trebuchet.draw_targets(np.random.default_rng(0), 50, near)


def test_failed_throws_at_fresh_targets_are_counted(command, module_of, monkeypatch):
    trebuchet = module_of("trebuchet")
    misses = np.full(1000, 0.01)
    monkeypatch.setattr(trebuchet, "reach", lambda: (np.array([-20.0, 20.0]), np.array([100.0, 100.0])))
    monkeypatch.setattr(trebuchet, "learn", lambda model, *_: (model, ds.train.History(np.ones(2), 0.0, 0.0)))
    monkeypatch.setattr(trebuchet, "judge", lambda model, test: (misses, None))
    monkeypatch.setattr(trebuchet, "report_on", lambda *_: report.Report("page", ""))
    misses[:3] = np.nan
    result = json.loads(command("trebuchet", "train", "--json")[1])
    assert (result["failed_throws"], result["mean_miss"]) == (3, pytest.approx(0.01))
    misses[:] = np.nan
    code, _, complaint = command("trebuchet", "train")
    assert code == 1
    assert "error: none of the 1000 throws at fresh targets has a range" in complaint


def test_flights_without_a_touchdown_are_counted(module_of, monkeypatch):
    rocket = module_of("rocket")
    status = jnp.array([ds.Status.FINISHED, ds.Status.EVENT_NOT_FOUND, ds.Status.NON_FINITE])
    end = np.array([0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 27_000.0])
    ends = jnp.stack([end, end, np.nan * end])
    monkeypatch.setattr(rocket, "judge", lambda policy, starts: (ends, status))
    result = rocket.measured(None, jnp.asarray(np.tile(rocket.MIDDLE, (3, 1))))
    assert (result["landings"], result["without_touchdown"], result["without_touchdown_from_above"]) == (1, 2, 2)
    assert result["sink_m_s"] == 1.0
    assert np.isfinite(result["fuel_over_least"])
    monkeypatch.setattr(rocket, "judge", lambda policy, starts: (ends, status.at[0].set(ds.Status.STEP_LIMIT)))
    with pytest.raises(ds.RunError, match="no flight of 3 touched down"):
        rocket.measured(None, jnp.asarray(np.tile(rocket.MIDDLE, (3, 1))))


def test_a_swing_that_is_not_solved_is_counted_and_no_success(module_of):
    swingup = module_of("swingup")
    starts = jnp.zeros((2, 4)).at[:, 2].set(jnp.array([0.0, 0.1]))
    pushes = lambda state: jnp.where(state[2] > 0, jnp.nan, 0.0)
    _, exact, difference, solved = swingup.judge(pushes, starts)
    np.testing.assert_array_equal(solved, [True, False])
    np.testing.assert_array_equal(exact, [True, False])
    assert np.isnan(difference[1])


def test_descents_that_diverge_are_an_error(command, module_of, monkeypatch):
    failed(command("regression", "sine", "--step", 1, "--points", 50), "diverges with step=1; give a smaller one")
    monkeypatch.setattr(module_of("regression"), "bound_of", lambda *_: jnp.nan)
    failed(command("regression", "bound", "--problems", 3, "--steps", 2), "3 of 3 problems have a loss or bound that")
