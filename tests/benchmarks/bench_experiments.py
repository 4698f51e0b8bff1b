"""Experiments fitted, sampled and designed, and long signals: diffsim compared with SciPy, numpyro and diffrax.

python tests/benchmarks/bench_experiments.py [network] [coverage] [nuts] [design] [knots] [--write]

Compilation is timed separately; cases that are compared run in turns in one process. `nuts` needs blackjax and numpyro.
The load of the machine moves the numbers: believe ratios.
"""

import json
import os
import subprocess
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

import diffsim as ds
from diffsim.experiments import design_experiment
from experiment_cases import CHAIN, ByScipy, Network, blank_chain, chain, data_sets, experiments, simulate, truth
from knot_cases import VALUES, by_diffrax, by_diffsim, by_scipy, exact
from timing import WORDS, compiled, keep, table

LEVEL = 0.9  # of intervals
COMMAND = "bench_experiments.py --write"


def report(part: str, results: dict) -> None:
    """Prints the results of a part, and keeps them."""
    print(f"\n{part}")
    for name, value in results.items():
        if isinstance(value, dict):
            continue
        print(f"  {name:36s}{value:12.6g}" if isinstance(value, float | int) else f"  {name:36s}{value}", flush=True)
    keep("experiments", COMMAND, **{part: results})


