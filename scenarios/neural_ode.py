"""What drives two populations? A network inside a differential equation learns the terms that a model lacks.

Hares grow and are eaten, lynxes die and eat. Known are the growth of the ones and the deaths of the others; what each
does to the other is a network (a universal differential equation), fitted to a record of both. Sparse regression then
turns what the network learned into a formula: terms are left out one after the other, and the formula of which the
equation fits the record best for its number of terms is kept. A second job knows nothing at all and trains a network as
the whole right-hand side (a neural ODE), on windows of long records that come from a stream.

    python scenarios/neural_ode.py                 a simulated record with 2 % noise, whose law is known
    python scenarios/neural_ode.py pelts           the record of the Hudson's Bay Company, 1900 to 1920
    python scenarios/neural_ode.py windows         a neural ODE on windows, with validation and a checkpoint

Expected: the first finds the law with which the data were simulated, -0.9 y and 0.8 x, for at least 8 of 10 seeds. A
minute each.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import Annotated, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

import diffsim as ds
from diffsim.io.csv import remarks
from diffsim.io.measurements import read_measurements
from diffsim.viz import plot, report

DATA = Path(__file__).with_name("data") / "pelts.csv"
TERMS = ("1", "x", "y", "x^2", "x y", "y^2")
GROWTH, EATEN, GAIN, DEATH = 1.3, 0.9, 0.8, 1.8  # of the simulated record
TIMES = np.linspace(0.0, 9.0, 61)
SEGMENT = 10  # times, for multiple shooting
MOST_TERMS = 6  # of a formula
WINDOW, STRIDE = 12, 0.15  # states of a window, and the time between them


class Partly(eqx.Module):
    """Known rates of growth, and a network for what the populations do to each other, per head."""

    known: Array = eqx.field(converter=jnp.asarray)
    start: Array  # logarithms of the populations
    network: eqx.nn.MLP

    def rates(self, u):
        """Changes per head and time that are not known."""
        return self.network(jnp.exp(u) / SCALE)


class Formula(eqx.Module):
    """The same with a sum of terms in place of the network; the terms that are off have a mask of 0."""

    known: Array = eqx.field(converter=jnp.asarray)
    start: Array
    coefficients: Array  # (2, terms)

    def rates(self, u):
        """Changes per head and time that are not known."""
        return self.coefficients @ library(u)


SCALE = 3.0  # of populations in units of their means, for the network


def library(u):
    """The terms of which formulas are made, for populations exp(u)."""
    x, y = jnp.exp(u)
    return jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y])


def simulate(model, u0, ts, **options):
    """Logarithms of the populations at the times, which thereby remain positive."""
    return ds.integrate(lambda t, u, m: m.known + m.rates(u), u0, ts, model, **options)


def only_trained(model):
    """What of a model is trained: all but the known rates."""
    return eqx.tree_at(lambda m: m.known, ds.trainable(model), False)


class Record(NamedTuple):
    """Logarithms of two populations in units of their means, the times, and the noise of the logarithms."""

    ts: np.ndarray
    logs: np.ndarray
    noise: float


def network_fit(record: Record, known, width: int, seed: int) -> Partly:
    """The network that explains a record, by multiple shooting."""
    network = eqx.nn.MLP(2, 2, width, 1, activation=jnp.tanh, key=jr.key(seed))
    network = eqx.tree_at(lambda n: n.layers[-1].weight, network, replace_fn=lambda w: 0.1 * w)
    problem = ds.optimize.ShootingProblem(simulate, lambda m: m.start, lambda u: u)
    model, nodes = Partly(known, jnp.asarray(record.logs[0]), network), record.logs[SEGMENT:-1:SEGMENT]
    options = {"filter_spec": only_trained(model), "progress": False}
    ts, logs = jnp.asarray(record.ts), jnp.asarray(record.logs)
    return ds.optimize.fit_multiple_shooting(problem, model, ts, logs, jnp.asarray(nodes), **options)[0]


def formula_residuals(model: Formula, data):
    """Deviations in units of the noise, and what keeps the coefficients at zero that are off."""
    mask, ts, logs, noise = data
    kept = eqx.tree_at(lambda m: m.coefficients, model, model.coefficients * mask)
    return (simulate(kept, kept.start, ts) - logs) / noise, (1 - mask) * model.coefficients


class Candidate(NamedTuple):
    """A formula, its number of terms, the sum of its squared deviations, and the Bayesian information criterion."""

    formula: Formula
    terms: int
    squares: float
    criterion: float


def formulas(model: Partly, record: Record) -> list[Candidate]:
    """Formulas of fewer and fewer terms, each fitted to the record from what a regression of the network's rates says.

    Terms are left out in the order of their t values. A formula whose equation cannot be solved is no candidate.
    """
    ts = jnp.linspace(record.ts[0], record.ts[-1], 200)
    us = eqx.filter_jit(simulate)(model, model.start, ts)
    terms, rates = np.asarray(jax.vmap(library)(us)), np.asarray(jax.vmap(model.rates)(us))
    mask, candidates = np.ones((2, len(TERMS))), []
    while mask.sum() > 1:
        coefficients, t_values = regression(terms, rates, mask)
        mask = mask.copy()
        mask[np.unravel_index(np.argmin(t_values), mask.shape)] = 0
        if mask.sum() > MOST_TERMS:
            continue
        coefficients, _ = regression(terms, rates, mask)
        start = Formula(model.known, model.start, jnp.asarray(coefficients))
        data = jnp.asarray(mask), jnp.asarray(record.ts), jnp.asarray(record.logs), jnp.array(record.noise)
        options = {"filter_spec": only_trained(start), "progress": False}
        try:
            formula, _ = ds.fit_least_squares(formula_residuals, start, data, **options)
        except ds.FitError:
            continue
        formula = eqx.tree_at(lambda m: m.coefficients, formula, formula.coefficients * mask)
        squares = float(jnp.sum(formula_residuals(formula, data)[0] ** 2))
        count = int(mask.sum())
        candidates.append(Candidate(formula, count, squares, squares + count * np.log(record.logs.size)))
    if not candidates:
        raise ds.RunError("no formula could be fitted to the record: try another --seed")
    return sorted(candidates, key=lambda candidate: candidate.criterion)


def regression(terms, rates, mask) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of linear least squares by equation, and their t values; infinite for those that are off."""
    coefficients, t_values = np.zeros(mask.shape), np.full(mask.shape, np.inf)
    for row, wanted in enumerate(mask > 0):
        if wanted.any():
            a, scale = terms[:, wanted], np.linalg.norm(terms[:, wanted], axis=0)
            x, *_ = np.linalg.lstsq(a / scale, rates[:, row], rcond=None)
            misfit = rates[:, row] - a / scale @ x
            std = np.sqrt(np.diag(np.linalg.pinv((a / scale).T @ (a / scale))) * max(np.mean(misfit**2), 1e-12))
            coefficients[row, wanted], t_values[row, wanted] = x / scale, np.abs(x) / std
    return coefficients, t_values


