"""Designs of experiments: closed forms, bounds, what is not measured, and the standard deviations that follow."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim import Experiment, FitProblem, InputError, RunError, Scalar, param
from diffsim.experiments import Normal, Proportional, Student, design_experiment


class Decay(eqx.Module):
    rate: Scalar = param(0.5, "1/s", bounds=(0.0, np.inf))
    size: Scalar = param(2.0, "m")


class Line(eqx.Module):
    slope: Scalar = param(0.7)
    offset: Scalar = param(0.3)


decay = lambda model, experiment: model.size * jnp.exp(-model.rate * experiment.ts)
line = lambda model, experiment: model.slope * experiment.ts + model.offset
only_rate = ds.trainable(Decay(), "rate")


def blank(ts, columns=None, **options):
    """An experiment whose data have no meaning."""
    shape = (len(ts),) if columns is None else (len(ts), columns)
    return Experiment(ts, np.zeros(shape), **({"noise": 0.1} | options))


@pytest.mark.parametrize("low", [0.0, pytest.param(1.5, marks=pytest.mark.slow)])
def test_d_optimal_times_of_a_decay_are_the_first_and_one_time_constant_later(low):
    design = design_experiment(decay, Decay(), blank([2.0, 4.0]), {"ts": (low, 9.0)}, starts=3)
    # The objective is flat at its minimum: its tolerance of 1e-9 is one of 1e-4 in the times.
    np.testing.assert_allclose(design.experiment.ts, [low, low + 2.0], atol=2e-3)
    jacobian = np.stack([-2.0 * np.array([low, low + 2.0]), np.ones(2)], 1)
    jacobian *= np.exp(-0.5 * np.array([[low], [low + 2.0]]))
    exact = 0.1 * np.sqrt(np.diagonal(np.linalg.inv(jacobian.T @ jacobian)))
    np.testing.assert_allclose([design.std["rate"], design.std["size"]], exact, rtol=2e-3)
    assert design.objective.shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["D", "slope"])
def test_a_line_is_measured_at_its_ends(criterion):
    design = design_experiment(
        line, Line(), blank([0.2, 0.4, 0.6, 0.8]), {"ts": (0.0, 1.0)}, criterion=criterion, starts=3, min_gap=1e-3
    )
    np.testing.assert_allclose(design.experiment.ts, [0.0, 1e-3, 1.0 - 1e-3, 1.0], atol=2e-3)
    # Four measurements at -1/2 and 1/2 of the middle have a sum of squares of 1.
    assert design.std["slope"] == pytest.approx(0.1, rel=5e-3)
    assert design.std_before["slope"] == pytest.approx(0.1 / np.sqrt(0.2), rel=1e-6)


@pytest.mark.slow
def test_one_time_for_one_parameter_is_the_time_constant():
    """t^2 exp(-2 rate t), the information on the rate, is greatest at 1 / rate, by its name and by each criterion."""
    for criterion in ("rate", "A"):
        options = {"criterion": criterion, "filter_spec": only_rate, "starts": 2}
        design = design_experiment(decay, Decay(), blank([5.0]), {"ts": (0.0, 10.0)}, **options)
        assert float(design.experiment.ts[0]) == pytest.approx(2.0, abs=1e-3)
        assert design.std == {"rate": pytest.approx(0.1 * np.e / 4.0, rel=1e-6)}


@pytest.mark.slow
def test_existing_experiments_leave_the_rest_to_be_measured():
    """After a precise measurement at the start, which has all about the size, one time constant is best."""
    existing = FitProblem(decay, [blank([0.0, 1e-6], noise=1e-4)])
    options = {"existing": existing, "starts": 2, "criterion": "rate"}
    design = design_experiment(decay, Decay(), blank([5.0]), {"ts": (0.0, 10.0)}, **options)
    assert float(design.experiment.ts[0]) == pytest.approx(2.0, abs=1e-2)
    assert design.std["rate"] == pytest.approx(0.1 * np.e / 4.0, rel=1e-3)
    assert design.std["size"] == pytest.approx(1e-4 / np.sqrt(2), rel=1e-3)


@pytest.mark.slow
def test_inputs_and_initial_states_go_to_their_bounds():
    """Signals that are larger have the same noise."""

    def simulate(model, experiment):
        return (experiment.inputs["dose"] + experiment.y0) * jnp.exp(-model.rate * experiment.ts)

    given = blank([1.0, 2.0], y0=1.0, inputs={"dose": 0.5, "unit": "mg"})
    vary = {"inputs.dose": (0.0, 3.0), "y0": (0.5, 1.5), "ts": (0.5, 9.0)}
    design = design_experiment(simulate, Decay(), given, vary, filter_spec=only_rate, starts=2)
    found = design.experiment
    assert float(found.inputs["dose"]) == pytest.approx(3.0, abs=0.02)
    assert float(found.y0) == pytest.approx(1.5, abs=0.02)
    assert found.inputs["unit"] == "mg"
    # Both measurements at the time constant.
    np.testing.assert_allclose(found.ts, 2.0, atol=0.02)
    assert design.std["rate"] == pytest.approx(0.1 * np.e / (2.0 * 4.5 * np.sqrt(2)), rel=1e-2)


@pytest.mark.slow
def test_what_is_missing_in_the_data_will_not_be_measured():
    """A column of gaps, and a first row of gaps, which stays."""
    both = lambda model, experiment: jnp.stack([decay(model, experiment), 100.0 * experiment.ts * model.rate], axis=1)
    given = Experiment([1.0, 3.0], [[0.0, np.nan]] * 2, noise=0.1, t0=0.0)
    design = design_experiment(both, Decay(), given, {"ts": (0.0, 10.0)}, starts=2)
    np.testing.assert_allclose(design.experiment.ts, [0.0, 0.0, 2.0], atol=1e-2)
    assert float(design.experiment.ts[0]) == 0.0
    np.testing.assert_array_equal(design.experiment.measured, given.measured)
    alone = design_experiment(decay, Decay(), blank([1.0, 3.0]), {"ts": (0.0, 10.0)}, starts=2)
    # The first time that can be chosen is later by the least gap.
    assert design.std["rate"] == pytest.approx(alone.std["rate"], rel=1e-2)


@pytest.mark.parametrize(
    "noise", [Normal(0.3), Proportional(0.2, 0.3), Student(0.3, 4.0)], ids=["normal", "proportional", "student"]
)
@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_the_information_is_the_mean_square_of_the_score(noise, weight):
    """By quadrature over the data, whose heavy tails reach 1e5 standard deviations."""
    for prediction in (0.0, 2.5):
        data = prediction + 0.3 * np.sinh(np.linspace(-12.0, 12.0, 20001))
        log_density = lambda p, x: noise.log_density(p, x, jnp.array(weight))
        value, score = jax.vmap(jax.value_and_grad(log_density), (None, 0))(jnp.array(prediction), jnp.asarray(data))
        exact = np.trapezoid(np.exp(value) * score**2, data)
        assert float(noise.information(jnp.array(prediction), jnp.array(weight))) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("replicates", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_standard_deviations_are_those_of_a_posterior(replicates):
    """Of data without errors, with weights, gaps, and either replicates or an existing experiment."""
    ts = np.array([0.5, 1.0, 2.0, 3.5])
    columns = ("x", "y") * replicates
    states = lambda model, experiment: jnp.stack([decay(model, experiment), model.rate * experiment.ts**2], axis=1)
    data = np.tile(np.asarray(states(Decay(), blank(ts))), replicates)
    data[1, 0] = data[3, -1] = np.nan
    weights = np.random.default_rng(0).uniform(0.5, 2.0, data.shape)
    given = Experiment(ts, data, noise=[0.1, 0.3], weights=weights, name="new", columns=columns)
    experiments, existing = [given], None
    if replicates == 1:
        old = dataclasses.replace(given, name="old", ts=2 * ts, data=states(Decay(), blank(2 * ts)))
        experiments, existing = [given, old], FitProblem(states, [old])
    design = design_experiment(states, Decay(), given, {"ts": (0.0, 5.0)}, existing=existing, starts=1, steps=2)
    problem = FitProblem(states, experiments)
    posterior = ds.posterior(problem.residuals, Decay(), noise=problem.noise)
    # The ridge of the information is a share of 1e-12.
    np.testing.assert_allclose(list(design.std_before.values()), posterior.std(), rtol=1e-8)


@pytest.mark.slow
def test_noise_that_depends_on_the_model():
    """Of a standard deviation that is half the size: the design counts what predictions say about parameters."""
    noise = lambda model: Normal(0.5 * model.size)
    by_function = design_experiment(decay, Decay(), blank([1.0, 2.0], noise=noise), {"ts": (0.0, 9.0)}, starts=1)
    given = design_experiment(decay, Decay(), blank([1.0, 2.0], noise=1.0), {"ts": (0.0, 9.0)}, starts=1)
    assert by_function.std == pytest.approx(given.std, rel=1e-6)


OPEN = (
    ds.Phase(lambda t, y, m: -m.rate * y, ds.Event(lambda t, y, m: y - 0.4 * m.size, "falling", to=1)),
    ds.Phase(lambda t, y, m: 0.25 - m.rate * y),
)


@pytest.mark.exhaustive
def test_the_times_about_an_event_are_chosen_through_it():
    """Standard deviations of an exact solution, and a design that is better than the given one."""

    def simulate(model, experiment):
        ts = experiment.ts
        options = {"t0": ts[0], "t1": ts[-1], "ts": ts, "max_events": 2, "rtol": 1e-9, "atol": 1e-11}
        return ds.integrate_hybrid(OPEN, jnp.ones(()), model, **options).ys

    def exact(model, experiment):
        level, limit = 0.4 * model.size, 0.25 / model.rate
        after = jnp.exp(-model.rate * experiment.ts) / level
        opened = limit + (level - limit) * after
        return jnp.where(after > 1, level * after, opened)

    given = blank([0.5, 1.5, 2.5, 4.0], t0=0.0)
    vary, options = {"ts": (0.0, 6.0)}, {"criterion": "size", "starts": 2, "steps": 30}
    design, reference = (design_experiment(f, Decay(), given, vary, **options) for f in (simulate, exact))
    assert design.std_before == pytest.approx(reference.std_before, rel=1e-5)
    assert design.std["size"] < 0.8 * design.std_before["size"]
    assert design.std["size"] == pytest.approx(reference.std["size"], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": {"t": (0.0, 1.0)}}, r"vary has 't': give paths of the experiment, one of ts, y0"),
        ({"vary": {"data": (0.0, 1.0)}}, r"vary has 'data': give paths"),
        ({"vary": {}}, r"vary is empty: name what of the experiment can be chosen"),
        ({"vary": {"ts": (1.0, 1.0)}}, r"vary\['ts'\]=\(1.0, 1.0\): give a least and a greatest value"),
        ({"min_gap": 6.0}, r"min_gap=6: 2 times do not fit between 0 and 5; give a smaller one"),
        ({"criterion": "speed"}, r"""criterion='speed': give "D", "A" or paths of trained numbers: rate, size"""),
        ({"criterion": []}, r"criterion=\[\]: give"),
        ({"experiment": blank([1.0, 2.0], noise=None)}, r"noise=None of the experiment: .* give noise="),
        ({"existing": FitProblem(decay, [blank([0.0], noise=None)])}, r"noise=None of the existing experiments"),
    ],
)
def test_what_cannot_be_designed_is_refused(changes, message):
    options = {"experiment": blank([1.0, 2.0], y0=1.0), "vary": {"ts": (0.0, 5.0)}}
    with pytest.raises(InputError, match=message):
        design_experiment(decay, Decay(), **(options | changes))


def test_a_simulation_that_fails_everywhere_has_no_design():
    nowhere = lambda model, experiment: jnp.full_like(experiment.ts, jnp.nan) * model.rate
    with pytest.raises(RunError, match=r"none of 2 designs has a finite objective: the simulation fails"):
        design_experiment(nowhere, Decay(), blank([1.0, 2.0]), {"ts": (0.0, 5.0)}, starts=2)
