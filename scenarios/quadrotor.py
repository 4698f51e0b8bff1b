"""Can a network hold a quadrotor in place in gusts that it has never met, trained through wind and dynamics?

A network reads position, tilt, velocity and rate of a quadrotor in the vertical plane, not the wind, and sets two
thrusts of 0 to 10 N, 20 times a second. Its loss is the cost of 3 s from random states in random winds; the gradient
goes through the flight, and each step multiplies it by a factor, 0.95 at first and 1 at the end of the training. Where
the network asks for more thrust than the limit, only gradients that lead back within the limits pass. Success: within
0.5 m of the target throughout the last 5 s of 10, from up to 2 m away, in winds of 3 m/s (standard deviation of the
mean along the ground) with gusts of 2 m/s.

    python scenarios/quadrotor.py                                        train with 5 seeds, judge each in 1,000 winds
    python scenarios/quadrotor.py evaluate --policy RUN/policy.npz --gust 3
    python scenarios/quadrotor.py animate quadrotor.gif

Expected: at least 99.9% of unseen winds for each training seed, after some 3 s of training.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import time
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import control
from diffsim.systems.quadrotor import THRUST, Quadrotor, State, Wind, gusts, quadrotor
from diffsim.viz import plot, report, scenes

MACHINE = Quadrotor()
WIND = Wind()
MEAN = np.array([3.0, 1.0])  # m/s, standard deviations of the mean wind along and upwards
DT = 0.05  # s, between two decisions; the wind is constant in between
STEPS, LAST = 200, 100  # decisions of a flight, 10 s, and of its end, 5 s, when it must stay near
NEAR_TARGET = 0.5  # m
HORIZON = 60  # steps that the loss looks ahead: 3 s
BATCH, UPDATES = 32, 1000
DECAY = (0.95, 1.0)  # of the adjoint at each step, from the first to the last update
START = np.array([2.0, 2.0, 0.3, 1.0, 1.0, 0.5])  # states of a test begin up to here, half of those of a batch
WINDS = 1000
TEST, EVALUATION = 1_000_000, 2_000_000  # first seeds of tests and of `evaluate`: no training seed is as large

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-2, UPDATES))
)  # one object for all seeds, so that the training compiles once


def network(key) -> eqx.nn.MLP:
    """The policy: seven numbers of the state to two thrusts relative to hovering."""
    return eqx.nn.MLP(7, 2, 32, 2, activation=jnp.tanh, key=key)


def thrusts(policy, s: State):
    """The thrusts (N) of the left and the right rotor in a state."""
    inputs = jnp.stack([s.x, s.height, jnp.sin(s.tilt), jnp.cos(s.tilt), s.vx / 2, s.vz / 2, s.rate / 4])
    hover = MACHINE.mass * MACHINE.g / 2
    return control.straight_through_clip(hover * (1 + policy(inputs)), 0.0, THRUST)


def field(t, s: State, inputs) -> State:
    """Time derivative of the state under constant thrusts and wind, the inputs."""
    return quadrotor(MACHINE, s, *inputs)


def fly(policy, start, wind, decay=1.0, parts: int = 1) -> State:
    """The states after each decision, from a start of shape (6,), in a wind of shape (steps, 2).

    Between decisions the motion is integrated in `parts` Runge-Kutta steps.
    """
    move = lambda s, w: ds.zero_order_hold(field, s, (thrusts(policy, s), w), DT, steps=parts)
    return ds.rollout(move, State(*start), wind, decay=decay)[1]


def costs(policy, start, wind, decay=1.0):
    """The cost of each state of a flight: squares, mostly of the distance."""
    s = fly(policy, start, wind, decay)
    return s.x**2 + s.height**2 + 0.1 * (s.vx**2 + s.vz**2 + s.tilt**2) + 0.02 * s.rate**2


def draw_wind(key, length: int, p: Wind = WIND):
    """One wind of shape (length, 2)."""
    mean, noise = jr.split(key)
    return gusts(p, jnp.asarray(MEAN) * jr.normal(mean, (2,)), jr.normal(noise, (length, 2)), DT)


@cache
def loss_over(horizon: int):
    """The loss: mean cost of `horizon` steps over a batch of starts and of keys of winds, with the adjoint's decay."""

    def loss(policy, batch):
        starts, keys, decay = batch
        one = lambda start, key: jnp.mean(costs(policy, start, draw_wind(key, horizon), decay))
        return jnp.mean(jax.vmap(one)(starts, keys))

    return loss