def in_turns(cases: dict, rounds: int) -> dict[str, float]:
    """Minimum and median wall time of each case, and CPU time, in seconds."""
    walls, cpus = {name: [] for name in cases}, {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            cpu, wall = time.process_time(), time.perf_counter()
            case()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    rows = {}
    for name in cases:
        rows |= {f"{name}_min_seconds": min(walls[name]), f"{name}_median_seconds": float(np.median(walls[name]))}
        rows |= {f"{name}_cpu_seconds": min(cpus[name])}
    return rows


def fitted(problem: ds.FitProblem):
    """The network fitted from the start of the scenario."""
    return ds.fit_least_squares(problem.residuals, problem.start(Network()), progress=False)


def first_fit() -> None:
    """The first fit of a process: its seconds, and how often the simulation is traced."""
    traces, concentrations = [], simulate(1e-8)

    def counted(model, experiment):
        traces.append(1)
        return concentrations(model, experiment)

    problem = ds.FitProblem(counted, experiments())
    began = time.perf_counter()
    _, history = fitted(problem)
    seconds = time.perf_counter() - began
    print(json.dumps({"cold_seconds": seconds, "compile_seconds": history.compile_seconds, "traces": len(traces)}))


def network() -> None:
    """Twelve rates fitted to eight experiments of unequal lengths with gaps, and by SciPy with finite differences."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run([sys.executable, __file__, "first_fit"], env=environment, capture_output=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    data = experiments()
    problem, scipy = ds.FitProblem(simulate(1e-8), data), ByScipy(data, "LSODA", 1e-8)
    start = np.log(np.array(jax.tree.leaves(Network())))
    fitted(problem)
    solutions = []
    cases = {"diffsim": lambda: fitted(problem), "scipy": lambda: solutions.append(scipy.fit(start))}
    results |= in_turns(cases, rounds=2)
    results["ratio"] = results["scipy_min_seconds"] / results["diffsim_min_seconds"]
    results["ratio_of_cpu_times"] = results["scipy_cpu_seconds"] / results["diffsim_cpu_seconds"]
    results["scipy_solves"] = scipy.solves // len(solutions)
    # Both again, with tight tolerances: SciPy goes on from its own solution with central differences.
    tight = ds.FitProblem(simulate(1e-9), data)
    model, history = fitted(tight)
    polished = ByScipy(data, "LSODA", 1e-10).fit(solutions[-1].x, "3-point", 1e-3, 1e-8)
    rates, std = np.array(jax.tree.leaves(model)), np.asarray(ds.posterior(tight.residuals, model, noise=1.0).std())
    reference = np.sqrt(np.diagonal(np.linalg.inv(polished.jac.T @ polished.jac)))
    results["largest_difference_of_rates"] = float(np.max(np.abs(rates / np.exp(polished.x) - 1)))
    results["largest_difference_of_std"] = float(np.max(np.abs(std / rates / reference - 1)))
    results |= {"diffsim_loss": float(history.loss[np.isfinite(history.loss)][-1]), "scipy_loss": float(polished.cost)}
    results |= {"experiments": len(data), "measurements": sum(int(np.sum(e.measured)) for e in data)}
    report("network", results)


def coverage(count: int = 200, rtol: float = 1e-6) -> None:
    """The share of intervals that contain the rate that the data were simulated with, of four experiments."""
    problem = ds.FitProblem(simulate(rtol), experiments(4))
    data = data_sets(problem, truth(), count, seed=1)
    std_of = eqx.filter_jit(lambda m, data: ds.posterior(problem.residuals, m, data, noise=problem.noise).std())
    began = time.perf_counter()
    # One after the other: side by side, each would have its own record of the solves.
    covered = [covers(problem, std_of, [jnp.asarray(values[k]) for values in data]) for k in range(count)]
    inside = np.stack([rows for rows, _ in covered])
    shares = inside.mean(axis=0)
    names = list(ds.parameters(truth()))
    results = {
        "data_sets": count,
        "converged": sum(status == "converged" for _, status in covered),
        "pooled": float(inside.mean()),
    }
    results |= {
        "worst": float(shares[np.argmax(np.abs(shares - LEVEL))]),
        "worst_rate": names[np.argmax(np.abs(shares - LEVEL))],
    }
    results |= {"least": float(shares.min()), "seconds": time.perf_counter() - began}
    report("coverage", results)


def covers(problem: ds.FitProblem, std_of, data) -> tuple[np.ndarray, str]:
    """Whether the interval of each rate, symmetric in its logarithm, contains the true one, and how the fit ended."""
    fitted, history = ds.fit_least_squares(problem.residuals, truth(), data, rtol=1e-6, progress=False)
    rates, exact = np.array(jax.tree.leaves(fitted)), np.array(jax.tree.leaves(truth()))
    half_width = ndtri((1 + LEVEL) / 2) * np.asarray(std_of(fitted, data)) / rates
    return np.abs(np.log(rates / exact)) <= half_width, history.status


def nuts(draws: int = 2000, seeds: int = 4) -> None:
    """The posterior of a reactor whose feed opens at an event, by NUTS on our density and on one by diffrax."""
    import nuts_cases as cases

    density = cases.kinetics.feed_density()
    functions = {
        "exact": cases.log_likelihood(cases.exact, density),
        "diffsim": lambda rate, level: density.log_likelihood(cases.kinetics.Feed(rate, level)),
        "diffrax": cases.log_likelihood(cases.by_diffrax, density),
    }
    slopes = {name: np.array(jax.jit(jax.grad(f, (0, 1)))(0.85, 0.37)) for name, f in functions.items()}
    error = lambda name: float(np.max(np.abs(slopes[name] / slopes["exact"] - 1)))
    results = {f"{name}_error_of_gradient": error(name) for name in ("diffsim", "diffrax")}
    samplers = {
        "blackjax": cases.by_blackjax(density, draws),
        "numpyro": cases.by_numpyro_potential(density, draws),
        "numpyro_diffrax": cases.by_numpyro_model(cases.by_diffrax, density, draws),
    }
    chains = {name: [] for name in samplers}
    for seed in (-1, *range(seeds)):  # the first one compiles
        for name, sampler in samplers.items():
            chains[name].append(sampler(seed + 1))
    mean, std = cases.kinetics.grid_moments(density)
    for name, (first, *rest) in chains.items():
        samples, adapting, drawing = zip(*rest, strict=True)
        effective = np.array([cases.effective(x) for x in samples])
        means, stds = (np.array([f(x, axis=0) for x in samples]) for f in (np.mean, np.std))
        # The variance of the standard deviation of normal samples is half that of their mean.
        off = np.abs(means - mean) / (std / np.sqrt(effective)), np.abs(stds - std) / (std / np.sqrt(2 * effective))
        results |= {f"{name}_mean_monte_carlo_errors": np.max(off[0], axis=1).round(2).tolist()}
        results |= {f"{name}_std_monte_carlo_errors": np.max(off[1], axis=1).round(2).tolist()}
        rates = np.min(effective, axis=1) / np.array(drawing)
        results |= {f"{name}_effective": float(np.median(np.min(effective, axis=1)))}
        results |= {
            f"{name}_effective_per_second": float(np.median(rates)),
            f"{name}_best_per_second": float(max(rates)),
        }
        results |= {f"{name}_adapt_seconds": min(adapting), f"{name}_draw_seconds": min(drawing)}
        results |= {f"{name}_first_seconds": first[1] + first[2]}
    report("nuts", results)


def design(count: int = 1000) -> None:
    """A chain of two reactions measured at eight times: the predicted standard deviation against that of many fits."""
    given = blank_chain(np.linspace(0.0, 12.0, 9)[1:])
    began = time.perf_counter()
    best = design_experiment(chain, CHAIN, given, {"ts": (0.0, 12.0)}, criterion="slow")
    results = {"design_seconds": time.perf_counter() - began, "repetitions": count}
    results["times"] = np.asarray(best.experiment.ts[1:]).round(3).tolist()
    for name, experiment, std in (("equidistant", given, best.std_before), ("designed", best.experiment, best.std)):
        measured = spread(experiment, count)
        results |= {f"{name}_predicted": std["slow"], f"{name}_measured": measured["slow"]}
        results |= {f"{name}_measured_by_predicted": measured["slow"] / std["slow"]}
    ratio = lambda kind: results[f"equidistant_{kind}"] / results[f"designed_{kind}"]
    results |= {"gain_predicted": ratio("predicted"), "gain_measured": ratio("measured")}
    results["measured_by_predicted"] = results["gain_measured"] / results["gain_predicted"]
    report("design", results)


def spread(experiment: ds.Experiment, count: int) -> dict[str, float]:
    """The standard deviation of each rate of the chain over fits of simulated repetitions of an experiment."""
    problem = ds.FitProblem(chain, [experiment])
    starts = jax.tree.map(lambda x: jnp.full(count, x), CHAIN)
    fits = ds.optimize.fit_many(
        problem.residuals, starts, data_sets(problem, CHAIN, count, 2, gaps=0.0), separate_data=True
    )
    return {name: float(np.std(entry.value)) for name, entry in ds.parameters(fits.models).items()}


def knots() -> None:
    """Value and gradient, in its 3,600 values, of a lag that a 1 Hz signal drives."""
    values = jnp.asarray(VALUES)
    tables, results = {}, {}
    for kind in ("linear", "hold"):
        value, slope = jax.jit(jax.value_and_grad(lambda v, kind=kind: exact(kind, v)))(values)
        solvers = {"diffsim": by_diffsim, "diffrax": by_diffrax}
        last = {name: lambda v, kind=kind, solver=solver: solver(kind, v).ys[-1] for name, solver in solvers.items()}
        alone = {name: compiled(lambda v, f=f: (f(v), f(v)), values) for name, f in last.items()}
        both = {name: compiled(jax.value_and_grad(f), values) for name, f in last.items()}
        tables[f"{kind}_value"] = table(f"1 Hz signal of 3,600 knots, {kind}, value", alone, rounds=5)
        tables[f"{kind}_gradient"] = table(f"1 Hz signal of 3,600 knots, {kind}, value and gradient", both, rounds=5)
        for name in solvers:
            found, gradient = both[name][0]()
            results[f"{kind}_{name}_error"] = abs(float(found / value - 1))
            results[f"{kind}_{name}_gradient_error"] = float(
                jnp.max(jnp.abs(gradient - slope)) / jnp.max(jnp.abs(slope))
            )
        results[f"{kind}_diffsim_steps"] = int(by_diffsim(kind, values).num_steps)
        results[f"{kind}_diffrax_steps"] = int(by_diffrax(kind, values).stats["num_steps"])
        began = time.perf_counter()
        results[f"{kind}_scipy_error"] = abs(by_scipy(kind) / float(value) - 1)
        results[f"{kind}_scipy_seconds"] = time.perf_counter() - began
    report("knots", results | tables)


if __name__ == "__main__":
    parts = {f.__name__: f for f in (network, coverage, nuts, design, knots)}
    for part in WORDS or parts:
        (parts | {"first_fit": first_fit})[part]()
