"""The neural differential equations: the law is found, and messages for bad data."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "scenarios" / "data" / "pelts.csv"


@pytest.fixture(scope="session")
def neural_ode(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "neural_ode")


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.exhaustive
def test_the_law_is_found_for_8_of_10_seeds(module_of):
    s = module_of("neural_ode")
    right, found, errors = np.asarray(s.true_law().coefficients), 0, []
    for seed in range(10):
        record = s.simulated(seed)
        model = s.network_fit(record, s.true_law().known, 6, seed)
        coefficients = np.asarray(s.formulas(model, record)[0].formula.coefficients)
        if np.array_equal(coefficients != 0, right != 0):
            found += 1
            errors.append(np.max(np.abs(coefficients - right)))
    assert found >= 8
    assert max(errors) < 0.02


def test_regression_leaves_out_what_is_off(module_of):
    s = module_of("neural_ode")
    terms = np.random.default_rng(0).normal(size=(50, 6))
    coefficients, t_values = s.regression(terms, terms @ [[0, 1], [2, 0], [0, 0], [0, 0], [0, 0], [0, 0]], np.eye(2, 6))
    assert t_values[0, 1] == np.inf
    assert coefficients[0, 1] == 0
    full, _ = s.regression(terms, terms[:, 1:3], np.ones((2, 6)))
    np.testing.assert_allclose(full, np.eye(6)[1:3], atol=1e-12)


@pytest.mark.slow
def test_the_record_of_pelts(tmp_path, neural_ode):
    result = result_of(neural_ode("pelts", "--json", cwd=tmp_path))
    # The published fit of the same law: 0.55 and 0.80 per year.
    assert result["growth_of_hares"] == pytest.approx(0.55, abs=0.05)
    assert result["deaths_of_lynxes"] == pytest.approx(0.80, abs=0.05)
    assert result["rms_network"] < result["rms_formula"] < 1.05 * result["rms_lotka_volterra"]
    assert (tmp_path / result["run"] / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [line.replace("47.2", "0") for line in lines], "has a population that is not above 0"),
        (lambda lines: lines[:-3], "has 18 rows: give 10 years or a multiple, and one row more"),
        (lambda lines: [line.replace("lynx", "cat") for line in lines], "has no column 'lynx'"),
    ],
)
def test_bad_records_are_refused(tmp_path, neural_ode, change, message):
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(change(DATA.read_text().splitlines())) + "\n")
    done = neural_ode("pelts", "--data", path, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