def in_words(coefficients) -> list[str]:
    """The right-hand sides as text."""

    def one(row):
        parts = [f"{c:+.3f}{'' if term == '1' else ' ' + term}" for c, term in zip(row, TERMS, strict=True) if c]
        return " ".join(parts) or "0"

    return [one(row) for row in np.asarray(coefficients)]


def simulated(seed: int, noise: float = 0.02) -> Record:
    """A record of the law dx/dt = 1.3 x - 0.9 x y, dy/dt = -1.8 y + 0.8 x y, with noise relative to the populations."""
    law = true_law()
    logs = np.asarray(eqx.filter_jit(simulate)(law, law.start, jnp.asarray(TIMES)))
    return Record(TIMES, logs + noise * np.random.default_rng(seed).normal(size=logs.shape), noise)


def true_law() -> Formula:
    """That of the simulated records."""
    coefficients = jnp.zeros((2, len(TERMS))).at[0, 2].set(-EATEN).at[1, 1].set(GAIN)
    return Formula(jnp.array([GROWTH, -DEATH]), jnp.zeros(2), coefficients)


def recover(*, seed: cli.Seed = 0, run: cli.Run) -> dict:
    """Fit a network to a simulated record in which the interaction is missing, and find its formula.

    Args:
        seed: of the noise and of the network's first weights.
    """
    record = simulated(seed)
    run.say("fitting the network")
    model = network_fit(record, true_law().known, 6, seed)
    run.say("looking for a formula")
    candidates = formulas(model, record)
    found = np.asarray(candidates[0].formula.coefficients)
    right = np.asarray(true_law().coefficients)
    result = {
        "recovered": bool(np.array_equal(found != 0, right != 0)),
        "dx_per_x": in_words(found)[0],
        "dy_per_y": in_words(found)[1],
        "largest_error": float(np.max(np.abs(found - right))),
        "criterion": candidates[0].criterion,
    }
    write_report(run, result, record, model, candidates, right)
    return result