def learn(seed: int, horizon: int = HORIZON, state: Path | None = None):
    """The trained policy and the history of the loss; the training is saved in the file `state` and resumes from it."""
    weights, starts, winds = jr.split(jr.key(seed), 3)
    states = control.sample_initial_states(starts, UPDATES, BATCH, START, 2 * START)
    batches = states, jr.split(winds, (UPDATES, BATCH)), jnp.linspace(*DECAY, UPDATES)
    options = {"checkpoint": state, "progress": False}
    return ds.fit(loss_over(horizon), network(weights), OPTIMIZER, batches, steps_per_call=100, **options)


def draw_test(seed: int, count: int, p: Wind = WIND):
    """Starts of shape (count, 6) and winds of shape (count, 200, 2) of tests."""
    starts, winds = jr.split(jr.key(seed))
    each = jax.vmap(lambda key: draw_wind(key, STEPS, p))(jr.split(winds, count))
    return control.sample_initial_states(starts, 1, count, START, START)[0], each


@eqx.filter_jit
def judge(policy, starts, winds, parts: int = 1):
    """For each test the greatest distance (m) from the target over the end of the flight; NaN becomes infinity."""

    def farthest(start, wind):
        s = fly(policy, start, wind, parts=parts)
        return jnp.max(jnp.hypot(s.x, s.height)[-LAST:])

    return jnp.nan_to_num(jax.vmap(farthest)(starts, winds), nan=jnp.inf)


def train(
    *,
    seed: cli.Seed = 0,
    policies: cli.Count = 5,
    horizon: Annotated[int, cli.Within(1, 10_000)] = HORIZON,
    run: cli.ResumableRun,
) -> dict:
    """Train policies with several seeds, judge each in 1,000 unseen winds, write the report.

    Args:
        seed: of the first policy's weights, starts and winds; the others follow.
        policies: how many to train.
        horizon: decisions that the loss looks ahead.
    """
    starts, calm = (
        control.sample_initial_states(jr.key(0), 1, 64, START, 2 * START)[0],
        jnp.zeros((max(horizon, STEPS), 2)),
    )
    growths = control.compare_gradient_growth(partial(costs, wind=calm), network(jr.key(seed)), starts, DECAY[0])
    growths["decaying"].warn(horizon)
    trained, losses, good, fine, seconds, ends = [], [], [], [], [], []
    for number in range(seed, seed + policies):
        began = time.process_time()
        policy, history = learn(number, horizon, run.state(f"fit-{number}"))
        seconds.append(time.process_time() - began)
        test = draw_test(TEST + number, WINDS)
        ends.append(np.asarray(judge(policy, *test)))
        good.append(int(np.sum(ends[-1] < NEAR_TARGET)))
        fine.append(int(np.sum(np.asarray(judge(policy, *test, parts=4)) < NEAR_TARGET)))
        trained.append(policy)
        if number == seed:
            ds.save(run.folder / "policy.npz", policy)
        losses.append(history.loss)
        run.metric(seed=number, good=good[-1], good_in_finer_steps=fine[-1], cpu_seconds=seconds[-1])
        run.say(f"seed {number}: {good[-1]} of {WINDS} winds after {seconds[-1]:.1f} s CPU")
    result = {
        "policies": policies,
        "least_winds_of_1000": min(good),
        "least_in_finer_steps": min(fine),
        "worst_distance_m": float(np.max(ends)),
        "cpu_seconds_median": float(np.median(seconds)),
        "cpu_seconds_worst": max(seconds),
        "useful_horizon_without_decay": growths["true"].useful_horizon,
    }
    write_report(run, trained[0], np.stack(losses), growths, ends[0], result)
    return result


