"""Log densities for samplers: the Jacobian by integration, priors, failures."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import diffsim as ds
from diffsim import Experiment, FitProblem, Scalar, param

TS = np.array([0.5, 1.0, 2.0])
DATA = np.array([0.7, np.nan, 0.3])


class Between(eqx.Module):
    rate: Scalar = param(0.6, bounds=(0.1, 2.0))


class Above(eqx.Module):
    rate: Scalar = param(0.6, bounds=(0.1, np.inf))


class Below(eqx.Module):
    rate: Scalar = param(0.6, bounds=(-np.inf, 2.0))


class Free(eqx.Module):
    rate: Scalar = param(0.6)


simulate = lambda model, experiment: jnp.exp(-model.rate * experiment.ts)
PROBLEM = FitProblem(simulate, [Experiment(TS, DATA, noise=0.1)])
normal_prior = lambda model: -0.5 * (model.rate - 0.5) ** 2


@pytest.mark.parametrize("kind", [Between, Above, Below, Free])
def test_the_density_has_the_same_integral_in_both_coordinates(kind):
    """By the unconstrained parameter and by the physical one, and so has the mean of the physical one."""
    density = PROBLEM.log_density(kind(), normal_prior)
    low, high = ds.parameters(kind())["rate"].bounds
    # Beyond 15 (of a prior of standard deviation 1) the density is below 1e-40.
    x = jnp.linspace(max(low, -15.0), min(high, 15.0), 40001)
    z = jnp.linspace(-40.0, 40.0, 40001) if kind is not Free else x
    free = eqx.tree_at(lambda m: m.rate, kind(), z)
    by_z = jnp.exp(jax.jit(jax.vmap(density))(free))
    models = eqx.tree_at(lambda m: m.rate, kind(), x)
    by_x = jnp.exp(jax.jit(jax.vmap(lambda m: PROBLEM.log_likelihood(m) + normal_prior(m)))(models))
    physical = jax.vmap(density.model)(free).rate
    for power in (0, 1):
        found, expected = integrate.simpson(by_z * physical**power, x=z), integrate.simpson(by_x * x**power, x=x)
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_density_is_that_of_likelihood_prior_and_transform():
    density = PROBLEM.log_density(Above(), normal_prior)
    assert float(density.start.rate) == pytest.approx(np.log(0.5))
    assert float(density.model(density.start).rate) == pytest.approx(0.6)
    likelihood = np.nansum(stats.norm(np.exp(-0.6 * TS), 0.1).logpdf(DATA))
    expected = likelihood - 0.5 * 0.1**2 + np.log(0.5)
    assert float(jax.jit(density)(density.start)) == pytest.approx(expected, rel=1e-12)


def test_a_failed_simulation_has_no_density_and_a_derivative_of_zero():
    """In reverse and forward mode, one by one and in a batch, where the others keep their derivatives."""
    sqrt = lambda model, experiment: jnp.sqrt(model.rate) * experiment.ts
    density = FitProblem(sqrt, [Experiment(TS, DATA, noise=0.1)]).log_density(Free())
    plain = FitProblem(sqrt, [Experiment(TS, DATA, noise=0.1)])
    at = lambda rate: eqx.tree_at(lambda m: m.rate, Free(), jnp.array(rate))

    @jax.jit
    def everything(rate):
        f = lambda rate: density(at_traced(rate))
        return f(rate), jax.grad(f)(rate), jax.jacfwd(f)(rate), jax.hessian(f)(rate)

    at_traced = lambda rate: eqx.tree_at(lambda m: m.rate, Free(), rate)
    assert [float(x) for x in everything(jnp.array(-1.0))] == [-np.inf, 0.0, 0.0, 0.0]
    many = jax.vmap(everything)(jnp.array([-1.0, 0.6, 0.9]))
    exact = lambda rate: plain.log_likelihood(at_traced(rate))
    for row, rate in ((1, 0.6), (2, 0.9)):
        expected = [float(f(jnp.array(rate))) for f in (exact, jax.grad(exact), jax.grad(exact), jax.hessian(exact))]
        np.testing.assert_allclose([x[row] for x in many], expected, rtol=1e-10)
    assert [float(x[0]) for x in many] == [-np.inf, 0.0, 0.0, 0.0]
    assert np.isfinite(float(density(at(0.5))))


def test_a_failed_solve_has_no_density():
    """An equation whose solution ends at the time 1 / rate."""

    def explode(model, experiment):
        return ds.integrate(lambda t, y, rate: rate * y**2, experiment.y0, experiment.ts, model.rate)

    experiment = Experiment([0.0, 0.5, 1.0], [np.nan, 2.0, 10.0], y0=1.0, noise=0.1)
    with_gap = dataclasses.replace(experiment, data=[np.nan, 2.0, np.nan])
    density = FitProblem(explode, [experiment]).log_density(Between(rate=1.0))
    gradient = jax.jit(jax.value_and_grad(density))
    value, slope = gradient(ds.unconstrain(Between(rate=0.9)))
    assert np.isfinite(value)
    assert np.isfinite(slope.rate)
    assert float(slope.rate) != 0
    late = ds.unconstrain(Between(rate=1.9))
    value, slope = jax.jit(jax.value_and_grad(FitProblem(explode, [with_gap]).log_density(Between())))(late)
    # The solution at 0.5 s, before it ends at 0.53 s.
    exact = stats.norm(1 / (1 - 0.5 * 1.9), 0.1).logpdf(2.0)
    jacobian = np.log(1.8 * 0.1 / 1.9 * 1.8 / 1.9)
    assert float(value) == pytest.approx(exact + jacobian, rel=1e-4)
    assert np.isfinite(float(slope.rate))
    value, slope = gradient(late)
    assert (float(value), float(slope.rate)) == (-np.inf, 0.0)


def test_chosen_parameters_and_local_ones_are_sampled():
    class Line(eqx.Module):
        slope: Scalar = param(1.0, bounds=(0.0, 3.0))
        offset: Scalar = param(0.5)

    line = lambda model, experiment: model.slope * experiment.ts + model.offset
    problem = FitProblem(line, [Experiment(TS, DATA), Experiment(TS[:2], TS[:2])], local="offset")
    start = problem.start(Line())
    density = problem.log_density(start, filter_spec=ds.trainable(start, "offset"))
    assert density.start.slope is None
    assert density.start.offset.shape == (2,)
    # Without bounds nothing is transformed; unknown noise has the likelihood of the loss.
    assert float(density(density.start)) == pytest.approx(-float(problem.loss(start)), rel=1e-12)
    with pytest.raises(ds.InputError, match=r"offset has shape \(\), but is local to 2 experiments"):
        problem.log_density(Line())


def test_single_precision_stays_single():
    simulate = lambda model, experiment: jnp.exp(-model.rate * experiment.ts.astype(jnp.float32))
    problem = FitProblem(simulate, [Experiment(TS, DATA, noise=0.1)])
    for kind in (Between, Above, Free):
        density = problem.log_density(jax.tree.map(lambda x: x.astype(jnp.float32), kind()))
        value, slope = jax.value_and_grad(density)(density.start)
        assert value.dtype == slope.rate.dtype == jnp.float32


@pytest.mark.slow
def test_a_metropolis_chain_has_the_moments_of_quadrature():
    """Two hundred walkers of 500 steps: the mean to 3 standard errors of about 0.005."""
    density = PROBLEM.log_density(Between())
    z = jnp.linspace(-40.0, 40.0, 40001)
    free = eqx.tree_at(lambda m: m.rate, Between(), z)
    weight = np.exp(jax.vmap(density)(free))
    exact = np.sum(weight * jax.vmap(density.model)(free).rate) / np.sum(weight)

    def step(walkers, key):
        keys = jax.random.split(key)
        proposal = jax.tree.map(lambda z: z + 0.5 * jax.random.normal(keys[0], z.shape), walkers)
        ratio = jax.vmap(density)(proposal) - jax.vmap(density)(walkers)
        accepted = jnp.log(jax.random.uniform(keys[1], ratio.shape)) < ratio
        walkers = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, walkers)
        return walkers, jax.vmap(density.model)(walkers).rate

    walkers = jax.tree.map(lambda z: jnp.full(200, z), density.start)
    rates = jax.lax.scan(step, walkers, jax.random.split(jax.random.key(0), 500))[1]
    assert float(jnp.mean(rates[100:])) == pytest.approx(float(exact), abs=0.015)
