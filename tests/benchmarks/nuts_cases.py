"""The reactor of scenarios/kinetics.py whose feed opens at an event: by diffrax, in closed form, and samplers."""

import time

import blackjax
import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optimistix as optx
from numpyro.infer import MCMC, NUTS

from experiment_cases import kinetics

FEED, NOISE, END = kinetics.FEED, 0.03, 4.0
SOLVE = {"stepsize_controller": dfx.PIDController(rtol=1e-8, atol=1e-10), "dt0": None}


def measured(density) -> tuple[np.ndarray, np.ndarray]:
    """Times and data of the density of the scenario."""
    (experiment,) = density.log_likelihood.__self__.experiments
    there = np.asarray(experiment.measured)
    return np.asarray(experiment.ts)[there], np.asarray(experiment.data)[there]


def by_diffrax(rate, level, ts):
    """The concentrations as a user of diffrax computes them: a solve up to an event, then a second solve."""
    close = lambda t, y, args, **_: y - args[1]
    event = dfx.Event(close, optx.Newton(1e-10, 1e-10), direction=False)
    args, tsit5 = (rate, level), dfx.Tsit5()
    closed, opened = dfx.ODETerm(lambda t, y, args: -args[0] * y), dfx.ODETerm(lambda t, y, args: FEED - args[0] * y)
    save = [dfx.SubSaveAt(ts=ts), dfx.SubSaveAt(t1=True)]
    first = dfx.diffeqsolve(
        closed, tsit5, 0.0, END, y0=jnp.array(1.0), args=args, event=event, saveat=dfx.SaveAt(subs=save), **SOLVE
    )
    (before, (y,)), switch = first.ys, first.ts[1][0]
    later = dfx.SaveAt(ts=jnp.maximum(ts, switch))
    after = dfx.diffeqsolve(opened, tsit5, switch, END, y0=y, args=args, saveat=later, **SOLVE).ys
    # What the first solve has not reached is infinite: the inner choice keeps its derivative out.
    is_before = ts < switch
    return jnp.where(is_before, jnp.where(is_before, before, 0.0), after)


def exact(rate, level, ts):
    """The concentrations in closed form."""
    switch, limit = -jnp.log(level) / rate, FEED / rate
    return jnp.where(ts < switch, jnp.exp(-rate * ts), limit + (level - limit) * jnp.exp(-rate * (ts - switch)))


def log_likelihood(concentrations, density):
    """The log-likelihood of rate and level, up to a constant, with concentrations computed in this way."""
    ts, data = (jnp.asarray(x) for x in measured(density))
    return lambda rate, level: -0.5 * jnp.sum((concentrations(rate, level, ts) - data) ** 2) / NOISE**2


def model_of(concentrations, density):
    """A model of numpyro, with flat priors where the data leave any density."""
    ts, data = (jnp.asarray(x) for x in measured(density))

    def model():
        rate, level = numpyro.sample("rate", dist.Uniform(0.0, 20.0)), numpyro.sample("level", dist.Uniform(0.0, 1.0))
        numpyro.sample("data", dist.Normal(concentrations(rate, level, ts), NOISE), obs=data)

    return model


def by_numpyro(kernel: NUTS, draws: int, read, **options):
    """A function of a seed: the samples by `read`, and the seconds of adapting and drawing without compilation."""
    sampler = MCMC(kernel, num_warmup=draws // 2, num_samples=draws, progress_bar=False)

    def run(seed: int):
        began = time.perf_counter()
        sampler.warmup(jr.key(seed), **options)
        middle = time.perf_counter()
        sampler.run(jr.key(1000 + seed), **options)
        return read(sampler.get_samples()), middle - began, time.perf_counter() - middle

    return run


def by_numpyro_model(concentrations, density, draws: int):
    """numpyro NUTS on a model."""
    read = lambda samples: np.stack([samples["rate"], samples["level"]], 1)
    return by_numpyro(NUTS(model_of(concentrations, density)), draws, read)


def by_numpyro_potential(density, draws: int):
    """numpyro NUTS on the log density of a problem."""
    read = lambda samples: np.stack(jax.tree.leaves(jax.vmap(density.model)(samples)), 1)
    return by_numpyro(NUTS(potential_fn=lambda z: -density(z)), draws, read, init_params=density.start)


def by_blackjax(density, draws: int):
    """blackjax NUTS on the log density of a problem; adapting and drawing are two compiled programs."""

    def adapt(key):
        (state, parameters), _ = blackjax.window_adaptation(blackjax.nuts, density).run(
            key, density.start, num_steps=draws // 2
        )
        return state, parameters

    def draw(state, parameters, key):
        kernel = blackjax.nuts(density, **parameters).step

        def step(state, key):
            state, _ = kernel(key, state)
            return state, state.position

        positions = jax.lax.scan(step, state, jr.split(key, draws))[1]
        models = jax.vmap(density.model)(positions)
        return jnp.stack([models.rate, models.level], 1)

    adapt, draw = jax.jit(adapt), jax.jit(draw)

    def run(seed: int):
        warm_key, key = jr.split(jr.key(seed))
        began = time.perf_counter()
        adapted = jax.block_until_ready(adapt(warm_key))
        middle = time.perf_counter()
        samples = jax.block_until_ready(draw(*adapted, key))
        return np.asarray(samples), middle - began, time.perf_counter() - middle

    return run


def effective(samples: np.ndarray) -> np.ndarray:
    """The number of effective samples of each column."""
    return np.array([float(blackjax.diagnostics.effective_sample_size(jnp.asarray(x)[None])) for x in samples.T])
