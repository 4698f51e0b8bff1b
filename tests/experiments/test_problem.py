"""Fits of several experiments: against SciPy on the measured data alone, gaps, grouping, order, local parameters."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy.optimize import least_squares

import diffsim as ds
from diffsim import Experiment, FitProblem, Scalar, param
from diffsim.experiments import Normal, Proportional, Student


class Decay(eqx.Module):
    rate: Scalar = param(1.0, "1/s", bounds=(0.0, 10.0))
    size: Scalar = param(1.5, "m")
    offset: Scalar = param(0.1, "m", bounds=(-5.0, 5.0))


def decay(model, experiment):
    return model.size * jnp.exp(-model.rate * experiment.inputs * experiment.ts) + model.offset


RATES = {"slow": 0.3, "fast": 2.0, "middle": 0.9}
LENGTHS = {"slow": 23, "fast": 9, "middle": 14}


def measured(name, seed=0, noise=0.05):
    random = np.random.default_rng([seed, len(name)])
    ts = np.sort(random.uniform(0.0, 3.0, LENGTHS[name]))
    data = 2.0 * np.exp(-0.8 * RATES[name] * ts) + 0.4 + noise * random.standard_normal(len(ts))
    data[random.choice(len(ts), 3, replace=False)] = np.nan
    return ts, data


def experiments(**options):
    return [Experiment(*measured(name), inputs=RATES[name], name=name, **options) for name in RATES]


@pytest.fixture(scope="module")
def fitted():
    problem = FitProblem(decay, experiments())
    return problem, ds.fit_least_squares(problem.residuals, problem.start(Decay()), progress=False)[0]


def concatenated(names=tuple(RATES)):
    """The measured rows of all experiments: rate factors, times, data."""
    rows = [(np.full(len(ts), RATES[name]), ts, data) for name in names for ts, data in [measured(name)]]
    factor, ts, data = (np.concatenate(column) for column in zip(*rows, strict=True))
    there = np.isfinite(data)
    return factor[there], ts[there], data[there]


def test_a_fit_is_that_of_scipy_to_the_measured_data(fitted):
    problem, model = fitted
    factor, ts, data = concatenated()
    form = lambda x: x[1] * np.exp(-x[0] * factor * ts) + x[2] - data
    reference = least_squares(form, [1.0, 1.5, 0.1], xtol=1e-14, ftol=1e-14, gtol=1e-14, jac="3-point")
    np.testing.assert_allclose(jax.tree.leaves(model), reference.x, rtol=1e-6)
    posterior = ds.posterior(problem.residuals, model, noise=problem.noise)
    variance = np.sum(reference.fun**2) / (len(data) - 3)
    covariance = variance * np.linalg.inv(reference.jac.T @ reference.jac)
    # SciPy's Jacobian is one of differences.
    np.testing.assert_allclose(posterior.covariance, covariance, rtol=1e-6)
    assert float(posterior.noise) == pytest.approx(np.sqrt(variance), rel=1e-8)
    assert int(posterior.degrees_of_freedom) == len(data) - 3


def test_gaps_leave_the_posterior_of_the_measurements(fitted):
    """NaN, weights of zero and an initial time without measurement against deleted rows."""
    model = fitted[1]
    rows, weighted, deleted = [], [], []
    for name in RATES:
        ts, data = measured(name)
        there = np.isfinite(data)
        options = {"inputs": RATES[name], "name": name}
        rows.append(Experiment(ts, data, t0=-1.0, **options))
        weighted.append(Experiment(ts, np.where(there, data, 1e3), weights=there.astype(float), **options))
        deleted.append(Experiment(ts[there], data[there], **options))
    posteriors = []
    for some in (rows, weighted, deleted):
        problem = FitProblem(decay, some)
        posteriors.append(ds.posterior(problem.residuals, model))
        assert float(problem.loss(model)) == pytest.approx(float(FitProblem(decay, deleted).loss(model)), rel=1e-12)
    for posterior in posteriors[:2]:
        assert float(posterior.noise) == pytest.approx(float(posteriors[2].noise), rel=1e-12)
        assert int(posterior.degrees_of_freedom) == int(posteriors[2].degrees_of_freedom)
        np.testing.assert_allclose(posterior.covariance, posteriors[2].covariance, rtol=1e-10)


def test_the_residuals_are_in_the_order_of_the_list_for_any_lengths():
    """Thirty experiments of lengths from 1 to 200, one or two columns, in several groups."""
    random = np.random.default_rng(1)
    some = []
    for number in range(30):
        ts = np.cumsum(random.uniform(0.1, 1.0, random.integers(1, 200)))
        data = random.standard_normal((len(ts), 2))
        data[random.uniform(size=data.shape) < 0.2] = np.nan
        some.append(Experiment(ts, data, inputs=jnp.array(float(number))))
    states = lambda model, experiment: jnp.stack(
        [model * experiment.inputs * experiment.ts, jnp.sin(experiment.ts)], -1
    )
    problem = FitProblem(states, some)
    assert 2 <= len(problem.groups) <= 6
    exact = lambda number, ts: np.stack([0.5 * number * ts, np.sin(ts)], -1)
    differences = [np.nan_to_num(exact(i, np.asarray(e.ts)) - e.data) for i, e in enumerate(some)]
    expected = np.concatenate([difference.ravel() for difference in differences])
    model = jnp.array(0.5)
    residuals = eqx.filter_jit(problem.residuals)
    np.testing.assert_allclose(residuals(model), expected, atol=1e-12)
    # The same by data that are given: half of them, and more gaps.
    data = [np.where(np.asarray(e.data) > 0, 0.5 * e.data, np.nan) for e in some]
    differences = [np.nan_to_num(exact(i, np.asarray(e.ts)) - d) for i, (e, d) in enumerate(zip(some, data))]  # noqa: B905
    expected = np.concatenate([difference.ravel() for difference in differences])
    np.testing.assert_allclose(residuals(model, data), expected, atol=1e-12)
    for number, prediction in enumerate(problem.predict(model)):
        np.testing.assert_allclose(prediction, exact(number, np.asarray(some[number].ts)), atol=1e-12)


def test_one_trace_for_any_number_of_experiments():
    traces = []

    def simulate(model, experiment):
        traces.append(1)
        return decay(model, experiment)

    counts = []
    for many in (3, 30):
        random = np.random.default_rng(many)
        lengths = random.permutation(np.arange(30, 30 + many))
        some = [Experiment(np.linspace(0.0, 3.0, n), random.uniform(size=n), inputs=1.0) for n in lengths]
        problem = FitProblem(simulate, some)
        traces.clear()
        eqx.filter_jit(problem.residuals)(Decay())
        counts.append(len(traces))
        ds.fit_least_squares(problem.residuals, Decay(), progress=False)
        counts.append(len(traces))
    assert counts[:2] == counts[2:]
    assert counts[0] == 1


def test_a_second_fit_does_not_compile_again():
    """Nor does one of a problem that is built again, with longer data than a small constant of a program."""
    build = lambda seed: FitProblem(
        decay,
        [Experiment(np.linspace(0, 3, n), np.random.default_rng(seed).uniform(size=n), inputs=1.0) for n in (400, 300)],
    )
    fit = ds.compilation.count_compilations(
        lambda problem, model: ds.fit_least_squares(problem.residuals, model, progress=False)
    )
    same = build(0)
    for problem, model in ((same, Decay()), (same, Decay(rate=0.5)), (build(1), Decay())):
        fit(problem, model)
    assert fit.count == 1, fit.causes


@pytest.fixture(scope="module")
def local():
    """Offsets that differ between the experiments, named and in a nested model."""

    class Nested(eqx.Module):
        decay: Decay
        gains: Float[Array, " 2"]

    def simulate(model, experiment):
        gain = model.gains[0] + model.gains[1]
        own = dataclasses.replace(experiment, inputs=gain * experiment.inputs)
        return decay(model.decay, own)

    some = [
        Experiment(ts, 2.0 * np.exp(-0.8 * RATES[name] * ts) + offset, inputs=RATES[name], name=name)
        for (name, offset) in zip(RATES, (0.4, -1.0, 3.0), strict=True)
        for ts, _ in [measured(name)]
    ]
    return FitProblem(simulate, some, local=("decay.off*",)), Nested(Decay(), jnp.array([0.5, 0.5]))


def test_local_parameters_have_a_value_for_each_experiment(local):
    problem, model = local
    start = problem.start(model)
    assert start.decay.offset.shape == (3,)
    assert start.decay.rate.shape == ()
    spec = ds.frozen(start, "gains")
    fitted, _ = ds.fit_least_squares(problem.residuals, start, filter_spec=spec, progress=False)
    np.testing.assert_allclose(fitted.decay.offset, [0.4, -1.0, 3.0], rtol=1e-7)
    assert float(fitted.decay.rate) == pytest.approx(0.8, rel=1e-7)
    assert problem.names(fitted) == {f"decay.offset[{i}]": name for i, name in enumerate(RATES)}
    middle = problem.local_model(fitted, "middle").decay
    assert middle.offset.shape == ()
    assert float(middle.offset) == pytest.approx(3.0)
    assert float(problem.local_model(fitted, 1).decay.offset) == pytest.approx(-1.0)
    posterior = ds.posterior(problem.residuals, fitted, noise=0.1, filter_spec=spec)
    rows = {row.path: row for row in posterior.summary()}
    assert rows["decay.offset[2]"].unit == "m"
    # An offset is known from its own experiment, about as well as the mean of its measurements.
    assert rows["decay.offset[0]"].std > 0.1 / np.sqrt(23)
    profile = ds.profile_likelihood(problem.residuals, fitted, path="decay.rate", noise=0.1, filter_spec=spec)
    assert profile.low < 0.8 < profile.high


def test_bounds_and_units_of_local_parameters_remain(local):
    problem, model = local
    start = problem.start(model)
    entry = ds.parameters(start)["decay.offset"]
    assert (entry.unit, entry.bounds) == ("m", (-5.0, 5.0))
    back = ds.constrain(ds.unconstrain(start))
    np.testing.assert_allclose(back.decay.offset, start.decay.offset, rtol=1e-12)
    replaced = ds.replace(start, {"decay.offset": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(replaced.decay.offset, [1.0, 2.0, 3.0])
    with pytest.raises(ds.InputError, match=r"decay.offset=6 m is not allowed; give from -5 to 5"):
        ds.replace(start, {"decay.offset": [1.0, 6.0, 3.0]})
    starts = ds.optimize.draw_models(start, 4, key=jax.random.key(0), relative=0.2)
    fits = ds.optimize.fit_many(problem.residuals, starts, filter_spec=ds.frozen(start, "gains"))
    assert fits.models.decay.offset.shape == (4, 3)
    np.testing.assert_allclose(fits.loss, 0.0, atol=1e-12)


def test_predictions_by_name_and_bands(fitted):
    problem, model = fitted
    predictions = problem.predict(model)
    assert list(predictions) == list(RATES)
    for name, experiment in zip(RATES, problem.experiments, strict=True):
        np.testing.assert_allclose(predictions[name], decay(model, experiment), rtol=1e-12)
        np.testing.assert_allclose(problem.predictor(name)(model), predictions[name], rtol=1e-12)
    unnamed = FitProblem(decay, [dataclasses.replace(e, name="") for e in problem.experiments])
    assert isinstance(unnamed.predict(model), list)
    ts = np.linspace(problem.experiments[1].ts[0], 9.0, 7)
    posterior = ds.posterior(problem.residuals, model)
    band = posterior.credible_band(problem.predictor("fast", ts))
    np.testing.assert_allclose(band.value, decay(model, Experiment(ts, ts, inputs=2.0)), rtol=1e-12)
    assert band.std.shape == (7,)
    later = problem.predictor(1, ts[3:])(model)
    np.testing.assert_allclose(later, band.value[3:], rtol=1e-12)
    jitted = eqx.filter_jit(problem.predict)(model)
    np.testing.assert_allclose(jitted["slow"], predictions["slow"], rtol=1e-12)


NOISE = {
    "number": (0.3, Normal(0.3)),
    "proportional": (Proportional(0.2, 0.1),) * 2,
    "student": (Student(0.2, 4.0),) * 2,
    "function": (lambda model: Student(0.1 * jnp.exp(model.offset), 4.0), None),
}


@pytest.mark.parametrize("name", NOISE)
def test_the_loss_is_the_negative_log_likelihood_of_the_measurements(name):
    given, noise = NOISE[name]
    problem, model = FitProblem(decay, experiments(noise=given)), Decay()
    noise = given(model) if noise is None else noise
    assert problem.noise == 1.0
    factor, ts, data = concatenated()
    predicted = model.size * jnp.exp(-model.rate * factor * ts) + model.offset
    exact = float(jnp.sum(noise.log_density(predicted, data)))
    assert float(problem.log_likelihood(model)) == pytest.approx(exact, rel=1e-12)
    if name == "function":
        with pytest.raises(ds.InputError, match=r"noise of experiment 'slow' depends on the model.*minimize\(problem"):
            problem.residuals(model)
    else:
        squares = lambda model: float(0.5 * jnp.sum(problem.residuals(model) ** 2) + problem.log_likelihood(model))
        assert squares(model) == pytest.approx(squares(Decay(2.0, 1.0, 0.0)), rel=1e-10)


@pytest.mark.parametrize("noise", [Proportional(0.05, 0.02), Student(0.04, 3.0)], ids=["proportional", "student"])
def test_least_squares_end_at_the_minimum_of_the_loss(noise):
    """The covariances agree as far as the curvature of the residuals does not matter."""
    problem = FitProblem(decay, experiments(noise=noise))
    model, _ = ds.fit_least_squares(problem.residuals, Decay(), progress=False)
    approximate = ds.posterior(problem.residuals, model, noise=problem.noise)
    slope, exact = eqx.filter_jit(
        lambda model: (jax.grad(problem.loss)(model), ds.uncertainty.laplace_posterior(problem.loss, model).std())
    )(model)
    # In standard deviations, where the loss has a curvature of about one.
    assert np.all(np.abs(np.array(jax.tree.leaves(slope)) * exact) < 1e-4)
    np.testing.assert_allclose(approximate.std(), exact, rtol=0.3)


def test_noise_trains_with_the_model():
    """Of a constant the standard deviation is that of the data; a local one differs between experiments."""

    class Constant(eqx.Module):
        mean: Scalar = param(0.0, "m")
        std: Scalar = param(0.5, "m", bounds=(1e-3, 10.0))

    random = np.random.default_rng(0)
    data = [std * random.standard_normal(n) + 1.0 for std, n in ((0.2, 30), (1.0, 50))]
    some = [Experiment(np.arange(len(d)), d, noise=lambda model: model.std) for d in data]
    constant = lambda model, experiment: jnp.full(experiment.ts.shape, model.mean)
    problem = FitProblem(constant, some, local="std")
    fitted, _ = ds.minimize(problem.loss, problem.start(Constant()), progress=False)
    deviations = [np.sqrt(np.mean((d - float(fitted.mean)) ** 2)) for d in data]
    np.testing.assert_allclose(fitted.std, deviations, rtol=1e-5)
    posterior = ds.uncertainty.laplace_posterior(problem.loss, fitted)
    np.testing.assert_allclose(posterior.std()[1:], deviations / np.sqrt([60, 100]), rtol=0.02)


def test_unknown_noise_has_the_likelihood_of_its_best_standard_deviation(fitted):
    problem, model = fitted
    r = np.asarray(problem.residuals(model))
    count = int(np.sum(r != 0))
    best = FitProblem(decay, experiments(noise=float(np.sqrt(np.sum(r**2) / count))))
    assert float(problem.loss(model)) == pytest.approx(float(best.loss(model)), rel=1e-12)
    again, _ = ds.minimize(problem.loss, Decay(), progress=False)
    np.testing.assert_allclose(jax.tree.leaves(again), jax.tree.leaves(model), rtol=1e-5)


def test_weights_are_those_of_means():
    """One measurement of weight 4 has the likelihood of a mean of four; a gap of weight 0 has none."""
    ts = np.arange(3.0)
    weighted = FitProblem(lambda model, e: model * e.ts, [Experiment(ts, ts + 0.5, noise=0.4, weights=[4.0, 0.0, 1.0])])
    direct = Normal(jnp.array(0.2)).log_density(jnp.array(0.0), jnp.array(0.5))
    direct += Normal(0.4).log_density(jnp.array(2.4), jnp.array(2.5))
    assert float(weighted.log_likelihood(jnp.array(1.2))) == pytest.approx(float(direct), rel=1e-12)


def test_replicates_share_a_prediction_and_noise_is_by_observable():
    ts = np.arange(3.0)
    data = np.array([[0.1, 1.1, np.nan, 0.9], [1.2, 2.0, 0.8, np.nan], [2.2, 2.8, 1.9, 3.3]])
    simulate = lambda model, e: jnp.stack([e.ts, e.ts + model], -1)
    noise = np.array([0.1, 0.5])
    experiment = Experiment(ts, data, noise=noise, columns=("x", "y", "x", "y"))
    problem = FitProblem(simulate, [experiment])
    predicted = np.tile(np.stack([ts, ts + 1.0], -1), 2)
    expected = np.nan_to_num((predicted - data) / np.tile(noise, 2))
    np.testing.assert_allclose(problem.residuals(jnp.array(1.0)), expected.ravel(), atol=1e-12)
    assert problem.predict(jnp.array(1.0))[0].shape == (3, 2)
    assert problem.predictor(0, [0.5, 1.0])(jnp.array(1.0)).tolist() == [[0.5, 1.5], [1.0, 2.0]]
    single = FitProblem(lambda model, e: model * e.ts, [Experiment(ts, data[:, :2], columns=("x", "x"))])
    assert single.residuals(jnp.array(1.0)).tolist() == pytest.approx([-0.1, -1.1, -0.2, -1.0, -0.2, -0.8])


def test_every_derivative_agrees_and_gaps_have_none():
    """NaN predictions in gaps do not reach the derivatives of the rest; a failed solve reaches all."""
    problem = FitProblem(decay, experiments(noise=0.1))
    model = Decay()
    x, unravel = jax.flatten_util.ravel_pytree(model)
    loss = lambda x: problem.loss(unravel(x))
    value, gradient = jax.jit(jax.value_and_grad(loss))(x)
    residuals = lambda x: problem.residuals(unravel(x))
    forward, reverse, r = jax.jit(lambda x: (jax.jacfwd(residuals)(x), jax.jacrev(residuals)(x), residuals(x)))(x)
    np.testing.assert_allclose(reverse, forward, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient, r @ forward, rtol=1e-10)
    slope = jax.jit(jax.grad(loss))
    differences = jnp.stack([(slope(x + h) - slope(x - h)) / 2e-6 for h in 1e-6 * jnp.eye(3)])
    np.testing.assert_allclose(jax.jit(jax.hessian(loss))(x), differences, rtol=1e-6, atol=1e-4)
    many = jax.vmap(loss)(jnp.stack([x, 1.1 * x]))
    assert float(many[0]) == pytest.approx(float(value))
    gaps = np.concatenate([np.isnan(e.data) for e in problem.experiments])
    assert np.all(np.asarray(forward)[gaps] == 0)
    assert np.all(np.asarray(r)[gaps] == 0)
    fails = lambda model, e: decay(model, e) + jnp.where(jnp.isnan(e.data), jnp.nan, 0.0)
    failing = FitProblem(fails, experiments(noise=0.1))
    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        np.testing.assert_allclose(derivative(lambda x: failing.loss(unravel(x)))(x), derivative(loss)(x), rtol=1e-10)
    everywhere = FitProblem(lambda model, e: decay(model, e) * jnp.nan, experiments(noise=0.1))
    assert np.isnan(everywhere.loss(model))


def test_single_precision_stays_single():
    """With double precision turned on, data in double precision do not change the format of a model."""
    single = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
    simulate = lambda model, e: decay(model, dataclasses.replace(e, ts=single(e.ts), inputs=single(e.inputs)))
    problem, model = FitProblem(simulate, experiments(noise=0.1)), single(Decay())
    assert problem.residuals(model).dtype == problem.loss(model).dtype == jnp.float32
    with jax.enable_x64(False):
        problem, model = FitProblem(decay, experiments(noise=0.1)), single(Decay())
        assert problem.experiments[0].data.dtype == jnp.float32
        fitted, _ = ds.fit_least_squares(problem.residuals, model, progress=False)
        assert fitted.rate.dtype == problem.residuals(model).dtype == problem.loss(model).dtype == jnp.float32
        assert float(fitted.rate) == pytest.approx(0.8, abs=0.1)


def test_coverage_of_intervals_with_gaps():
    """Of 90% intervals of three parameters over 300 data sets, 87 to 93% contain the truth (standard error 1.2%)."""
    truth = Decay(rate=0.8, size=2.0, offset=0.4)
    problem = FitProblem(decay, experiments(), local="offset")
    start = problem.start(truth)
    clean = problem.predict(start)
    many, key = 300, jax.random.key(0)
    keys = dict(zip(clean, jax.random.split(key, 3), strict=True))
    data = {
        e.name: jnp.where(jnp.isnan(e.data)[None], jnp.nan, clean[e.name][None])
        + 0.05 * jax.random.normal(keys[e.name], (many, len(e.ts)))
        for e in problem.experiments
    }
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (many, *leaf.shape)), start)
    fits = ds.optimize.fit_many(problem.residuals, starts, data, separate_data=True)
    assert np.all(np.asarray(fits.status) == ds.optimize.FitStatus.CONVERGED)
    posterior = eqx.filter_jit(eqx.filter_vmap(lambda model, data: ds.posterior(problem.residuals, model, data)))
    found = posterior(fits.models, data)
    assert np.all(np.asarray(found.degrees_of_freedom) == 37 - 5)
    reach = found.critical_value(0.9)[:, None]
    stds = np.sqrt(np.asarray(jnp.diagonal(found.covariance, axis1=1, axis2=2)))
    flat = lambda model: np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(model)], axis=1)
    exact = np.concatenate([np.ravel(x) for x in jax.tree.leaves(start)])
    inside = np.abs(flat(fits.models) - exact) <= reach * stds
    assert inside.shape == (many, 5)
    assert 0.87 <= inside.mean() <= 0.93
    # The standard error of each of the five shares is 1.7%.
    assert np.all(np.abs(inside.mean(axis=0) - 0.9) < 0.055)
