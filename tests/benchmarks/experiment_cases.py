"""The cases of bench_experiments.py: the network of scenarios/kinetics.py with eight mixtures, and it by SciPy."""

import dataclasses
import sys
from pathlib import Path

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

import diffsim as ds

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import kinetics
from kinetics import CHANGE, MEASURED, NOISE, REACTANTS, SPECIES, Network, react, truth

COLUMNS = np.array([SPECIES.index(s) for s in MEASURED])
MIXTURES = [*kinetics.MIXTURES.values(), *(
    (0.3, 0.3, 0.0, 1.5, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0, 1.0, 0.5), (1.5, 0.0, 1.0, 0.0, 0.0, 0.2),
    (0.1, 0.8, 0.2, 0.0, 0.0, 1.5),
)]  # fmt: skip
LENGTHS = (20, 14, 17, 11, 25, 9, 30, 13)
LAST = (10.0, 30.0, 20.0, 25.0, 5.0, 40.0, 15.0, 8.0)  # s
GAPS = 0.15


def simulate(rtol: float):
    """The simulation of the scenario with this relative tolerance, and a hundredth of it as the absolute one."""

    def concentrations(model: Network, experiment: ds.Experiment):
        rates = jnp.stack(jax.tree.leaves(model))
        options = {"solver": dfx.Kvaerno5(), "rtol": rtol, "atol": 1e-2 * rtol, "max_steps": 4096}
        return ds.integrate(react, experiment.y0, experiment.ts, rates, **options)[:, COLUMNS]

    return concentrations


def experiments(count: int = 8, seed: int = 0) -> list[ds.Experiment]:
    """Simulated experiments with noise and gaps, of unequal lengths."""
    blank = []
    for number in range(count):
        ts = np.geomspace(2e-3, LAST[number], LENGTHS[number])
        data = np.zeros((ts.size, len(MEASURED)))
        blank.append(
            ds.Experiment(
                ts, data, jnp.array(MIXTURES[number]), noise=NOISE, t0=0.0, name=str(number), columns=MEASURED
            )
        )
    problem = ds.FitProblem(simulate(1e-9), blank)
    data = [sets[0] for sets in data_sets(problem, truth(), 1, seed)]
    return [dataclasses.replace(e, data=d) for e, d in zip(blank, data, strict=True)]


def data_sets(problem: ds.FitProblem, model, count: int, seed: int, gaps: float = GAPS) -> list[np.ndarray]:
    """Simulated data of each experiment, with normal noise and random gaps; the first axis counts the sets."""
    rng = np.random.default_rng(seed)
    sets = []
    for prediction, e in zip(problem.predict(model).values(), problem.experiments, strict=True):
        values = prediction + np.asarray(e.noise.std) * rng.normal(size=(count, *prediction.shape))
        there = np.asarray(e.measured) & (rng.random(values.shape) > gaps)
        sets.append(np.where(there, values, np.nan))
    return sets


class Chain(eqx.Module):
    """The rates of A -> B -> C."""

    fast: ds.Scalar = ds.param(1.0, "1/s", (0.0, np.inf))
    slow: ds.Scalar = ds.param(0.25, "1/s", (0.0, np.inf))


CHAIN = Chain()


def chain(model: Chain, experiment: ds.Experiment):
    """The concentration of B, which A of 1 mol/l at the start becomes, and which becomes C."""
    field = lambda t, y, m: jnp.stack([-m.fast * y[0], m.fast * y[0] - m.slow * y[1]])
    return ds.integrate(field, jnp.array([1.0, 0.0]), experiment.ts, model, rtol=1e-8, atol=1e-10)[:, 1]


def blank_chain(ts) -> ds.Experiment:
    """An experiment at these times, without data."""
    return ds.Experiment(ts, np.zeros(len(ts)), noise=0.02, t0=0.0, name="chain")


class ByScipy:
    """The same residuals of the logarithms of the rates by `solve_ivp`, as a user of SciPy writes them."""

    def __init__(self, experiments: list[ds.Experiment], method: str, rtol: float):
        self.rows = [tuple(np.asarray(x) for x in (e.ts, e.data, e.y0)) for e in experiments]
        self.options = {"method": method, "rtol": rtol, "atol": 1e-2 * rtol}
        self.first, self.second = REACTANTS.T
        self.change = CHANGE.T.astype(float)
        self.solves = 0

    def field(self, t, y, rates):
        """Mass action, as in the scenario."""
        y = np.append(y, 1.0)
        return self.change @ (rates * y[self.first] * y[self.second])

    def jacobian(self, t, y, rates):
        """The derivative of `field` by the concentrations."""
        y = np.append(y, 1.0)
        d = np.zeros((len(rates), len(y)))
        rows = np.arange(len(rates))
        d[rows, self.first] += rates * y[self.second]
        d[rows, self.second] += rates * y[self.first]
        return self.change @ d[:, :-1]

    def residuals(self, logs):
        """The residuals of all measurements in standard deviations."""
        rates, parts = np.exp(logs), []
        for ts, data, y0 in self.rows:
            options = self.options | {"jac": lambda t, y: self.jacobian(t, y, rates)}
            solution = solve_ivp(lambda t, y: self.field(t, y, rates), (0.0, ts[-1]), y0, t_eval=ts, **options)
            self.solves += 1
            parts.append(((solution.y.T[:, COLUMNS] - data) / NOISE)[np.isfinite(data)])
        return np.concatenate(parts)

    def fit(self, start, jac: str = "2-point", step: float = 1e-4, tolerance: float = 1e-9):
        """The fit by differences, whose relative step is larger than the errors of the solves."""
        options = {"jac": jac, "diff_step": step, "xtol": tolerance, "ftol": tolerance, "gtol": tolerance}
        return least_squares(self.residuals, start, x_scale="jac", **options)
