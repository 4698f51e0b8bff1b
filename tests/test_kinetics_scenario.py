"""The reaction kinetics: results for the data set in the repository, and messages for bad data."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from diffsim.experiments import read_experiments

DATA = Path(__file__).parent.parent / "scenarios" / "data" / "kinetics.csv"


@pytest.fixture(scope="session")
def kinetics(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "kinetics")


def result_of(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_rates_are_found_and_the_designed_experiment_helps(tmp_path, kinetics, module_of):
    result = result_of(kinetics("--json", cwd=tmp_path))
    for number, true in enumerate(module_of("kinetics").TRUE, 1):
        # The data set is one draw of twelve rates: 3.5 standard deviations.
        assert abs(result[f"k{number}"] - true) < 3.5 * result[f"k{number}_std"], number
    low, high = result["profile"]
    assert low < result[result["worst"]] < high
    assert result["std_designed"] < 0.8 * result["std_plain"]
    assert result["std_plain"] < result["std"]
    assert result["status"] == "converged"
    folder = tmp_path / result["run"]
    assert len(list((folder / "figures").iterdir())) == 5
    assert "Simulated, not measured" in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("blackjax") is None, reason="blackjax is not installed")
def test_samples_have_the_moments_of_a_grid(tmp_path, kinetics):
    result = result_of(kinetics("sample", "--json", cwd=tmp_path))
    assert result["divergent"] == 0
    assert result["effective"] > 300
    for name in ("rate", "level"):
        assert abs(result[f"{name}_monte_carlo_errors"]) < 4
        assert result[f"{name}_std"] == pytest.approx(result[f"{name}_grid_std"], rel=0.15)


@pytest.mark.slow
def test_the_data_set_is_what_generate_makes(tmp_path, kinetics):
    result = result_of(kinetics("generate", "made.csv", "--json", cwd=tmp_path))
    made = tmp_path / "made.csv"
    assert made.read_text().splitlines()[:2] == DATA.read_text().splitlines()[:2]
    assert result["rows"] == len(DATA.read_text().splitlines()) - 2
    for new, old in zip(read_experiments(made), read_experiments(DATA), strict=True):
        assert (new.name, new.columns) == (old.name, old.columns)
        np.testing.assert_array_equal(new.ts, old.ts)
        # Written with four decimals; another version of the solver may differ in the last.
        np.testing.assert_allclose(new.data, old.data, atol=1.01e-4)


def test_the_rates_are_those_of_mass_action(module_of):
    s = module_of("kinetics")
    rates = np.array(s.TRUE)
    y = np.random.default_rng(0).random(6)
    with jax.numpy_rank_promotion("allow"):
        change = np.asarray(s.react(0.0, y, rates))
    by_hand = np.zeros(6)
    for rate, (reacting, after) in zip(rates, s.REACTIONS, strict=True):
        speed = rate * np.prod([y[s.SPECIES.index(one)] for one in reacting])
        for names, sign in ((reacting, -1), (after, 1)):
            for one in names:
                by_hand[s.SPECIES.index(one)] += sign * speed
    np.testing.assert_allclose(change, by_hand, rtol=1e-12, atol=1e-12)


HEAD = "experiment,time,observable,value\n"
ROWS = "".join(f"equal,{0.1 * i + 0.1:.1f},{species},0.5\n" for i in range(3) for species in "ABDEF")
BAD = {
    "column.csv": (HEAD.replace("value", "x") + ROWS, "has no column 'value'"),
    "word.csv": (HEAD + ROWS + "equal,9,A,high\n", "line 17: value='high' is not a number"),
    "species.csv": (HEAD + ROWS.replace(",F,", ",G,"), "no row has observable 'F'; known: A, B, D, E, G"),
    "mixture.csv": (
        HEAD + ROWS.replace("equal", "cold"),
        "has experiment 'cold': its mixture is not known; give equal",
    ),
    "early.csv": (HEAD + ROWS + "equal,-1,A,1.0\n", "t0=0 is after ts[0]=-1: give an initial time that is not later"),
    "empty.csv": ("# nothing\n", "is empty: give a header"),
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *[(("fit", "--data", name), message) for name, (_, message) in BAD.items()],
        (("fit", "--data", "missing.csv"), "missing.csv"),
        (("sample", "--draws", "0"), "draws=0: give"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, tmp_path, command):
    if words[-1] in BAD:
        (tmp_path / words[-1]).write_text(BAD[words[-1]][0])
    code, _, complaint = command("kinetics", *words)
    assert code == 2
    assert message in complaint