def pelts(*, data: cli.InFile = DATA, seed: cli.Seed = 0, run: cli.Run) -> dict:
    """Fit a network to the record of hares and lynxes, beside the law of Lotka and Volterra, and look for a formula.

    The growth of hares and the deaths of lynxes are those of the law of Lotka and Volterra that fits best.

    Args:
        data: CSV with the columns year, hare and lynx, populations in any unit.
        seed: of the network's first weights.
    """
    table = read_measurements(data, ["year", "hare", "lynx"], increasing="year")
    ts, populations = table["year"] - table["year"][0], np.stack([table["hare"], table["lynx"]], axis=1)
    if not np.all(populations > 0):
        raise ds.InputError(f"{data} has a population that is not above 0: give two positive columns, hare and lynx")
    if (len(ts) - 1) % SEGMENT:
        raise ds.InputError(f"{data} has {len(ts)} rows: give {SEGMENT} years or a multiple, and one row more")
    means = populations.mean(axis=0)
    record = Record(ts, np.log(populations / means), 0.25)
    run.say("fitting the law of Lotka and Volterra")
    law, squares = lotka_volterra(record)
    run.say("fitting the network")
    model = network_fit(record, law.known, 3, seed)
    run.say("looking for a formula")
    candidates = formulas(model, record)
    deviations = np.asarray(eqx.filter_jit(simulate)(model, model.start, jnp.asarray(ts))) - record.logs
    result = {
        "growth_of_hares": float(law.known[0]),
        "deaths_of_lynxes": -float(law.known[1]),
        "rms_lotka_volterra": float(np.sqrt(squares / record.logs.size)) * record.noise,
        "rms_network": float(np.sqrt(np.mean(deviations**2))),
        "rms_formula": float(np.sqrt(candidates[0].squares / record.logs.size)) * record.noise,
        "dx_per_x": in_words(candidates[0].formula.coefficients)[0],
        "dy_per_y": in_words(candidates[0].formula.coefficients)[1],
    }
    write_report(run, result, record, model, candidates, np.asarray(law.coefficients), (remarks(data) or [""])[0])
    return result


def lotka_volterra(record: Record) -> tuple[Formula, float]:
    """The law of Lotka and Volterra that fits a record best, and the sum of its squared deviations."""
    start = Formula(jnp.array([0.5, -0.8]), jnp.asarray(record.logs[0]), jnp.zeros((2, 6)).at[0, 2].set(-0.5))
    start = eqx.tree_at(lambda m: m.coefficients, start, start.coefficients.at[1, 1].set(0.8))
    mask = (start.coefficients != 0).astype(float)
    data = mask, jnp.asarray(record.ts), jnp.asarray(record.logs), jnp.array(record.noise)
    law, _ = ds.fit_least_squares(formula_residuals, start, data, progress=False)
    law = eqx.tree_at(lambda m: m.coefficients, law, law.coefficients * mask)
    return law, float(jnp.sum(formula_residuals(law, data)[0] ** 2))


def write_report(run, result, record, model, candidates, reference, origin: str = "") -> None:
    """The record, what the network learned beside the terms left out, and the formulas."""
    page = report.Report("A network inside a differential equation", origin)
    page.settings(run.settings)
    page.result(result)
    ts = np.linspace(record.ts[0], record.ts[-1], 300)
    us = np.asarray(eqx.filter_jit(simulate)(model, model.start, jnp.asarray(ts)))
    by_name = lambda logs: {"x": np.exp(logs[:, 0]), "y": np.exp(logs[:, 1])}
    points = record.ts, by_name(record.logs)
    picture = plot.curves(ts, by_name(us), "time", "population / mean", points=points)
    page.figure(picture, "The record, and the equation with the network.")
    run.figure("record", picture)
    learned = np.asarray(jax.vmap(model.rates)(us))
    terms = np.asarray(jax.vmap(library)(us)) @ np.asarray(reference).T
    labels = {"of x, network": learned[:, 0], "of x, terms": terms[:, 0]}
    labels |= {"of y, network": learned[:, 1], "of y, terms": terms[:, 1]}
    picture = plot.curves(ts, labels, "time", "change per head and time")
    page.figure(picture, "What the network learned along the way, and the terms that were left out.")
    run.figure("learned", picture)
    rows = [[c.terms, *in_words(c.formula.coefficients), c.squares, c.criterion] for c in candidates]
    columns = ["terms", "(dx/dt)/x - known", "(dy/dt)/y - known", "squared deviations", "information criterion"]
    page.table("Formulas, the best first", columns, rows)
    page.write(run.folder / "report.html")


