"""Can one network aim any trebuchet, also one that it has never seen?

Networks read a machine and a target: lengths, masses, drag and wind, as numbers without dimension. They answer with the
lightest counterweight that throws so far, the release angle, and how far beyond the machine's reach the target is. They
are trained through the simulator on a stream of random machines: first on throws with random weights, whose
derivatives by the angle lead to the farthest throw; then on their own answers, through slide, swing and flight.

    python scenarios/any_trebuchet.py                 judge the networks that ship on 5,000 random machines, with a page
    python scenarios/any_trebuchet.py train           train others, about ten minutes, and judge them
    python scenarios/any_trebuchet.py aim --distance 60 --wind -3
    python scenarios/any_trebuchet.py aim --machine MACHINE.csv --distance 60 --newton 1
    python scenarios/any_trebuchet.py compare         beside regression and a search for each target

Expected: a mean relative miss of 0.3%, and 0.001% after one step of Newton's method through the simulator.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import functools
import os
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim.io.model_table import read_table
from diffsim.systems import trebuchet
from diffsim.systems.trebuchet import FAST, Aimer, ThrowStatus, Trebuchet, balance, groups, loaded, throw
from diffsim.systems.trebuchet.family import GROUPS, HEAVIEST, LIGHTEST, SHORTEST
from diffsim.viz import plot, report

BATCH, REGRESSION_BATCH = 512, 1024
POOL_PART = 2**17  # throws that are simulated at once
COARSE = dfx.PIDController(rtol=1e-5, atol=1e-7)  # of the throws of a training
NEAREST, FARTHEST = 0.2, 0.97  # targets of tests, relative to the reach
EDGE = 0.02  # relative distance from the reach within which "out of reach" is not judged
TEST_SEED = 1_000_000  # from which tests take their seeds, so that no training has drawn the same machines
BUDGETS = (2**18, 2**20)  # throws of each training that is compared
WORST = 20  # machines that are shown
JAVASCRIPT = Path(__file__).with_suffix(".js")
SEARCHES = 200  # targets for each of which a search is made
GRID = np.deg2rad(np.arange(8.0, 65.0, 4.0))  # rad, angles among which the farthest throw is sought


class Judgement(NamedTuple):
    """What became of answers for random machines and targets: one entry for each machine with a taut sling.

    Attributes:
        machines: The machines, with their heaviest weights and winds.
        reach: Their reach in m, by a search over the angle.
        targets: The distances aimed at, in m.
        answers: What the networks answered.
        miss: The relative misses, without sign, at a tolerance of 1e-10.
        refined: The same after one step of Newton's method.
        status: How the throws ended.
        excess: Targets within and beyond the reach, relative to it, minus 1: the true and the predicted one.
        drawn: How many machines were drawn for these.
    """

    machines: Trebuchet
    reach: np.ndarray
    targets: np.ndarray
    answers: trebuchet.Answer
    miss: np.ndarray
    refined: np.ndarray
    status: np.ndarray
    excess: tuple[np.ndarray, np.ndarray]
    drawn: int


def log_range(angle, log_ratio, machine):
    """The logarithm of a range in long arms, as in a training; NaN for no throw."""
    p = ds.replace(loaded(machine, balance(machine) * jnp.exp(log_ratio)), {"angle": angle})
    options = {"stepsize_controller": COARSE, "solver": dfx.Tsit5(), "mode": "forward"}
    value = throw(p, check=False, **options).range / machine.l_long
    is_throw = value > 0.6 * SHORTEST  # a shorter one has no part in a loss
    return jnp.where(is_throw, jnp.log(jnp.where(is_throw, value, 1.0)), jnp.nan)


def log_ranges(angle, log_ratio, machines):
    """The same for many throws, and which have a range; where one has none its entry is 0, without derivative."""
    ranges = ds.forward_mode(log_range, in_axes=(0, 0, 0))
    value = ds.compilation.compile_whole(ranges)(angle, log_ratio, machines)
    is_throw = jnp.isfinite(value)
    return jnp.where(is_throw, value, 0.0), is_throw


def draw(keys):
    """A random machine, its groups, and a number between 0 and 1 for each key."""
    keys = jax.vmap(jr.split)(keys)
    machines = jax.vmap(trebuchet.random_machine)(keys[:, 0])
    return machines, jax.vmap(groups)(machines), jax.vmap(jr.uniform)(keys[:, 1])


def random_log_ratio(share):
    """The logarithm of a weight relative to the one that balances arm and ball, by a number between 0 and 1."""
    return np.log(LIGHTEST) + share * np.log(HEAVIEST / LIGHTEST)


def angle_loss(aimer: Aimer, keys):
    """Minus the mean logarithm of the range, with random weights: its derivative leads to the farthest throw."""
    machines, x, share = draw(keys)
    log_ratio = random_log_ratio(share)
    return -mean_of(*log_ranges(jax.vmap(aimer.angle)(x, log_ratio), log_ratio, machines))


def throw_loss(aimer: Aimer, throws):
    """The mean squared error of range and weight for throws at those angles: regression, without the simulator."""
    x, log_ratio, far = throws
    errors = jax.vmap(aimer.log_range)(x, log_ratio) - far, jax.vmap(aimer.log_ratio)(x, far) - log_ratio
    return jnp.mean(errors[0] ** 2 + errors[1] ** 2)


def answer_loss(aimer: Aimer, keys):
    """The mean squared logarithm of range by target, through the throws of the networks' own answers."""
    machines, x, share = draw(keys)
    heaviest = jnp.log(machines.m_weight / jax.vmap(balance)(machines))
    constant = jax.lax.stop_gradient
    near = 0.75 * NEAREST
    target = constant(jax.vmap(aimer.log_range)(x, heaviest)) + jnp.log(near + (1.02 - near) * share)
    log_ratio = jax.vmap(aimer.log_ratio)(x, target)
    # At the angle of the farthest throw the range does not change with it.
    angle = constant(jax.vmap(aimer.angle)(x, log_ratio))
    far, is_throw = log_ranges(angle, log_ratio, machines)
    error = jax.vmap(aimer.log_range)(x, constant(log_ratio)) - constant(far)
    return mean_of((far - target) ** 2 + error**2, is_throw)


