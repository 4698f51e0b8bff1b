"""Short runs of every scenario as a user starts them, and their messages for bad input."""

import csv
import html
import json
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"


@pytest.mark.slow
def test_short_training_writes_a_complete_run(tmp_path, scenario):
    done = scenario("trebuchet", "train", "--targets", 64, "--steps", 12, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    # Twelve iterations on 64 targets give a miss of some percent; an untrained network misses by more than half.
    assert result["mean_miss"] < 0.1
    folder = tmp_path / result["run"]
    assert {"config.toml", "metrics.jsonl", "versions.json", "report.html", "figures"} <= {
        path.name for path in folder.iterdir()
    }
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 12
    _resumes(folder, result, tmp_path, scenario)


@pytest.mark.slow
def test_the_evidence_on_a_gradient_is_on_the_report_if_asked_for(tmp_path, scenario):
    done = scenario("trebuchet", "train", "--targets", 16, "--steps", 2, "--evidence", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / json.loads(done.stdout.splitlines()[-1])["run"] / "report.html").read_text()
    assert "Stages of the pipeline" in html.unescape(page)
    certificate = page.rpartition("Certificate: the loss")[2]
    assert certificate.count("agrees") == 6  # a weight and a bias of three layers
    assert not any(word in certificate for word in ("disagrees", "inconclusive", "zero?", "non-finite"))


def _resumes(folder, result, place, scenario):
    """A run that was interrupted after its training, which is saved, resumes without training again."""
    metrics = (folder / "metrics.jsonl").read_bytes()
    (folder / "report.html").unlink()
    done = scenario("trebuchet", "train", "--resume", folder, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    # The seconds of training are the same too.
    assert json.loads(done.stdout.splitlines()[-1]) | {"run": result["run"]} == result
    assert (folder / "metrics.jsonl").read_bytes() == metrics
    assert (folder / "report.html").exists()


@pytest.mark.slow
def test_sweep_with_gradients_agrees_with_the_reference_table(tmp_path, scenario):
    out = tmp_path / "out.csv"
    done = scenario("trebuchet", "sweep", DATA / "gradients.csv", out, "--gradients", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected, row in zip(_rows(DATA / "gradients.csv"), _rows(out), strict=True):
        assert row["status"] == "taut"
        np.testing.assert_allclose(float(row["range"]), float(expected["range"]), rtol=1e-8)
        for column in ("angle_deg", "m_weight", "wind", "l_sling", "l_short", "l_long"):
            value, true = float(row[f"d_{column}"]), float(expected[f"d_{column}"])
            # Scaled by range over parameter where the derivative is near zero, like the table's errors.
            scale = max(abs(true), 1e-3 * abs(float(expected["range"])) / (abs(float(expected[column])) or 1.0))
            assert abs(value - true) <= 1e-6 * scale, column


@pytest.mark.slow
def test_sweep_gives_bad_rows_a_status_and_computes_the_others(tmp_path, scenario):
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("m_weight,angle_deg,h_pivot\n40,45,1.5\n-1,45,1.5\nheavy,45,1.5\n40,45,9\nnan,45,1.5\n40,40,1.5\n")
    done = scenario("trebuchet", "sweep", table, out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    statuses = [row["status"] for row in _rows(out)]
    assert statuses[0] == statuses[5] == "taut"
    assert "m_weight=-1 kg is not allowed" in statuses[1]
    assert "m_weight='heavy' is not a number" in statuses[2]
    assert statuses[3] == "starts_too_high"
    assert "m_weight=nan" in statuses[4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("throw", "--mass", "-3"), "mass=-3.0: give a finite number, above 0"),
        (("throw", "--wind", "nan"), "wind=nan"),
        (("aim", "--distance", "300"), "out of reach: at 32 degrees and wind 0 m/s this machine reaches"),
        (("sweep", "missing.csv", "out.csv"), "missing.csv"),
        (("sweep", "empty.csv", "out.csv"), "has no rows"),
        (("sweep", "unknown.csv", "out.csv"), "unknown column 'weight'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, tmp_path, command):
    (tmp_path / "empty.csv").write_text("m_weight\n")
    (tmp_path / "unknown.csv").write_text("weight\n40\n")
    code, _, complaint = command("trebuchet", *words)
    assert code == 2
    assert message in complaint
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_aim_hits_its_target(tmp_path, scenario):
    done = scenario("trebuchet", "aim", "--distance", 60, "--wind", -3, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["relative_miss"] <= 1e-6


def _rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
