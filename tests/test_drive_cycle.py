"""The drive cycle: results for the data in the repository, and messages for bad input."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.io.measurements import read_measurements

DATA = Path(__file__).parent.parent / "scenarios" / "data"
TRUE = {"resistance": 0.08, "branch_resistance": 0.05, "branch_capacitance": 600.0, "capacity": 20.0}


@pytest.fixture(scope="session")
def drive_cycle(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "drive_cycle")


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_energy_and_battery(tmp_path, drive_cycle):
    result = result_of(drive_cycle("--json", cwd=tmp_path))
    assert result["kilometres"] == pytest.approx(7.45 * 1.609, rel=2e-3)  # the published length of the schedule
    assert 8.0 < result["kwh_per_100km"] < 14.0
    for name, true in TRUE.items():
        # The recording is one draw: three standard deviations.
        assert abs(result[name] - true) < 3 * result[f"{name}_std"] < 0.2 * true, name
    assert 0.17 < result["noise"] < 0.23
    assert result["status"] == "converged"
    folder = tmp_path / result["run"]
    assert {path.name for path in (folder / "figures").iterdir()} == {"voltage.png", "drive.png"}
    page = (folder / "report.html").read_text()
    assert "Urban Dynamometer Driving Schedule" in page
    assert "Simulated, not measured" in page


def test_the_energy_of_a_short_drive_is_that_of_its_power(module_of):
    """Without drag and friction it is that of the car's motion and of its devices, whatever the battery."""
    s = module_of("drive_cycle")
    speed = ds.signal([0.0, 10.0, 30.0, 40.0], [0.0, 20.0, 20.0, 0.0], unit="m/s")
    model = s.Model(s.Car(drag_area=0.0, rolling=0.0), s.Battery())
    ts = jnp.array([0.0, 10.0, 30.0, 40.0])
    with jax.numpy_rank_promotion("allow"):
        energy = jax.jit(lambda model: s.simulate(model, speed, ts).energy)(model)
    kinetic = 0.5 * 1600.0 * 20.0**2
    right = np.cumsum([0.0, kinetic / 0.88 + 4000.0, 8000.0, 4000.0 - 0.88 * kinetic])
    np.testing.assert_allclose(energy, right, rtol=1e-5)


@pytest.mark.slow
def test_the_voltage_is_what_generate_makes(tmp_path, drive_cycle):
    result = result_of(drive_cycle("generate", "made.csv", "--json", cwd=tmp_path))
    made, shipped = tmp_path / "made.csv", DATA / "drive_cycle.csv"
    assert made.read_text().splitlines()[:2] == shipped.read_text().splitlines()[:2]
    generated, old = (read_measurements(path, ["time", "voltage"], gaps=["voltage"]) for path in (made, shipped))
    assert result["rows"] == old["time"].size
    np.testing.assert_array_equal(generated["time"], old["time"])
    # Written with two decimals; another version of the solver may differ in the last.
    np.testing.assert_allclose(generated["voltage"], old["voltage"], atol=0.0101)


CYCLE = "time [s],speed [m/s]\n" + "".join(f"{i},{min(i, 5)}\n" for i in range(30))
HEAD = "time,voltage\n"
ROWS = [f"{i + 0.5},{370 - 0.1 * i:.1f}\n" for i in range(20)]
BAD = {
    ("--cycle", "other.csv"): ("time [s],speed [km/h]\n0,0\n9,1\n", "column 'speed' in km/h, not in m/s", 2),
    ("--cycle", "gap.csv"): ("time [s],speed [m/s]\n0,0\n5,\n9,1\n", "line 3: speed [m/s]=''", 2),
    ("--cycle", "order.csv"): ("time [s],speed [m/s]\n0,0\n5,1\n5,1\n", "line 4: time [s]=5 after 5", 2),
    ("--cycle", "fast.csv"): ("time [s],speed [m/s]\n0,0\n10,80\n", "was not solved, as where it needs more power", 1),
    ("--voltage", "column.csv"): ("time,volts\n" + "".join(ROWS), "has no column 'voltage'; it has time, volts", 2),
    ("--voltage", "few.csv"): (HEAD + "".join(ROWS[:3]), "has 3 rows of measurements: give at least 12", 2),
    ("--voltage", "late.csv"): (HEAD + "".join(ROWS) + "99,370\n", "has times from 0.5 to 99 s: give times above 0", 2),
}


@pytest.mark.parametrize("words", BAD, ids=lambda words: words[-1])
def test_bad_input_is_named(words, tmp_path, command):
    text, message, expected = BAD[words]
    (tmp_path / "cycle.csv").write_text(CYCLE)
    (tmp_path / words[-1]).write_text(text)
    cycle = ("--cycle", "cycle.csv") if words[0] != "--cycle" else ()
    with jax.numpy_rank_promotion("allow"):
        code, _, complaint = command("drive_cycle", "cost", *cycle, *words)
    assert code == expected
    assert message in complaint


def test_a_voltage_that_was_not_solved_is_not_written(command, module_of, monkeypatch, tmp_path):
    monkeypatch.setattr(module_of("drive_cycle"), "voltages", lambda model, speed, ts: jnp.nan * ts)
    code, _, complaint = command("drive_cycle", "generate", "a.csv")
    assert code == 1
    assert "the drive was not solved: nothing is written" in complaint
    assert not (tmp_path / "a.csv").exists()
