"""Experiments from long tables: any order of rows, replicates, gaps, units, and faults with their line."""

import numpy as np
import pytest

from diffsim import InputError
from diffsim.experiments import experiments_from_table, read_experiments

ROWS = [
    ("hot", 1.0, "x", 0.5, 0.1),
    ("hot", 0.0, "x", 1.0, 0.1),
    ("cold", 2.0, "y", 4.0, 0.2),
    ("hot", 1.0, "y", 3.0, 0.2),
    ("hot", 1.0, "x", 0.7, 0.5),
    ("cold", 0.5, "x", np.nan, 0.1),
]
NAMES = ("experiment", "time", "observable", "value", "std")


def table(rows=ROWS):
    return dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))


def written(path, rows=ROWS, names=NAMES):
    cell = lambda x: "" if x != x else str(x)
    path.write_text("\n".join([",".join(names), *(",".join(map(cell, row)) for row in rows)]))
    return path


def check(experiments):
    by_name = {experiment.name: experiment for experiment in experiments}
    hot, cold = by_name["hot"], by_name["cold"]
    assert hot.columns == cold.columns == ("x", "y", "x", "y")
    np.testing.assert_array_equal(hot.ts, [0.0, 1.0])
    np.testing.assert_array_equal(cold.ts, [0.5, 2.0])
    np.testing.assert_array_equal(hot.data[0], [1.0, np.nan, np.nan, np.nan])
    assert set(np.asarray(hot.data)[1, [0, 2]]) == {0.5, 0.7}
    assert hot.data[1, 1] == 3.0
    np.testing.assert_array_equal(cold.data, [[np.nan] * 4, [np.nan, 4.0, np.nan, np.nan]])
    assert np.all(np.isnan(hot.data[:, 3]))
    return hot


def test_rows_in_any_order_are_the_same_experiments(tmp_path):
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(ROWS))
        rows = [ROWS[i] for i in order]
        check(experiments_from_table(table(rows)))
        hot = check(read_experiments(written(tmp_path / "rows.csv", rows), noise="std"))
        weights = {float(d): float(w) for d, w in zip(hot.data.ravel(), hot.weights.ravel(), strict=True) if d == d}
        assert weights == pytest.approx({1.0: 100.0, 0.5: 100.0, 0.7: 4.0, 3.0: 25.0})
        assert float(hot.noise.std) == 1.0


def test_one_observable_and_units(tmp_path):
    rows = [("a", 1.0, 2.0, 0.5), ("a", 0.5, 3.0, 0.25), ("b", 0.0, 1.0, 0.5)]
    path = written(tmp_path / "rows.csv", rows, ("name", "minutes", "heat", "std"))
    options = {"experiment": "name", "time": "minutes", "value": "heat", "observable": None}
    a, b = read_experiments(path, noise="std", units={"minutes": 60.0, "heat": 10.0}, **options)
    np.testing.assert_array_equal(a.ts, [30.0, 60.0])
    np.testing.assert_array_equal(a.data, [30.0, 20.0])
    np.testing.assert_allclose(a.weights, [1 / 2.5**2, 1 / 5.0**2])
    assert b.columns == ("heat",)
    assert read_experiments(path, noise=0.1, **options)[0].noise.std == 0.1


def test_observables_are_chosen_and_ordered():
    assert experiments_from_table(table(), observables=["y", "x"])[0].columns == ("y", "x", "y", "x")
    (hot, cold) = experiments_from_table(table(), observables=["y"])
    np.testing.assert_array_equal(hot.data, [[3.0]])
    assert cold.data.shape == (1, 1)


FAULTS = {
    "cell": (("hot", "1,0", "x", 2.0, 1.0), r"line 8: 6 cells under 5 columns"),
    "time": (("hot", "", "x", 2.0, 1.0), r"rows.csv, line 8: time='' is not a number; give a finite number"),
    "value": (("hot", 1.0, "x", "high", 1.0), r"rows.csv, line 8: value='high' is not a number; .* nothing for a gap"),
    "name": ((" ", 1.0, "x", 2.0, 1.0), r"rows.csv, line 8: experiment is empty; give a name"),
    "std": (("hot", 1.0, "x", 2.0, 0.0), r"rows.csv, line 8: the standard deviation is 0; give a positive number"),
    "no std": (("hot", 1.0, "x", 2.0, ""), r"rows.csv, line 8: the standard deviation is nan; give a positive number"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_file_are_named_with_their_line(name, tmp_path):
    row, message = FAULTS[name]
    with pytest.raises(InputError, match=message):
        read_experiments(written(tmp_path / "rows.csv", [*ROWS, row]), noise="std")


def test_faults_of_a_table_are_named(tmp_path):
    with pytest.raises(InputError, match=r"rows.csv has no column 'heat'; it has experiment, time"):
        read_experiments(written(tmp_path / "rows.csv"), value="heat")
    with pytest.raises(InputError, match="table has no column 'heat'"):
        experiments_from_table(table(), value="heat")
    with pytest.raises(InputError, match=r"row 1 of table: value='high' is not a number"):
        experiments_from_table(table([ROWS[0], ("hot", 1.0, "x", "high", 1.0)]))
    with pytest.raises(InputError, match=r"units has 'z': give factors for time, x, y"):
        experiments_from_table(table(), units={"z": 1.0})
    with pytest.raises(InputError, match=r"units\['x'\]=-1: give a positive factor"):
        experiments_from_table(table(), units={"x": -1.0})
    with pytest.raises(InputError, match=r"no row has observable 'z'; known: x, y"):
        experiments_from_table(table(), observables=["x", "z"])
    with pytest.raises(InputError, match="the columns of table have lengths"):
        experiments_from_table(table() | {"time": [0.0]})
    with pytest.raises(InputError, match="the table has no measurements"):
        experiments_from_table({name: [] for name in NAMES})
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv is empty: give a header"):
        read_experiments(tmp_path / "empty.csv")


def test_a_data_frame_is_a_table():
    pandas = pytest.importorskip("pandas")
    check(experiments_from_table(pandas.DataFrame(table()).sample(frac=1.0, random_state=0)))