def window_loss(network, windows):
    """The mean squared error of states predicted from the first of each window; shape (windows, WINDOW, 2)."""
    ts = STRIDE * jnp.arange(WINDOW, dtype=windows.dtype)
    field = lambda t, u, network: network(u)
    predicted = jax.vmap(lambda u: ds.integrate(field, u, ts, network, rtol=1e-4, atol=1e-6, max_steps=256))(
        windows[:, 0]
    )
    return jnp.mean((predicted - windows) ** 2)


def long_record(seed: int, count: int = 20_000) -> np.ndarray:
    """Logarithms of the populations over many turns from several starts, with noise: shape (starts, times, 2)."""
    law = true_law()
    starts = jnp.asarray(np.random.default_rng(seed).uniform(-0.8, 0.8, (8, 2)))
    ts = STRIDE * jnp.arange(count // len(starts))
    states = jax.vmap(lambda u: simulate(law, u, ts, max_steps=20_000))
    logs = np.asarray(jax.jit(states)(starts))
    return logs + 0.02 * np.random.default_rng(seed + 1).normal(size=logs.shape)


def windows_of(record: np.ndarray, seed: int, size: int) -> ds.train.ResumableStream:
    """A stream of random windows that can begin at any step."""

    def batches_from(step):
        while True:
            rng = np.random.default_rng((seed, step))
            rows = rng.integers(0, len(record), size)
            firsts = rng.integers(0, record.shape[1] - WINDOW, size)
            yield record[rows[:, None], firsts[:, None] + np.arange(WINDOW)]
            step += 1

    return ds.train.ResumableStream(batches_from)


def windows(
    *,
    steps: Annotated[int, cli.Within(1, 1_000_000)] = 2000,
    size: Annotated[int, cli.Within(1, 10_000)] = 64,
    seed: cli.Seed = 0,
    run: cli.Run,
) -> dict:
    """Train a neural ODE on windows of a long record that come from a stream, with validation and a checkpoint.

    Args:
        steps: the number of steps; the fit ends before if the validation loss has not fallen for 1,000 of them.
        size: windows in a batch.
        seed: of the record, the windows and the network.
    """
    record = long_record(seed)
    cut = int(0.8 * record.shape[1])
    network = eqx.nn.MLP(2, 2, 32, 2, activation=jnp.tanh, key=jr.key(seed))
    held_out = next(windows_of(record[:, cut:], seed + 1, 256).batches_from(0))
    stopping = ds.EarlyStopping(validation=lambda network: window_loss(network, jnp.asarray(held_out)), patience=20)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    network, history = ds.fit(
        window_loss,
        network,
        optimizer,
        windows_of(record[:, :cut], seed, size),
        steps=steps,
        checkpoint=run.folder / "fit.npz",
        early_stopping=stopping,
    )
    assert history.validation is not None
    result = {
        "validation": float(np.nanmin(history.validation)),
        "noise_floor": 0.02**2,
        "steps": len(history.loss),
        "seconds": history.seconds,
        "compile_seconds": history.compile_seconds,
    }
    ds.save(run.folder / "network.npz", network)
    page = report.Report("A neural ODE on windows", f"{size} windows of {WINDOW} states in each batch, from a stream")
    page.settings(run.settings)
    page.result(result)
    picture = plot.learning_curve(history.loss, history.validation)
    page.figure(picture, "The loss of each step.")
    run.figure("loss", picture)
    page.write(run.folder / "report.html")
    return result


if __name__ == "__main__":
    cli.main(recover, pelts, windows)