def write_report(run, policy, losses, growths, ends, result) -> None:
    """The page: result, learning curves, gradient against horizon, distances, animation, stages, certificate."""
    page = report.Report("A quadrotor held in gusts by a network", "Trained through wind and dynamics")
    page.settings(run.settings)
    page.result(result, "Result in unseen winds")
    share = {"winds": np.arange(1, len(ends) + 1) / len(ends)}
    figures = {
        "learning_curve": (plot.seed_curves(losses), f"Loss at each update, over {len(losses)} training seeds."),
        "gradient_growth": (plot.gradient_growth(growths, DT), "Derivative of a step's cost before training."),
        "distances": (
            plot.curves(np.sort(ends), share, "greatest distance in the last 5 s (m)", "share of winds"),
            "Distances from the target, over the winds of the first seed.",
        ),
    }
    for name, (figure, caption) in figures.items():
        page.figure(figure, caption)
        run.figure(name, figure)
    page.animation(animation(policy), "In one of the unseen winds (green, a metre for 10 m/s).")
    page.section("Stages of a rollout")
    half = lambda s: jax.tree.map(lambda x: x[-1], fly(policy, jnp.stack(s), jnp.zeros((10, 2))))
    stages = {f"to {k / 2:g} s": half for k in range(1, 6)} | {"cost": lambda s: s.x**2 + s.height**2}
    page.figure(plot.stages(ds.stage_graph(stages, State(*jnp.asarray(START)))), "The adjoint of the last distance.")
    start, wind = jnp.asarray(START) / 4, draw_wind(jr.key(0), 20)
    layers_of = lambda layers: jnp.mean(costs(eqx.tree_at(lambda m: m.layers, policy, layers), start, wind))
    page.certificate(ds.check_gradients(layers_of, (policy.layers,), max_coordinates=2))
    page.write(run.folder / "report.html")


def animation(policy) -> report.Animation:
    """A flight in an unseen wind as frames to play."""
    starts, winds = draw_test(TEST, 1)
    s = eqx.filter_jit(fly)(policy, starts[0], winds[0])
    share = jax.vmap(lambda s: thrusts(policy, s))(s) / THRUST
    times, centre = DT * np.arange(1, STEPS + 1), np.column_stack([s.x, s.height])
    return scenes.flyer(times, centre, s.tilt, MACHINE.arm, share, winds[0], (-2.6, 2.6, -2.4, 2.4))


def policy_of(path: Path | None, seed: int):
    """The policy of a checkpoint, or one trained now."""
    return control.check_finite(ds.load(path, network(jr.key(0)))) if path else learn(seed)[0]


def evaluate(
    *,
    policy: cli.InFile | None = None,
    seeds: cli.Seeds = "0:10",
    gust: Annotated[float, cli.Within(0.0, 1000.0)] = 2.0,
    seed: cli.Seed = 0,
) -> dict:
    """Judge one policy in 100 winds for each seed.

    Args:
        policy: policy.npz of a run; without it one is trained first.
        seeds: of the starts and winds, FIRST:LAST without the last.
        gust: standard deviation of the gusts, m/s.
        seed: of the training, where one is trained.
    """
    numbers, wind = cli.seed_range(seeds), ds.replace(WIND, {"gust": gust})
    flown = policy_of(policy, seed)
    ends = np.concatenate([judge(flown, *draw_test(EVALUATION + number, 100, wind)) for number in numbers])
    share = float(np.mean(ends < NEAR_TARGET))
    return {"winds": len(ends), "share_within_half_a_metre": share, "median_distance_m": float(np.median(ends))}


def animate(
    out: Annotated[Path, cli.WritableFile((".gif",))], *, policy: cli.InFile | None = None, seed: cli.Seed = 0
) -> dict:
    """A flight in an unseen wind, as an animated GIF.

    Args:
        out: the GIF to write.
        policy: policy.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
    """
    plot.save_animation(animation(policy_of(policy, seed)), out)
    return {"file": str(out)}


if __name__ == "__main__":
    cli.main(train, evaluate, animate)
