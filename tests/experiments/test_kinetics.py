"""Statistics of fits to simulated experiments: intervals of a reaction network, designs, samples through an event."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import ndtri

import diffsim as ds
from diffsim import Experiment, FitProblem, Scalar, param
from diffsim.experiments import design_experiment

LEVEL = 0.9


class Chain(eqx.Module):
    """The rates of A -> B -> C."""

    fast: Scalar = param(1.0, "1/s", bounds=(0.0, np.inf))
    slow: Scalar = param(0.25, "1/s", bounds=(0.0, np.inf))


def chain(model, experiment):
    """The concentration of B, which A becomes."""
    field = lambda t, y, m: jnp.stack([-m.fast * y[0], m.fast * y[0] - m.slow * y[1]])
    return ds.integrate(field, jnp.array([1.0, 0.0]), experiment.ts, model, rtol=1e-8, atol=1e-10)[:, 1]


def simulated(problem, model, count, gaps):
    """Data of each experiment with noise and random gaps; the first axis counts the sets."""
    random = np.random.default_rng(1)
    sets = []
    for prediction, experiment in zip(problem.predict(model).values(), problem.experiments, strict=True):
        values = np.asarray(prediction) + np.asarray(experiment.noise.std) * random.normal(
            size=(count, *prediction.shape)
        )
        there = np.asarray(experiment.measured) & (random.random(values.shape) > gaps)
        sets.append(np.where(there, values, np.nan))
    return sets


@pytest.mark.exhaustive
def test_intervals_of_the_rates_of_a_network_contain_the_true_ones(module_of):
    """Of 30 data sets with gaps: 90 % within 7 %, three standard errors if half of the 12 rates were independent."""
    kinetics = module_of("kinetics")
    truth = kinetics.truth()
    problem = FitProblem(kinetics.simulate, kinetics.measured(kinetics.DATA))
    std_of = eqx.filter_jit(lambda m, data: ds.posterior(problem.residuals, m, data, noise=problem.noise).std())
    exact, inside = np.array(jax.tree.leaves(truth)), []
    for data in zip(*simulated(problem, truth, 30, gaps=0.0), strict=True):  # the gaps are those of the file
        data = [jnp.asarray(values) for values in data]
        fitted, history = ds.fit_least_squares(problem.residuals, truth, data, progress=False)
        assert history.status == "converged"
        rates = np.array(jax.tree.leaves(fitted))
        # Symmetric in the logarithm, as the intervals of a posterior are.
        half_width = ndtri((1 + LEVEL) / 2) * np.asarray(std_of(fitted, data)) / rates
        inside.append(np.abs(np.log(rates / exact)) <= half_width)
    assert np.mean(inside) == pytest.approx(LEVEL, abs=0.07)


@pytest.mark.exhaustive
def test_a_design_promises_what_repetitions_give():
    """Standard deviations of 1,000 fits, which have an error of 2.2 %, at given and at designed times."""
    ts = np.linspace(0.0, 12.0, 9)[1:]
    given = Experiment(ts, np.zeros(8), noise=0.02, t0=0.0, name="chain")
    design = design_experiment(chain, Chain(), given, {"ts": (0.0, 12.0)}, criterion="slow", starts=4)
    starts = jax.tree.map(lambda x: jnp.full(1000, x), Chain())
    ratios = []
    for experiment, std in ((given, design.std_before), (design.experiment, design.std)):
        problem = FitProblem(chain, [experiment])
        data = simulated(problem, Chain(), 1000, gaps=0.0)
        fits = ds.optimize.fit_many(problem.residuals, starts, data, separate_data=True)
        ratios.append(float(jnp.std(fits.models.slow)) / std["slow"])
    np.testing.assert_allclose(ratios, 1.0, atol=0.07)
    assert ratios[0] / ratios[1] == pytest.approx(1.0, abs=0.1)
    assert design.std["slow"] < 0.9 * design.std_before["slow"]


@pytest.mark.exhaustive
def test_nuts_has_the_moments_of_a_grid_through_an_event(module_of):
    """Mean and spread within 4 Monte Carlo errors, for two seeds."""
    blackjax = pytest.importorskip("blackjax")
    kinetics = module_of("kinetics")
    density = kinetics.feed_density()
    mean, std = kinetics.grid_moments(density)

    @jax.jit
    def samples(key):
        warm_key, key = jr.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, density)
        (state, parameters), _ = adaptation.run(warm_key, density.start, num_steps=500)
        kernel = blackjax.nuts(density, **parameters).step

        def step(state, key):
            state, _ = kernel(key, state)
            return state, state.position

        models = jax.vmap(density.model)(jax.lax.scan(step, state, jr.split(key, 1000))[1])
        return jnp.stack([models.rate, models.level], 1)

    for seed in range(2):
        x = samples(jr.key(seed))
        effective = np.array([float(blackjax.diagnostics.effective_sample_size(column[None])) for column in x.T])
        assert effective.min() > 200
        assert np.all(np.abs(x.mean(axis=0) - mean) < 4 * std / np.sqrt(effective))
        # Squares of samples have fewer effective ones: about half.
        assert np.all(np.abs(x.std(axis=0) / std - 1) < 4 / np.sqrt(effective))
