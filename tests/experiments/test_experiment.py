"""Experiments and groups of them: conversion, initial times, padding, and input that is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim import Experiment, FitProblem, InputError
from diffsim.experiments import Normal, Student
from diffsim.experiments.groups import grouped, pad_times

TS = np.array([0.0, 1.0, 3.0])
line = lambda model, experiment: model * experiment.ts


def test_an_experiment_converts_what_it_is_given():
    experiment = Experiment([0, 1, 3], [1, 2, 3], y0={"x": 1, "v": 2.0}, inputs=(3, 0.5, "text", None), noise=0.1)
    assert experiment.ts.dtype == experiment.data.dtype == jnp.float64
    assert experiment.y0["x"].dtype == jnp.float64
    assert experiment.inputs[0].dtype == jnp.int64
    assert Experiment(TS, TS, y0=np.array([1, 2])).y0.dtype == jnp.float64
    assert experiment.inputs[2:] == ("text", None)
    assert isinstance(experiment.noise, Normal)
    assert Experiment(np.float32(TS), np.float32(TS)).data.dtype == jnp.float32


def test_an_earlier_initial_time_is_a_gap():
    experiment = Experiment([1.0, 2.0], [[3.0, np.nan], [4.0, 5.0]], weights=[2.0, 1.0], t0=0.0)
    np.testing.assert_array_equal(experiment.ts, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(experiment.measured, [[False, False], [True, False], [True, True]])
    np.testing.assert_array_equal(experiment.weights[1:], [[2.0, 2.0], [1.0, 1.0]])
    again = dataclasses.replace(experiment, name="again", y0=1.0)
    np.testing.assert_array_equal(again.ts, experiment.ts)
    assert Experiment(TS, TS, t0=0.0).ts.size == 3


def test_times_are_padded_within_the_widest_gaps():
    padded, rows = pad_times(jnp.asarray(TS), 6)
    np.testing.assert_array_equal(padded, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_array_equal(rows, [0, 2, 5])
    ts = np.sort(np.random.default_rng(0).uniform(0, 1, 50)).astype(np.float32)
    padded, rows = pad_times(jnp.asarray(ts), 200)
    assert padded.dtype == np.float32
    assert np.all(np.diff(padded) > 0)
    np.testing.assert_array_equal(padded[rows], ts)
    assert (padded[0], padded[-1]) == (ts[0], ts[-1])


def test_times_that_their_format_does_not_resolve_are_not_padded():
    """Near 1e6 s single precision has steps of 0.06 s."""
    late = jnp.array([1e6, 1e6 + 10, 1e6 + 20], jnp.float32)
    assert pad_times(late, 30) is None
    some = [Experiment(late, late), Experiment(np.linspace(0, 1, 9, dtype=np.float32), np.ones(9, np.float32))]
    assert [group.members for group in grouped(some)] == [(1,), (0,)]


def test_groups_have_one_structure_and_a_range_of_lengths():
    ts = lambda n: np.linspace(0.0, 1.0, n)
    some = [
        Experiment(ts(n), ts(n), y0=y0, inputs=inputs, noise=noise)
        for n, y0, inputs, noise in [
            (100, 1.0, "a", 0.1),
            (26, 2.0, "a", 0.3),
            (25, 3.0, "a", 0.1),
            (100, 1.0, "b", 0.1),
            (100, np.ones(2), "a", 0.1),
            (50, 1.0, "a", Student(1.0, 3.0)),
            (60, np.zeros(2), "a", 0.2),
        ]
    ]
    assert {group.members for group in grouped(some)} == {(0, 1), (2,), (3,), (4, 6), (5,)}


def test_functions_of_one_line_do_not_divide_a_group():
    some = [Experiment(TS, TS, noise=lambda model: 0.1) for _ in range(3)]
    assert len(grouped(some)) == 1
    some = [Experiment(TS, TS, noise=lambda model, std=std: std) for std in (0.1, 0.2)]
    assert len(grouped(some)) == 2


def test_experiments_with_traced_data_are_fitted():
    """Within vmap, where their values are not known."""
    residuals = lambda data: FitProblem(line, [Experiment(TS, data), Experiment(TS[:2], TS[:2])]).residuals(
        jnp.array(2.0)
    )
    data = jnp.stack([TS, jnp.full(3, jnp.nan)])
    np.testing.assert_allclose(jax.vmap(residuals)(data), [[0, 1, 3, 0, 1], [0, 0, 0, 0, 1]])


REFUSED = {
    "order": (
        lambda: Experiment([0, 2, 1], TS, name="hot"),
        r"experiment 'hot': ts must increase: ts\[1\]=2, ts\[2\]=1",
    ),
    "NaN time": (lambda: Experiment([0, np.nan, 1], TS), r"experiment without name: ts\[1\]=nan: give finite times"),
    "near": (
        lambda: Experiment(np.float32([1e6, 1e6 + 1, 1e6 + 50]), TS),
        r"ts\[0\]=1e\+06 and ts\[1\]=1e\+06 are too near to each other for float32: count them from the first",
    ),
    "length": (lambda: Experiment(TS, TS[:2]), r"data has shape \(2,\) at 3 times, expected \(3,\) or \(3, columns\)"),
    "infinite": (lambda: Experiment(TS, [0, np.inf, 1]), r"data\[1\]=inf: give finite numbers, or NaN for a gap"),
    "ragged": (lambda: Experiment(TS, [[1.0], [2.0, 3.0], [4.0]]), r"data=\[\[1.0\].*: give an array, without rows of"),
    "complex": (lambda: Experiment(TS, TS * 1j), r"data=array.*: give an array of real numbers"),
    "text": (lambda: Experiment(TS, ["a", "b", "c"]), r"data=\['a', 'b', 'c'\]: give an array of real numbers"),
    "weights": (lambda: Experiment(TS, TS, weights=[1, -1, 1]), r"weights\[1\]=-1: give finite numbers from 0 up"),
    "weights' shape": (
        lambda: Experiment(TS, np.ones((3, 2)), weights=np.ones((3, 3))),
        r"weights has shape \(3, 3\), expected \(3, 2\) or \(3,\)",
    ),
    "noise": (
        lambda: Experiment(TS, TS, noise=-0.1, name="hot"),
        r"experiment 'hot': noise=-0.1: std=-0.1: give positive",
    ),
    "noise's shape": (
        lambda: Experiment(TS, np.ones((3, 2)), noise=np.ones(3)),
        r"noise.std has shape \(3,\), expected \(\) or \(2,\), one for each column; .* weights = 1 / std\*\*2",
    ),
    "noise of a model": (
        lambda: Experiment(TS, TS, noise=Student(np.ones(2), 3.0)),
        r"noise.std has shape \(2,\), expected \(\); for a standard deviation of each",
    ),
    "no noise": (lambda: Experiment(TS, TS, noise="big"), r"noise='big': give numbers, a noise model or a function"),
    "late": (lambda: Experiment(TS, TS, t0=1.0), r"t0=1 is after ts\[0\]=0: give an initial time that is not later"),
    "t0": (lambda: Experiment(TS, TS, t0=np.nan), r"t0=nan: give one finite number"),
    "names": (lambda: Experiment(TS, TS, columns=("x", "y")), r"are 2 names for 1 columns of data: give one for each"),
    "replicates": (
        lambda: Experiment(TS, np.ones((3, 4)), columns=("x", "x", "y", "y")),
        r"give replicates in blocks, each of \('x', 'y'\)",
    ),
    "empty": (lambda: FitProblem(line, []), r"experiments is empty: give at least one"),
    "no data": (
        lambda: FitProblem(line, [Experiment(TS, TS), Experiment(TS, TS, weights=np.zeros(3))]),
        r"experiment '1' has no measurement, only gaps",
    ),
    "twice": (
        lambda: FitProblem(line, [Experiment(TS, TS, name="hot")] * 2),
        r"experiment 'hot' is number 1, and number 0, too: rename one",
    ),
    "a number as a name": (
        lambda: FitProblem(line, [Experiment(TS, TS, name="1"), Experiment(TS, TS)]),
        r"experiment '1' is number 1, and number 0, too: rename one",
    ),
    "noise of some": (
        lambda: FitProblem(line, [Experiment(TS, TS), Experiment(TS, TS, noise=0.1, name="hot")]),
        r"experiment 'hot' has noise=Normal.*the first has None: give noise of all",
    ),
    "unknown local": (
        lambda: FitProblem(line, [Experiment(TS, TS)], local="ofset").start({"offset": jnp.array(1.0)}),
        r"unknown parameter 'ofset'; did you mean 'offset'\?",
    ),
    "not started": (
        lambda: FitProblem(line, [Experiment(TS, TS)] * 2, local="x").residuals({"x": jnp.ones(3)}),
        r"x has shape \(3,\), but is local to 2 experiments, which its first axis counts: start from problem.start",
    ),
    "unknown experiment": (
        lambda: FitProblem(line, [Experiment(TS, TS, name="hot")]).predictor("cold"),
        r"unknown experiment 'cold': give a name or a number; known: hot",
    ),
    "number": (
        lambda: FitProblem(line, [Experiment(TS, TS)]).local_model(1.0, 1),
        r"unknown experiment 1: give a name or a number; known: 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_input_that_makes_no_sense_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        make()


PREDICTIONS = {
    "shape": (
        lambda model, e: jnp.ones((len(e.ts), 2)),
        r"returned shape \(3, 2\) for experiment 'hot'; expected \(3,\), one number",
    ),
    "transposed": (
        lambda model, e: jnp.ones(2),
        r"returned shape \(2,\) for experiment 'hot'; expected \(3,\), one number for each of the 3 times in",
    ),
    "tuple": (
        lambda model, e: (e.ts, e.ts),
        r"simulate returned a tuple for experiment 'hot': return one array; expected \(3,\)",
    ),
    "integers": (lambda model, e: jnp.arange(3), r"simulate returned int64 for experiment 'hot': return real"),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_of_another_shape_are_refused(name):
    simulate, message = PREDICTIONS[name]
    with pytest.raises(InputError, match=message):
        FitProblem(simulate, [Experiment(TS, TS, name="hot")]).residuals(jnp.array(1.0))


def test_data_of_another_shape_are_refused():
    problem = FitProblem(line, [Experiment(TS, TS, name="hot"), Experiment(TS, TS, t0=-1.0)])
    model = jnp.array(1.0)
    with pytest.raises(InputError, match=r"data of experiment '1' have shape \(3,\), expected .* \(4,\)"):
        problem.residuals(model, [TS, TS])
    with pytest.raises(InputError, match=r"data of cold: give those of hot, 1"):
        problem.residuals(model, {"cold": TS})
    with pytest.raises(InputError, match="data must be arrays for 2 experiments"):
        problem.residuals(model, [TS])
    by_name = problem.residuals(model, {"1": problem.data[1], "hot": 2 * TS})
    np.testing.assert_allclose(by_name, [*-TS, *np.zeros(4)])


def test_noise_that_a_function_returns_is_checked():
    problem = FitProblem(line, [Experiment(TS, TS, noise=lambda model: jnp.ones(2))])
    with pytest.raises(InputError, match=r"noise.std has shape \(2,\), expected \(\)"):
        problem.loss(jnp.array(1.0))


def test_a_solve_of_each_experiment_from_its_own_state():
    """Oscillations of unequal lengths, initial times and states against their closed form."""

    def simulate(rate, experiment):
        field = lambda t, y, rate: (y[1], -(rate**2) * y[0])
        return jnp.stack(ds.integrate(field, experiment.y0, experiment.ts, rate, rtol=1e-9, atol=1e-9), -1)

    random = np.random.default_rng(0)
    some = []
    for n, t0 in ((7, 0.0), (12, -2.0), (20, 1.0)):
        ts = np.sort(random.uniform(t0 + 0.1, t0 + 5.0, n))
        exact = np.stack([np.cos(1.3 * (ts - t0)), -1.3 * np.sin(1.3 * (ts - t0))], -1)
        some.append(Experiment(ts, np.where(random.uniform(size=(n, 2)) < 0.2, np.nan, exact), y0=(1.0, 0.0), t0=t0))
    problem = FitProblem(simulate, some)
    assert repr(problem) == "FitProblem(3 experiments in 1 batches)"
    fitted, _ = ds.fit_least_squares(problem.residuals, jnp.array(1.2), progress=False)
    assert float(fitted) == pytest.approx(1.3, abs=1e-7)
    # Times of padding do not change the states.
    np.testing.assert_allclose(problem.predict(fitted)[0], problem.predictor(0)(fitted), rtol=1e-11, atol=1e-12)
