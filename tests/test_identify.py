"""The identification scenario: results for the data sets in the repository, and messages for bad data."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from diffsim import InputError
from diffsim.io.measurements import read_measurements

DATA = Path(__file__).parent.parent / "scenarios" / "data"


@pytest.fixture(scope="session")
def identify(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "identify")


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_pendulum_is_found_within_its_intervals(tmp_path, identify):
    result = result_of(identify("--json", cwd=tmp_path))
    for name, true in (("length", 0.65), ("friction", 0.012), ("angle", 1.1), ("rate", -0.4)):
        # The data set is one draw: three standard deviations.
        assert abs(result[name] - true) < 3 * result[f"{name}_std"], name
    assert result["length_std"] < 1e-3
    assert 0.026 < result["noise"] < 0.034
    low, high = result["friction_profile"]
    assert low < result["friction"] < high
    assert result["at_bound"] == []
    folder = tmp_path / result["run"]
    assert {path.name for path in (folder / "figures").iterdir()} == {"band.png", "profile.png"}
    page = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert "Generated, not measured" in page
    assert page.count(" agrees ") == 4
    assert page.count("Not determined") == 1
    assert "machine.mass +1, machine.friction +1" in page


@pytest.mark.slow
def test_the_drag_is_found_within_its_interval(tmp_path, identify):
    result = result_of(identify("drag", "--json", cwd=tmp_path))
    assert abs(result["Cd"] - 0.9) < 3 * result["Cd_std"] < 0.01
    page = (tmp_path / result["run"] / "report.html").read_text()
    assert ">agrees<" in page


def test_the_data_set_is_what_generate_makes(tmp_path, identify):
    result = result_of(identify("generate", "made.csv", "--json", cwd=tmp_path))
    assert result["rows"] == 240
    new_text, shipped_text = (tmp_path / "made.csv").read_text(), (DATA / "pendulum.csv").read_text()
    assert new_text.splitlines()[:2] == shipped_text.splitlines()[:2]
    assert new_text.startswith("# Generated, not measured")
    generated, shipped = (
        read_measurements(p, ["time", "angle"], gaps=["angle"]) for p in (tmp_path / "made.csv", DATA / "pendulum.csv")
    )
    # Written with six digits; another version of the solver may differ in the last.
    np.testing.assert_allclose(generated["angle"], shipped["angle"], atol=1e-5)


HEAD = "time,angle\n"
ROWS = [f"{0.1 * i:.1f},{0.5 - 0.01 * i:.2f}\n" for i in range(20)]
BAD = {
    "column": ("time,theta\n" + "".join(ROWS), "has no column 'angle'; it has time, theta: rename one, or add it"),
    "order": (HEAD + "".join(ROWS[:5] + ROWS[3:]), "line 7: time=0.3 after 0.4; time must increase"),
    "word": (HEAD + "".join(ROWS) + "9.0,high\n", "line 22: angle='high' is not a number"),
    "time": (HEAD + "".join(ROWS) + ",0.1\n", "line 22: time='' is not a number; give a finite number"),
    "length": (HEAD + "".join(ROWS) + "9.0\n", "line 22: 1 cells under 2 columns"),
    "long": (HEAD + "".join(ROWS) + "9.0,0.1,3\n", "line 22: 3 cells under 2 columns"),
    "few": (HEAD + "".join(ROWS[:3]), "has 3 rows of measurements: give at least 12"),
    "gaps": (HEAD + "".join(f"{i},\n" for i in range(30)), "has 0 numbers in column 'angle': give at least 12"),
    "empty": ("# nothing\n", "is empty: give a header with time, angle"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_measurements_are_named_with_the_remedy(name, tmp_path):
    text, message = BAD[name]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_measurements(tmp_path / "bad.csv", ["time", "angle"], gaps=["angle"], increasing="time", rows=12)


def test_measurements_with_remarks_gaps_and_other_columns_are_read(tmp_path):
    text = '\ufeff# of a pendulum\n\nnote, time ,angle\na,0,1\n# a remark\n"b, c",1,\nd,2,nan\ne,3,-1e-1\n'
    (tmp_path / "good.csv").write_text(text, encoding="utf-8")
    columns = read_measurements(tmp_path / "good.csv", ["time", "angle"], gaps=["angle"], increasing="time")
    np.testing.assert_array_equal(columns["time"], [0, 1, 2, 3])
    np.testing.assert_array_equal(columns["angle"], [1, np.nan, np.nan, -0.1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pendulum", "--data", "order.csv"), "time must increase"),
        (("pendulum", "--data", "missing.csv"), "missing.csv"),
        (("pendulum", "--mass", "0"), "mass=0.0: give a finite number, above 0"),
        (("pendulum", "--length", "-1"), "length=-1.0: give a finite number, above 0"),
        (("drag", "--start", "0"), "start=0.0: give"),
        (("drag", "--data", "order.csv"), "has no column 'angle_deg'"),
        (("generate", "out.csv", "--rows", "3"), "rows=3: give at least 12, or 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, tmp_path, command):
    (tmp_path / "order.csv").write_text(BAD["order"][0])
    code, _, complaint = command("identify", *words)
    assert code == 2
    assert message in complaint
