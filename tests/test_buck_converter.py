"""The buck converter: results for the recording in the repository, and messages for bad input."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import diffsim as ds
from diffsim.io.measurements import read_measurements

DATA = Path(__file__).parent.parent / "scenarios" / "data" / "buck_converter.csv"
COLUMNS = ["time", "current", "voltage"]


@pytest.fixture(scope="session")
def buck(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "buck_converter")


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_ripple_and_its_derivatives_are_the_exact_ones(tmp_path, buck):
    result = result_of(buck("--json", cwd=tmp_path))
    assert result["value_error"] < 1e-11
    assert result["gradient_error"] < 1e-10
    assert result["hessian_error"] < 1e-8
    # The ripple is about (12 V - 5 V) 0.42 10 us / 47 uH, in proportion to the period and inverse to the inductance.
    assert result["ripple"] == pytest.approx(0.65, rel=0.05)
    assert result["d_ripple_d_log_period"] == pytest.approx(result["ripple"], rel=0.01)
    assert result["d_ripple_d_log_inductance"] == pytest.approx(-result["ripple"], rel=0.01)
    folder = tmp_path / result["run"]
    assert [path.name for path in (folder / "figures").iterdir()] == ["start.png"]
    assert (folder / "report.html").read_text().count(">agrees<") == 4


@pytest.mark.slow
def test_the_parts_are_found_within_their_intervals(tmp_path, buck):
    result = result_of(buck("identify", "--json", cwd=tmp_path))
    for name, true in (("inductance", 47e-6), ("capacitance", 100e-6), ("coil_resistance", 0.12)):
        # The recording is one draw: three standard deviations.
        assert abs(result[name] - true) < 3 * result[f"{name}_std"] < 0.02 * true, name
    assert result["status"] == "converged"
    assert 0.7 * 552 < 2 * result["loss"] < 1.3 * 552  # each of 552 measurements adds about half a variance
    folder = tmp_path / result["run"]
    assert {path.name for path in (folder / "figures").iterdir()} == {"current.png", "voltage.png"}
    assert "Simulated, not measured" in (folder / "report.html").read_text()


@pytest.mark.parametrize("duty", [0.3, 0.6])
def test_three_periods_are_the_exact_ones(module_of, monkeypatch, duty):
    buck = module_of("buck_converter")
    monkeypatch.setattr(buck, "PERIODS", 3)
    model = buck.Converter(ds.clock(1e-5, duty))
    with jax.numpy_rank_promotion("allow"):
        both = jax.jit(lambda model: [jax.value_and_grad(ripple)(model) for ripple in (buck.ripple, buck.exact_ripple)])
        (value, gradient), (right, slopes) = both(model)
    np.testing.assert_allclose(value, right, rtol=1e-10)
    for path, entry in ds.parameters(gradient).items():
        relative = ds.parameters(model)[path].value / right
        np.testing.assert_allclose(relative * entry.value, relative * ds.parameters(slopes)[path].value, atol=1e-8)


@pytest.mark.slow
def test_the_recording_is_what_generate_makes(tmp_path, buck):
    assert result_of(buck("generate", "made.csv", "--json", cwd=tmp_path))["rows"] == 300
    made = tmp_path / "made.csv"
    assert made.read_text().splitlines()[:2] == DATA.read_text().splitlines()[:2]
    generated, shipped = (read_measurements(path, COLUMNS, gaps=COLUMNS[1:]) for path in (made, DATA))
    # Written with five digits; another version of the solver may differ in the last.
    for name, size in (("time", 6e-4), ("current", 4.0), ("voltage", 8.0)):
        np.testing.assert_allclose(generated[name], shipped[name], atol=2e-5 * size)


HEAD = "time,current,voltage\n"
ROWS = [f"{1e-6 * i:.1e},{0.1 * i:.1f},0.1\n" for i in range(20)]
BAD = {
    "column.csv": ("time,current,u\n" + "".join(ROWS), "has no column 'voltage'; it has time, current, u"),
    "order.csv": (HEAD + "".join(ROWS[:5] + ROWS[3:]), "line 7: time=3e-06 after 4e-06; time must increase"),
    "word.csv": (HEAD + "".join(ROWS) + "9e-4,high,1\n", "line 22: current='high' is not a number"),
    "few.csv": (HEAD + "".join(ROWS[:3]), "has 3 rows of measurements: give at least 12"),
    "gaps.csv": (HEAD + "".join(f"{i}e-6,1,\n" for i in range(20)), "has 0 numbers in column 'voltage'"),
    "late.csv": (HEAD + "".join(ROWS) + "1,1,1\n", "has times from 0 to 1 s: give 0 to 0.000666667, from the first"),
    "early.csv": (HEAD + "-1e-6,1,1\n" + "".join(ROWS), "has times from -1e-06 to 1.9e-05 s: give 0 to"),
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *[(("identify", "--data", name), message) for name, (_, message) in BAD.items()],
        (("identify", "--data", "missing.csv"), "missing.csv"),
        (("derivatives", "--duty", "1"), "duty=1.0: give"),
        (("derivatives", "--period", "0"), "period=0.0: give a finite number, above 0"),
        (("derivatives", "--duty", "0.05"), "duty=0.05, period=1e-05: the current of the coil falls to zero"),
        (("generate", "out.csv", "--rows", "3"), "rows=3: give"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, tmp_path, command):
    if words[-1] in BAD:
        (tmp_path / words[-1]).write_text(BAD[words[-1]][0])
    with jax.numpy_rank_promotion("allow"):
        code, _, complaint = command("buck_converter", *words)
    assert code == 2
    assert message in complaint


def test_a_recording_of_a_failed_solve_is_not_written(command, module_of, monkeypatch, tmp_path):
    monkeypatch.setattr(module_of("buck_converter"), "simulate", lambda model, ts, **_: np.nan * ts[:, None])
    code, _, complaint = command("buck_converter", "generate", "a.csv")
    assert code == 1
    assert "the start of the converter was not solved: nothing is written" in complaint
    assert not (tmp_path / "a.csv").exists()
