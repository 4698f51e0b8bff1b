"""Which rates has a stiff reaction network, how well are they known, and which experiment should be made next?

Six species react in twelve steps whose times differ by a factor of 1e4. Four experiments start from different mixtures,
were measured at different times and have gaps. All twelve rates are fitted together; intervals and a profile say how
well they are known, and the next experiment - its mixture and its measuring times - is designed by the gradient through
the solver so that it shrinks the interval of the rate that is known worst. A second, small model switches its feed on
when the reactor runs low: its posterior is sampled by NUTS through that event and compared with a grid.

    python scenarios/kinetics.py                  the rates of the data set in scenarios/data, with a report
    python scenarios/kinetics.py --data MINE.csv
    python scenarios/kinetics.py sample           NUTS through an event; needs blackjax
    python scenarios/kinetics.py generate OUT.csv a simulated data set with noise and gaps

The data in scenarios/data are simulated, as their first line says. Expected: all twelve rates within their 90%
intervals; of the rate that is known worst, the designed experiment takes three times as much off the standard deviation
as a plain one. Two minutes; a minute for `sample`.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import cast

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

import diffsim as ds
from diffsim._extras import extra
from diffsim.experiments import design_experiment, read_experiments
from diffsim.io.csv import remarks
from diffsim.io.files import write_text
from diffsim.viz import plot, report

DATA = Path(__file__).with_name("data") / "kinetics.csv"
SPECIES: tuple[str, ...] = ("A", "B", "C", "D", "E", "F")
REACTIONS = (  # what reacts, what it becomes
    ("AB", "C"), ("C", "AB"), ("C", "DE"), ("DB", "F"), ("F", "DB"), ("F", "CE"),
    ("E", "A"), ("EE", "D"), ("D", "A"), ("CD", "FA"), ("A", "E"), ("EF", "BC"),
)  # fmt: skip
TRUE = (50.0, 5.0, 10.0, 200.0, 20.0, 1.0, 0.5, 3.0, 0.1, 30.0, 0.02, 8.0)
MIXTURES = {  # concentrations (mol/l) at the start of each experiment
    "equal": (1.0, 1.0, 0.0, 0.0, 0.0, 0.0),
    "rich in A": (2.0, 0.5, 0.0, 0.0, 0.2, 0.0),
    "with D": (0.2, 1.5, 0.0, 1.0, 0.0, 0.0),
    "with E and F": (0.5, 0.1, 0.0, 0.0, 1.0, 1.0),
}
MEASURED: tuple[str, ...] = ("A", "B", "D", "E", "F")
NOISE = 0.01  # mol/l
NEXT = 8  # measuring times of the next experiment
LEVEL = 0.9  # of intervals
# The numbers of the two species that react; the last, of which there is always 1, where there is only one.
REACTANTS = np.array([[*map(SPECIES.index, reacting), len(SPECIES)][:2] for reacting, _ in REACTIONS])
CHANGE = np.array([[after.count(s) - before.count(s) for s in SPECIES] for before, after in REACTIONS])


class Network(eqx.Module):
    """The rates of the reactions, 1/s or l/(mol s)."""

    k1: ds.Scalar = ds.param(10.0, "l/(mol s)", (0.0, np.inf))
    k2: ds.Scalar = ds.param(10.0, "1/s", (0.0, np.inf))
    k3: ds.Scalar = ds.param(10.0, "1/s", (0.0, np.inf))
    k4: ds.Scalar = ds.param(100.0, "l/(mol s)", (0.0, np.inf))
    k5: ds.Scalar = ds.param(10.0, "1/s", (0.0, np.inf))
    k6: ds.Scalar = ds.param(2.0, "1/s", (0.0, np.inf))
    k7: ds.Scalar = ds.param(1.0, "1/s", (0.0, np.inf))
    k8: ds.Scalar = ds.param(1.0, "l/(mol s)", (0.0, np.inf))
    k9: ds.Scalar = ds.param(0.2, "1/s", (0.0, np.inf))
    k10: ds.Scalar = ds.param(10.0, "l/(mol s)", (0.0, np.inf))
    k11: ds.Scalar = ds.param(0.05, "1/s", (0.0, np.inf))
    k12: ds.Scalar = ds.param(3.0, "l/(mol s)", (0.0, np.inf))


def react(t, y, rates):
    """Mass action: each step is proportional to the concentrations of what reacts."""
    first, second = jnp.concatenate([y, jnp.ones(1, y.dtype)])[REACTANTS.T]
    return jnp.asarray(CHANGE.T, y.dtype) @ (rates * first * second)


def simulate(model: Network, experiment: ds.Experiment):
    """The concentrations (mol/l) of the species MEASURED at the times of an experiment."""
    rates = jnp.stack(jax.tree.leaves(model))
    options = {"solver": dfx.Kvaerno5(), "rtol": 1e-6, "atol": 1e-9, "max_steps": 1024}
    ys = ds.integrate(react, experiment.y0, experiment.ts, rates, **options)
    return ys[:, np.array([SPECIES.index(s) for s in MEASURED])]


def truth() -> Network:
    """The rates that the data set was simulated with."""
    return ds.replace(Network(), dict(zip(ds.parameters(Network()), TRUE, strict=True)))


def measured(path: Path) -> list[ds.Experiment]:
    """The experiments of a long table, with the mixtures they began from."""
    experiments = read_experiments(path, noise=NOISE, observables=MEASURED)
    unknown = [e.name for e in experiments if e.name not in MIXTURES]
    if unknown:
        raise ds.InputError(
            f"{path} has experiment {unknown[0]!r}: its mixture is not known; give {', '.join(MIXTURES)}"
        )
    return [begun(e) for e in experiments]


def begun(experiment: ds.Experiment) -> ds.Experiment:
    """An experiment with its mixture at 0 s."""
    e, y0 = experiment, jnp.array(MIXTURES[experiment.name])
    return ds.Experiment(e.ts, e.data, y0, noise=NOISE, t0=0.0, name=e.name, columns=e.columns)


def fit(*, data: cli.InFile = DATA, run: cli.Run) -> dict:
    """Fit the rates to all experiments, profile the worst known, design the next experiment; write the report.

    Args:
        data: CSV with the columns experiment, time (s), observable and value (mol/l), in any order.
    """
    experiments = measured(data)
    problem = ds.FitProblem(simulate, experiments)
    count = sum(int(np.sum(e.measured)) for e in experiments)
    run.say(f"fitting {len(REACTIONS)} rates to {count} measurements in {len(experiments)} experiments")
    model, history = ds.fit_least_squares(problem.residuals, problem.start(Network()), progress=False)
    posterior = ds.posterior(problem.residuals, model, noise=problem.noise)
    rows = posterior.summary(LEVEL)
    worst = max(rows, key=lambda row: row.std / row.value)
    run.say(f"profiling {worst.path}")
    profile = ds.profile_likelihood(problem.residuals, model, path=worst.path, level=LEVEL, noise=problem.noise)
    run.say(f"designing an experiment for {worst.path}")
    ts, blank = np.geomspace(0.01, 20.0, NEXT), np.zeros((NEXT, len(MEASURED)))
    plain = ds.Experiment(ts, blank, jnp.array(MIXTURES["equal"]), noise=NOISE, t0=0.0, name="next", columns=MEASURED)
    options = {"criterion": worst.path, "existing": problem, "starts": 4, "steps": 20}
    design = design_experiment(simulate, model, plain, {"ts": (1e-3, 30.0), "y0": (0.0, 1.0)}, **options)
    result = {row.path: row.value for row in rows} | {f"{row.path}_std": row.std for row in rows}
    result |= {"worst": worst.path, "std": worst.std, "profile": [profile.low, profile.high]}
    result |= {"std_plain": design.std_before[worst.path], "std_designed": design.std[worst.path]}
    result |= {"loss": float(history.loss[np.isfinite(history.loss)][-1]), "status": history.status}
    write_report(run, data, result, posterior, problem, model, design, profile, worst)
    return result


def write_report(run, data, result, posterior, problem, model, design, profile, worst) -> None:
    """Rates, predictions of every experiment, the profile, and the next experiment."""
    comments = remarks(data)
    page = report.Report("Rates of a reaction network", comments[0] if comments else f"Fitted to {data.name}")
    page.settings(run.settings)
    page.result(result)
    columns = ["rate", "value", "unit", "standard deviation", f"{LEVEL:.0%} from", "to", "remark"]
    rows = [[r.path, r.value, r.unit, r.std, r.low, r.high, r.remark] for r in posterior.summary(LEVEL)]
    page.table("Rates", columns, rows)
    for experiment in problem.experiments:
        ts = np.geomspace(1e-3, float(experiment.ts[-1]), 200)
        predictions = np.asarray(jax.jit(problem.predictor(experiment.name, ts))(model))
        curves = dict(zip(MEASURED, predictions.T, strict=True))
        points = experiment.ts, dict(zip(MEASURED, np.asarray(experiment.data).T, strict=True))
        picture = plot.curves(ts, curves, "time (s)", "mol/l", log="x", points=points)
        page.figure(picture, f"The experiment {experiment.name!r}: measured, and fitted.")
        run.figure(experiment.name.replace(" ", "_"), picture)
    curve = plot.profile_curve(
        profile, worst.std, float(posterior.critical_value(LEVEL)), f"{worst.path} ({worst.unit})"
    )
    page.figure(curve, f"Profile of {worst.path}; dotted, the ends of its interval.")
    run.figure("profile", curve)
    page.section("The next experiment")
    mixture = dict(zip(SPECIES, np.asarray(design.experiment.y0).tolist(), strict=True))
    page.table("Mixture at the start", ["species", "mol/l"], list(mixture.items()))
    page.table("Measuring times", ["s"], [[float(t)] for t in design.experiment.ts[1:]])
    columns = ["rate", "now", "after a plain experiment", "after the designed experiment"]
    now = dict(zip([r.path for r in posterior.summary()], np.asarray(posterior.std()).tolist(), strict=True))
    page.table("Standard deviations", columns, [[p, now[p], design.std_before[p], design.std[p]] for p in now])
    page.write(run.folder / "report.html")


class Feed(eqx.Module):
    """A reactor whose feed opens when the concentration has fallen to a level."""

    rate: ds.Scalar = ds.param(0.8, "1/s", (0.0, np.inf))
    level: ds.Scalar = ds.param(0.4, "mol/l", (0.0, 1.0))


FEED = 0.25  # mol/(l s)
OPEN = (
    ds.Phase(lambda t, y, m: -m.rate * y, ds.Event(lambda t, y, m: y - m.level, "falling", to=1)),
    ds.Phase(lambda t, y, m: FEED - m.rate * y),
)


def concentrations(model: Feed, experiment: ds.Experiment):
    """The concentration (mol/l) at the times of an experiment that begins at 1 mol/l."""
    ts = experiment.ts
    options = {"t0": ts[0], "t1": ts[-1], "ts": ts, "max_events": 2, "rtol": 1e-8, "atol": 1e-10}
    return cast(Array, ds.integrate_hybrid(OPEN, jnp.ones(()), model, **options).ys)


def feed_density():
    """The log density of the small model, for data that are simulated here."""
    ts = np.linspace(0.0, 4.0, 13)[1:]
    exact = concentrations(Feed(), ds.Experiment(ts, ts, t0=0.0))[1:]
    data = np.asarray(exact) + 0.03 * np.random.default_rng(3).normal(size=ts.size)
    data[[2, 7]] = np.nan
    experiment = ds.Experiment(ts, data, noise=0.03, t0=0.0, name="feed")
    return ds.FitProblem(concentrations, [experiment]).log_density(Feed())


def grid_moments(density, points: int = 121):
    """Mean and standard deviation of rate and level by a grid of the density in physical parameters."""
    rates, levels = np.linspace(0.5, 1.2, points), np.linspace(0.2, 0.6, points)

    def log_likelihood(rate, level):
        return density.log_likelihood(Feed(rate, level))

    rows = jax.jit(jax.vmap(lambda rate: jax.vmap(lambda level: log_likelihood(rate, level))(jnp.asarray(levels))))
    logs = np.asarray(rows(jnp.asarray(rates)))
    weights = np.exp(logs - np.nanmax(logs))
    weights /= np.nansum(weights)
    grid = np.stack(np.meshgrid(rates, levels, indexing="ij"), -1).reshape(-1, 2)
    flat = np.nan_to_num(weights).ravel()
    mean = flat @ grid
    return mean, np.sqrt(flat @ (grid - mean) ** 2)


def sample(*, draws: cli.Count = 2000, seed: cli.Seed = 0, run: cli.Run) -> dict:
    """Sample rate and level of a reactor whose feed opens at an event by NUTS, compare with a grid; write the report.

    Args:
        draws: how many samples, after half as many to adapt.
        seed: of the samples.
    """
    blackjax = extra("blackjax", "inference")
    density = feed_density()
    warm_key, key = jr.split(jr.key(seed))
    run.say("adapting")
    adapt = blackjax.window_adaptation(blackjax.nuts, density)
    (state, parameters), _ = adapt.run(warm_key, density.start, num_steps=max(draws // 2, 100))
    kernel = blackjax.nuts(density, **parameters).step

    @jax.jit
    def chain(state, key):
        def step(state, key):
            state, info = kernel(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(step, state, jr.split(key, draws))[1]

    run.say(f"drawing {draws} samples")
    positions, divergent = chain(state, key)
    models = jax.vmap(density.model)(positions)
    samples = np.stack([models.rate, models.level], 1)
    effective = np.array([float(blackjax.diagnostics.effective_sample_size(x[None])) for x in samples.T])
    mean, std = grid_moments(density)
    error = samples.std(axis=0) / np.sqrt(effective)
    result = {}
    for i, name in enumerate(("rate", "level")):
        result |= {f"{name}_mean": float(samples[:, i].mean()), f"{name}_std": float(samples[:, i].std())}
        result |= {f"{name}_grid_mean": float(mean[i]), f"{name}_grid_std": float(std[i])}
        result |= {f"{name}_monte_carlo_errors": float((samples[:, i].mean() - mean[i]) / error[i])}
    result |= {"effective": float(effective.min()), "divergent": int(np.sum(divergent))}
    page = report.Report("A posterior through an event", "NUTS against a grid of the density")
    page.settings(run.settings)
    page.result(result)
    page.write(run.folder / "report.html")
    return result


def generate(out: cli.OutFile, *, seed: cli.Seed = 0) -> dict:
    """Simulate four experiments with noise and gaps, and write them as a long table with a remark on their origin.

    Args:
        out: the CSV to write.
        seed: of the noise and the gaps.
    """
    rng = np.random.default_rng(seed)
    origin = f"six species, twelve reactions, rates {', '.join(f'{k:g}' for k in TRUE)}, normal noise of {NOISE} mol/l"
    lines = [f"# Simulated, not measured: {origin}, seed {seed}", "experiment,time,observable,value"]
    for number, name in enumerate(MIXTURES):
        ts = np.geomspace(2e-3, (10.0, 30.0, 20.0, 25.0)[number], (20, 14, 17, 11)[number])
        blank = begun(ds.Experiment(ts, np.zeros((ts.size, len(MEASURED))), name=name, columns=MEASURED))
        values = np.asarray(jax.jit(simulate)(truth(), blank))[1:]
        if not np.all(np.isfinite(values)):
            raise ds.RunError(f"the experiment {name!r} was not solved to its end")
        values = values + NOISE * rng.normal(size=values.shape)
        for t, row in zip(ts, values, strict=True):
            kept = [(s, x) for s, x in zip(MEASURED, row, strict=True) if rng.random() > 0.15]
            lines += [f"{name},{t:.5g},{species},{x:.4f}" for species, x in kept]
    write_text(out, "\n".join(lines) + "\n")
    return {"file": str(out), "rows": len(lines) - 2}


if __name__ == "__main__":
    cli.main(fit, sample, generate)