def mean_of(values, chosen):
    """The mean of the chosen values."""
    return jnp.sum(jnp.where(chosen, values, 0.0)) / jnp.maximum(jnp.sum(chosen), 1)


def one_by_one(function):
    """A compiled function of rows that are shared among the devices; each device takes one after the other.

    On a CPU each throw then takes only the steps that it needs, on every core.
    """

    @functools.cache
    def program():
        mapped = lambda *rows: jax.lax.map(lambda row: function(*row), rows)
        mesh, rows = jax.sharding.Mesh(np.array(jax.devices()), ("rows",)), jax.P("rows")
        return jax.jit(jax.shard_map(mapped, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))

    def called(*rows):
        count = len(jax.tree.leaves(rows)[0])
        padding = -count % jax.device_count()
        full = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], padding, 0)]), rows)
        return jax.tree.map(lambda x: np.asarray(x)[:count], program()(*full))

    return called


coarse_log_range = one_by_one(log_range)


def random_throws(aimer: Aimer, count: int, key) -> tuple[np.ndarray, ...]:
    """Groups of random machines, random weights and the ranges of their throws at the network's angles."""
    parts = []
    for part in jr.split(key, -(-count // POOL_PART)):
        machines, x, share = jax.jit(draw)(jr.split(part, POOL_PART))
        log_ratio = random_log_ratio(share)
        angle = jax.jit(jax.vmap(aimer.angle))(x, log_ratio)
        far = coarse_log_range(angle, log_ratio, machines)
        good = np.isfinite(far)
        parts.append([np.asarray(values, np.float32)[good] for values in (x, log_ratio, far)])
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


class Training(NamedTuple):
    """How long the parts of a training are."""

    angle: int = 1_500  # batches of throws with random weights, which lead to the angle
    throws: int = 3_000_000  # with random weights, which are kept
    regression: int = 60_000  # batches of those
    answers: int = 2_000  # batches of own answers

    @property
    def simulated(self) -> int:
        """The number of throws that the simulator makes."""
        return BATCH * (self.angle + self.answers) + self.throws


class Trained(NamedTuple):
    """Networks, those before they trained on own answers, the losses of all steps, and the seconds."""

    aimer: Aimer
    before: Aimer
    losses: np.ndarray
    seconds: float
    compile_seconds: float


def trained(aimer: Aimer, training: Training, key, folder: Path | None = None) -> Trained:
    """The networks after the parts of a training; with a folder, each part resumes from its file there."""
    histories, seconds = [], 0.0
    cores = jax.devices()[: 2 ** int(np.log2(jax.device_count()))]
    for_angle, for_throws, for_order, for_answers = jr.split(key, 4)
    keys_of = lambda steps, key: jax.vmap(lambda key: jr.split(key, BATCH))(jr.split(key, steps))

    def learn(aimer, name, loss, batches, parts, rate, **options):
        steps = getattr(training, name)
        optimizer = optax.contrib.muon(optax.cosine_onecycle_schedule(steps, rate, pct_start=0.1))
        options |= {"filter_spec": ds.trainable(aimer, *parts), "progress": False}
        options["checkpoint"] = None if folder is None else folder / f"{name}.npz"
        aimer, history = ds.fit(loss, aimer, optimizer, batches, **options)
        histories.append(history)
        return aimer

    if training.angle:
        keys = keys_of(training.angle, for_angle)
        aimer = learn(aimer, "angle", angle_loss, keys, ("for_angle",), 1e-2, devices=cores)
    both = ("for_range", "for_mass")
    if training.regression:
        began = time.perf_counter()
        throws = random_throws(aimer, training.throws, for_throws)
        seconds += time.perf_counter() - began
        stream = ds.train.ResumableStream(functools.partial(batches_of, throws, for_order))
        aimer = learn(aimer, "regression", throw_loss, stream, both, 1e-2, steps=training.regression)
    before = aimer
    if training.answers:
        keys = keys_of(training.answers, for_answers)
        aimer = learn(aimer, "answers", answer_loss, keys, both, 3e-4, devices=cores)
    losses = np.concatenate([history.loss for history in histories])
    seconds += sum(history.seconds for history in histories)
    return Trained(aimer, before, losses, seconds, sum(history.compile_seconds for history in histories))


def batches_of(throws, key, step: int):
    """Random batches of throws from a step on, each the same whenever it is drawn."""
    seed = np.asarray(jr.key_data(key))
    while True:
        chosen = np.random.default_rng([*seed, step]).integers(0, len(throws[0]), REGRESSION_BATCH)
        yield tuple(values[chosen] for values in throws)
        step += 1


def searched(j: Judgement, steps: int) -> np.ndarray:
    """Mean relative misses of a search for each target alone, after each step.

    Adam changes angle and logarithm of the weight, from 45 degrees and the geometric mean of the range of weights.
    """
    optimizer = optax.adam(0.1)

    def search(machine, target):
        start = jnp.array([jnp.pi / 4, jnp.log(balance(machine) * np.sqrt(LIGHTEST * HEAVIEST))])

        def miss(x):
            p = shot(machine, x[0], jnp.exp(x[1]))
            options = {"stepsize_controller": FAST, "solver": dfx.Tsit5(), "mode": "forward"}
            return throw(p, check=False, **options).range / target - 1

        def step(carry, _):
            x, state = carry
            # In forward mode, as there are two inputs.
            value, slope = miss(x), jax.jacfwd(miss)(x)
            update, state = optimizer.update(2 * value * slope, state)
            return (optax.apply_updates(x, update), state), jnp.abs(value)

        return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[1]

    few = jax.tree.map(lambda x: jnp.asarray(x[:SEARCHES]), (j.machines, j.targets))
    return np.nanmean(np.asarray(one_by_one(search)(*few)), axis=0)


def shot(machine: Trebuchet, angle, mass) -> Trebuchet:
    """The machine with the angle and weight of an answer."""
    return ds.replace(loaded(machine, mass), {"angle": angle})


@one_by_one
def fast_range(machine, angle):
    """The range (m) with the heaviest weight, to 1e-6."""
    options = {"stepsize_controller": FAST, "solver": dfx.Tsit5(), "mode": "forward"}
    return throw(ds.replace(machine, {"angle": angle}), check=False, **options).range


@one_by_one
def exact_throw(machine, angle, mass):
    """Range (m) and status at a tolerance of 1e-10."""
    result = throw(shot(machine, angle, mass), mode="forward")
    return result.range, result.status


def farthest(machines: Trebuchet) -> tuple[np.ndarray, np.ndarray]:
    """The reach (m) of machines with their heaviest weights, and the angle (rad).

    The angle is that of the highest point of the parabola through the best three of a grid.
    """
    count = len(machines.l_long)
    values = np.stack([np.asarray(fast_range(machines, jnp.full(count, angle))) for angle in GRID])
    best = np.clip(np.nanargmax(values, axis=0), 1, len(GRID) - 2)
    low, middle, high = (values[best + n, np.arange(count)] for n in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.clip(np.nan_to_num((low - high) / (low - 2 * middle + high) / 2), -1.0, 1.0)
    angles = GRID[best] + shift * (GRID[1] - GRID[0])
    return np.asarray(fast_range(machines, jnp.asarray(angles))), angles


@eqx.filter_jit
def answered(aimer: Aimer, machines: Trebuchet, targets):
    """Answers for many machines and targets."""
    return jax.vmap(aimer)(machines, targets)


def misses(aimer: Aimer, machines: Trebuchet, targets):
    """Answers, their relative misses without sign, NaN without a range, and how the throws ended."""
    answers = jax.tree.map(np.asarray, answered(aimer, machines, jnp.asarray(targets)))
    ranges, status = exact_throw(machines, answers.angle, answers.mass)
    return answers, np.abs(np.asarray(ranges) / targets - 1), np.asarray(status)


def judge(aimer: Aimer, seed: int, count: int) -> Judgement:
    """Judges answers for random machines with a taut sling at their farthest throw, and targets within reach."""
    drawn = count + count // 5 + 10
    machines = jax.vmap(trebuchet.random_machine)(jr.split(jr.key(seed), drawn))
    reach, angles = farthest(machines)
    _, status = exact_throw(machines, jnp.asarray(angles), machines.m_weight)
    taut = np.flatnonzero(np.asarray(status) == ThrowStatus.TAUT)[:count]
    if len(taut) < count:
        raise ds.RunError(f"only {len(taut)} of {drawn} random machines throw with a taut sling: give another seed")
    machines, reach = jax.tree.map(lambda x: x[taut], machines), reach[taut]
    random = np.random.default_rng(seed)
    targets = reach * random.uniform(NEAREST, FARTHEST, count)
    answers, miss, status = misses(aimer, machines, targets)
    refined = one_by_one(trebuchet.refine)(machines, jnp.asarray(targets), answers)
    again, _ = exact_throw(machines, refined.angle, refined.mass)
    shares = random.uniform(0.5, 1.5, count)
    predicted = answered(aimer, machines, jnp.asarray(shares * reach)).excess
    excess = shares - 1, np.asarray(predicted)
    again = np.abs(again / targets - 1)
    return Judgement(machines, reach, targets, answers, miss, again, status, excess, int(taut[-1]) + 1)


def seconds_of_answers(aimer: Aimer) -> float:
    """The least time (s) of an answer in batches of 1,000, once compiled."""
    machines = jax.vmap(trebuchet.random_machine)(jr.split(jr.key(0), 1000))
    arguments = aimer, machines, 20 * machines.l_long
    jax.block_until_ready(answered(*arguments))
    times = []
    for _ in range(200):
        began = time.perf_counter()
        jax.block_until_ready(answered(*arguments))
        times.append(time.perf_counter() - began)
    return min(times) / 1000


def scores(j: Judgement) -> dict:
    """The figures of a judgement; shares and misses are relative."""
    landed = np.isfinite(j.miss) & np.isfinite(j.refined)
    if not landed.any():
        raise ds.RunError(f"none of the {len(j.miss)} answers throws the ball: train longer")
    true, predicted = j.excess
    beyond, within = true > EDGE, true < -EDGE
    miss, refined = j.miss[landed], j.refined[landed]
    return {
        "machines": len(j.miss),
        "mean_miss": float(miss.mean()),
        "median_miss": float(np.median(miss)),
        "percentile_99_miss": float(np.quantile(miss, 0.99)),
        "worst_miss": float(miss.max()),
        "mean_miss_after_newton": float(refined.mean()),
        "percentile_99_miss_after_newton": float(np.quantile(refined, 0.99)),
        "beyond_reach_said_so": float(np.mean(predicted[beyond] > 0)),
        "within_reach_said_beyond": float(np.mean(predicted[within] > 0)),
        "failed_throws": int(np.sum(~landed)),
        "slack_or_grounded": int(np.sum(j.status[landed] != ThrowStatus.TAUT)),
        "machines_left_out_as_slack": j.drawn - len(j.miss),
    }


def report_on(run, aimer: Aimer, j: Judgement, result: dict) -> report.Report:
    """The page of a judgement: misses by machine and target, reach, the worst machines, and a machine to change."""
    page = report.Report("One network that aims any trebuchet", "Trained through the simulator on random machines")
    page.settings(run.settings)
    page.result(result)
    misses = {"networks alone": np.sort(j.miss), "after one step of Newton's method": np.sort(j.refined)}
    share = (np.arange(len(j.miss)) + 0.5) / len(j.miss)
    figure = plot.curves(100 * share, misses, "machines (%)", "relative miss, at most", log="y")
    page.section("Misses")
    page.figure(figure, "The share of machines whose miss is at most the value of the curve.")
    run.figure("misses", figure)
    page.section("Where they miss")
    figure = miss_map(j)
    page.figure(figure, "Mean relative miss by target and wind.")
    run.figure("miss_map", figure)
    page.table("Mean miss by kind of machine", ["quantity", "lower third", "middle third", "upper third"], by_thirds(j))
    reach, predicted = j.reach / j.machines.l_long, (1 + j.excess[0]) / (1 + j.excess[1]) * j.reach / j.machines.l_long
    ends = np.array([reach.min(), reach.max()])
    chosen = slice(None, None, max(1, len(reach) // 1000))
    line = "predicted is computed"
    points = reach[chosen], {line: predicted[chosen]}
    figure = plot.curves(ends, {line: ends}, "reach, computed (long arms)", "reach, predicted", log="xy", points=points)
    page.section("Reach")
    page.figure(figure, "Each dot is a machine; reach is computed by a search over the release angle.")
    run.figure("reach", figure)
    worst = np.argsort(-np.nan_to_num(j.miss, nan=np.inf))[:WORST]
    rows = [(n + 1, *described(j, i)) for n, i in enumerate(worst)]
    names = ["", "target (m)", "miss", "long arm (m)", "short", "sling", "hanger", "pivot", "heaviest"]
    page.table("The worst machines", [*names, "wind"], rows)
    page.text(
        "Lengths are in long arms, the heaviest weight in the one that balances arm and ball, and the wind in "
        "sqrt(g long arm). The animation shows all of them at once, each in its own long arms."
    )
    page.animation(together(j, worst), "Discs are balls, lines their paths, and small discs on the ground the targets.")
    data = {"networks": [plain_weights(n) for n in (aimer.for_angle, aimer.for_range, aimer.for_mass)]}
    data |= trebuchet.SCALING | {"machine": {k: float(v.value) for k, v in ds.parameters(Trebuchet()).items()}}
    page.interactive(
        "A machine to change", JAVASCRIPT, data, "The networks answer, and a simulator throws, in this page."
    )
    return page


def miss_map(j: Judgement):
    """Mean relative misses over target relative to the reach and wind."""
    shares, winds = j.targets / j.reach, np.asarray(j.machines.wind / np.sqrt(j.machines.g * j.machines.l_long))
    edges = np.linspace(NEAREST, FARTHEST, 13), np.linspace(-2.0, 2.0, 11)
    inside = np.isfinite(j.miss)
    count = np.histogram2d(winds[inside], shares[inside], edges[::-1])[0]
    total = np.histogram2d(winds[inside], shares[inside], edges[::-1], weights=j.miss[inside])[0]
    x, y = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
    values = np.maximum(total / np.maximum(count, 1), 1e-7)
    labels = "target / reach", "wind / sqrt(g long arm)", "mean relative miss"
    return plot.field_map(x, y, values, *labels, log=True, mask=count < 3)


def by_thirds(j: Judgement) -> list[tuple[str, float, float, float]]:
    """The mean miss in each third of the machines, ordered by one quantity after another."""
    x = np.asarray(jax.vmap(groups)(j.machines))
    quantities = dict(zip(GROUPS, x.T, strict=True)) | {
        "m_weight / balance": np.asarray(j.machines.m_weight / balance(j.machines)),
        "target / reach": j.targets / j.reach,
        "l_long": np.asarray(j.machines.l_long),
    }
    mean = lambda rows: float(f"{np.nanmean(j.miss[rows]):.3g}")
    thirds = {name: np.array_split(np.argsort(values), 3) for name, values in quantities.items()}
    return [(name, mean(low), mean(middle), mean(high)) for name, (low, middle, high) in thirds.items()]


def described(j: Judgement, i: int) -> tuple[float, ...]:
    """Target, miss, lengths, heaviest weight and wind of one machine, with three digits."""
    p = jax.tree.map(lambda x: float(x[i]), j.machines)
    lengths = (length / p.l_long for length in (p.l_short, p.l_sling, p.l_weight, p.h_pivot))
    values = j.targets[i], j.miss[i], p.l_long, *lengths, p.m_weight / balance(p), p.wind / np.sqrt(p.g * p.l_long)
    return tuple(float(f"{value:.3g}") for value in values)


def together(j: Judgement, chosen) -> report.Animation:
    """Throws of several machines at once, each in its own long arms and with its own time, from start to landing."""
    shapes, trails = [], {}
    for number, i in enumerate(chosen):
        p = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), j.machines)
        p = shot(p, j.answers.angle[i], j.answers.mass[i])
        d = jax.tree.map(np.asarray, drawn_throw(p))
        unit = float(p.l_long)
        path, tip, hinge, weight = (x / unit for x in (d.ball, d.tip, d.hinge, d.weight))
        colour = number % 4
        shapes += [
            report.Polyline(np.stack([hinge, tip], axis=1), colour=colour),
            report.Polyline(np.stack([hinge, weight], axis=1), colour=colour),
            report.Disc(path, 0.25, colour=colour),
            report.Disc(np.array([[j.targets[i] / unit, 0.0]]), 0.12, colour=colour),
        ]
        trails[f"{number + 1}"] = path
    frames = len(next(iter(trails.values())))
    return report.Animation(np.linspace(0.0, 6.0, frames), shapes, trails, labels=("long arms", "height"))


@jax.jit
def drawn_throw(p: Trebuchet):
    """The frames of one throw."""
    return trebuchet.drawing(p, throw(p, mode="forward"))


def plain_weights(network) -> dict[str, Any]:
    """A network's weights as lists, for the page."""
    layers = [(layer.weight, layer.bias) for layer in network.layers.layers]
    rounded = lambda x: [round(float(value), 5) for value in np.ravel(x)]
    return {
        "layers": [{"rows": len(np.atleast_1d(b)), "weight": rounded(w), "bias": rounded(b)} for w, b in layers],
        "linear": {"weight": rounded(network.linear.weight), "bias": rounded(network.linear.bias)},
    }


def batch_of_one(tree):
    """The tree with a leading axis of length 1."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)


def networks(file: Path | None) -> Aimer:
    """The networks in a file of a training, or those that ship."""
    if file is None:
        return trebuchet.pretrained_aimer()
    return ds.load(file, eqx.filter_eval_shape(Aimer, key=jr.key(0)))


def machine_in(file: Path) -> Trebuchet:
    """The machine in a table of one row."""
    table = read_table(file, Trebuchet(), {})
    if table.bad:
        raise ds.InputError(f"{file}: {next(iter(table.bad.values()))}")
    if len(table.values) != 1:
        raise ds.InputError(f"{file} has {len(table.values)} machines: give one row")
    return ds.replace(Trebuchet(), dict(zip(table.columns, table.values[0], strict=True)))


def judge_shipped(
    *,
    seed: cli.Seed = 0,
    machines: Annotated[int, cli.Within(10, 100_000)] = 5000,
    model: cli.InFile | None = None,
    run: cli.Run,
) -> dict:
    """Judge networks on random machines and targets at a tolerance of 1e-10, and write the report.

    Args:
        seed: of machines, winds and targets.
        machines: how many.
        model: an `aimer.npz` of a training; by default the networks that ship.
    """
    aimer = networks(model)
    run.say(f"judging answers for {machines} random machines")
    judgement = judge(aimer, TEST_SEED + seed, machines)
    result = scores(judgement) | {"answer_microseconds": 1e6 * seconds_of_answers(aimer)}
    report_on(run, aimer, judgement, result).write(run.folder / "report.html")
    return result


def train(
    *,
    seed: cli.Seed = 0,
    throws: Annotated[int, cli.Within(1_000, 100_000_000)] = 3_000_000,
    regression_steps: Annotated[int, cli.Within(1, 10_000_000)] = 60_000,
    answer_steps: Annotated[int, cli.Within(0, 1_000_000)] = 2_000,
    machines: Annotated[int, cli.Within(10, 100_000)] = 5000,
    run: cli.ResumableRun,
) -> dict:
    """Train networks on a stream of random machines through the simulator, judge them, write weights and report.

    Args:
        seed: of weights and training machines.
        throws: with random weights, on which range and weight are learned first.
        regression_steps: batches of 1,024 of those throws.
        answer_steps: batches of 512 throws of the networks' own answers, after those.
        machines: random machines to judge the networks on.
    """
    training = Training(throws=throws, regression=regression_steps, answers=answer_steps)
    weights, key = jr.split(jr.key(seed))
    run.say(f"training with {training.simulated:,} throws")
    result = trained(Aimer(key=weights), training, key, run.folder)
    ds.save(run.folder / "aimer.npz", result.aimer)
    for step in range(0, len(result.losses), 100):
        run.metric(step=step, loss=float(result.losses[step]))
    run.say("judging the answers")
    judgement = judge(result.aimer, TEST_SEED, machines)
    _, before, _ = misses(result.before, judgement.machines, judgement.targets)
    figures = scores(judgement) | {
        "mean_miss_before_own_answers": float(np.nanmean(before)),
        "throws": training.simulated,
        "training_seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "answer_microseconds": 1e6 * seconds_of_answers(result.aimer),
    }
    page = report_on(run, result.aimer, judgement, figures)
    page.section("Training")
    page.text(
        f"{training.angle} batches for the angle, {regression_steps} of kept throws, {answer_steps} of own answers."
    )
    curve = plot.learning_curve(np.abs(result.losses), ylabel="loss, without sign")
    page.figure(curve, "The loss of each part: minus the logarithm of the range, then squared errors of logarithms.")
    run.figure("learning_curve", curve)
    page.write(run.folder / "report.html")
    return figures


def aim(
    *,
    distance: cli.Positive = 60.0,
    wind: cli.Finite | None = None,
    machine: cli.InFile | None = None,
    newton: Annotated[int, cli.Within(0, 10)] = 0,
    model: cli.InFile | None = None,
) -> dict:
    """Weight and release angle for one machine and target, at once; with --newton, improved through the simulator.

    Args:
        distance: of the target, m.
        wind: along the throw, m/s; by default that of the machine's table, or none.
        machine: CSV of one row with columns named after the machine's parameters, whose `m_weight` is the heaviest;
            missing columns take the default machine's values.
        newton: steps of Newton's method after the networks' answer.
        model: an `aimer.npz` of a training; by default the networks that ship.
    """
    aimer = networks(model)
    p = Trebuchet() if machine is None else machine_in(machine)
    if wind is not None:
        p = ds.replace(p, {"wind": wind})
    trebuchet.check_in_family(p)
    answer = jax.tree.map(lambda x: x[0], answered(aimer, *batch_of_one((p, distance))))
    excess, nearest = float(answer.excess), float(answer.nearest)
    if distance < nearest:
        raise ds.InputError(
            f"distance={distance:g} m: the networks know targets from {nearest:.3g} m on for this machine"
        )
    if newton:
        answer = jax.jit(functools.partial(trebuchet.refine, steps=newton))(p, distance, answer)
    result = {
        "mass": float(answer.mass),
        "angle": float(np.rad2deg(answer.angle)),
        "reach": distance / (1 + excess),
        "out_of_reach": excess > 0,
    }
    if newton:
        thrown, status = exact_throw(*batch_of_one((p, answer.angle, answer.mass)))
        result |= {"range": float(thrown[0]), "relative_miss": abs(float(thrown[0]) / distance - 1)}
        result["status"] = ThrowStatus(int(status[0])).name.lower()
    return result


def ways(throws: int) -> dict[str, Training]:
    """Trainings with this many throws in all."""
    angle = min(1_500, throws // BATCH // 8)
    batches, steps = throws // BATCH, max(1, throws // 50)
    return {
        "regression, without gradients": Training(0, throws, steps, 0),
        "angle, then own answers": Training(angle, 0, 0, batches - angle),
        "angle, then regression": Training(angle, throws - BATCH * angle, steps, 0),
        "angle, regression, own answers": Training(angle, 3 * throws // 4 - BATCH * angle, steps, throws // 4 // BATCH),
    }


def compare(*, seed: cli.Seed = 0, run: cli.Run) -> dict:
    """Train in four ways, search for each target alone, and draw accuracy against the number of throws.

    Args:
        seed: of weights, machines and targets.
    """
    weights, key = jr.split(jr.key(seed))
    aimer = Aimer(key=weights)
    test = judge(aimer, TEST_SEED + seed, 1000)
    rows, lines = [], {name: [] for name in ways(BUDGETS[0])}
    for budget in BUDGETS:
        for name, training in ways(budget).items():
            run.say(f"{name}: {training.simulated:,} throws")
            result = trained(aimer, training, key)
            _, miss, _ = misses(result.aimer, test.machines, test.targets)
            lines[name].append(float(np.nanmean(miss)))
            rows.append((name, training.simulated, result.seconds, lines[name][-1], float(np.nanquantile(miss, 0.99))))
    search = searched(test, 60)
    page = report.Report("One network that aims any trebuchet: ways to train it", "Accuracy against simulated throws")
    page.settings(run.settings)
    page.table("Networks", ["way", "throws", "seconds", "mean miss", "99th percentile"], sorted(rows))
    marks = (1, 5, 10, 20, 40, 60)
    page.table("A search for each target", ["throws for a target", "mean miss"], [(n, search[n - 1]) for n in marks])
    throws, searching = np.array(BUDGETS), np.arange(1, len(search) + 1) * len(test.targets)
    x = np.unique(np.concatenate([throws, searching]))
    on_axis = lambda at, values: np.interp(x, at, values, left=np.nan, right=np.nan)
    drawn = {name: on_axis(throws, values) for name, values in lines.items()}
    drawn["a search for each of 1,000 targets"] = on_axis(searching, search)
    figure = plot.curves(x, drawn, "simulated throws", "mean relative miss", log="xy")
    page.section("Accuracy against throws")
    page.figure(
        figure, "Networks are trained once for all machines and targets; a search throws again for each target."
    )
    run.figure("compare", figure)
    page.write(run.folder / "report.html")
    result = {"throws": BUDGETS[-1]}
    for name, _, seconds, miss, _ in rows[-len(lines) :]:
        key_of = name.replace(",", "").replace(" ", "_")
        result |= {f"{key_of}_miss": miss, f"{key_of}_training_seconds": seconds}
    return result | {"search_miss_after_20_throws": float(search[19]), "search_miss_after_60_throws": float(search[59])}


judge_shipped.__name__ = "judge"

if __name__ == "__main__":
    # A training's batches are shared among the cores, each a device.
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, BATCH))
    cli.main(judge_shipped, train, aim, compare)
