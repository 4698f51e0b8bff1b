"""Can a network swing up a pole from below a cart, and keep it there, trained through the dynamics?

A network reads the state of a cart-pole and sets a force between -10 and 10 N, 20 times a second; in between the force
is constant, and a Runge-Kutta step integrates the motion. Its loss is the cost of 4 s from hanging and random states.
Through a falling pole the true gradient explodes (the report shows how), so each step multiplies it by a factor, 0.95
at first and 1 at the end of the training. Success is judged in motion integrated to 1e-9: from 64 hanging starts the
pole must stay within 0.2 rad of upright over the last 2 s of 10, and the cart on its track of 2.4 m to either side.

    python scenarios/swingup.py                                     train with 10 seeds, judge each
    python scenarios/swingup.py evaluate --policy RUN/policy.npz   one policy on other starts
    python scenarios/swingup.py animate swingup.gif

Expected: 64 of 64 starts for 10 of 10 training seeds, after some 5 s of training each.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import control
from diffsim.systems.cartpole import FORCE, TRACK, CartPole, State, cartpole
from diffsim.viz import plot, report, scenes

MACHINE = CartPole()
DT = 0.05  # s, between two decisions
STEPS, LAST = 200, 40  # decisions of an episode, 10 s, and of its end, 2 s, when the pole must stand
UPRIGHT = 0.2  # rad
HORIZON = 80  # steps that the loss looks ahead: 4 s
BATCH = 64
UPDATES = 1000
DECAY = (0.95, 1.0)  # of the adjoint at each step, from the first to the last update
HANGING = np.array([0.0, 0.0, np.pi, 0.0])
NEAR = np.array([0.5, 0.2, 0.3, 0.3])  # test starts are drawn about HANGING up to here
ABOUT = np.array([0.6, 0.3, 0.4, 0.4])  # half of the training starts are drawn about HANGING up to here,
WIDE = np.array([1.5, 3.0, np.pi, 6.0])  # the others about upright up to here
EDGE = 1.5  # m to either side, beyond which the cart's position costs more
SIZE = np.array([TRACK, 4.0, 1.0, 1.0, 8.0])  # typical sizes of what the network reads
STARTS = 64
TEST = 1_000_000  # test starts have seeds from here on, so that none is a training seed

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-2, UPDATES))
)  # one object for all seeds, so that the training compiles once


def network(key) -> ds.BoundedMLP:
    """The policy: (position, velocity, sine and cosine of the angle, rate) to a force, N."""
    return ds.BoundedMLP(5, -FORCE, FORCE, width=32, depth=2, scale=SIZE, key=key)


def force(policy, s: State):
    """The force (N) in a state."""
    return policy(jnp.stack([s.position, s.velocity, jnp.sin(s.angle), jnp.cos(s.angle), s.rate]))


def field(t, s: State, push) -> State:
    """Time derivative of the state under a constant force."""
    return cartpole(MACHINE, s, push)


def swing(policy, start, length: int = STEPS, decay=1.0) -> State:
    """The states after each decision, from a start of shape (4,)."""
    move = lambda s, _: ds.zero_order_hold(field, s, force(policy, s), DT)
    return ds.rollout(move, State(*start), length=length, decay=decay)[1]


def costs(policy, start, length: int, decay=1.0):
    """The cost of each state of a swing: the pole's height below upright, small squares, and the end of the track."""
    s = swing(policy, start, length, decay)
    small = 0.1 * s.position**2 + 0.01 * (s.velocity**2 + s.rate**2)
    return 1 - jnp.cos(s.angle) + small + 10 * jax.nn.relu(jnp.abs(s.position) - EDGE) ** 2


def learn(seed: int, horizon: int = HORIZON, state: Path | None = None):
    """The trained policy and the history of the loss; the training is saved in the file `state` and resumes from it."""
    weights, starts = jr.split(jr.key(seed))
    policy = network(weights)
    states = control.sample_initial_states(starts, UPDATES, BATCH, ABOUT, WIDE, center=HANGING)
    batches, which = (states, jnp.linspace(*DECAY, UPDATES)), ds.trainable(policy, "layers")
    options = {"filter_spec": which, "steps_per_call": 100, "checkpoint": state, "progress": False}
    return ds.fit(control.mean_cost(costs, horizon), policy, OPTIMIZER, batches, **options)


@eqx.filter_jit
def exact_swing(policy, start):
    """The states of a swing by steps of adaptive size, to 1e-9, with the same decisions; and each solve's status."""
    controller = dfx.PIDController(rtol=1e-9, atol=1e-9)
    span = jnp.array([0.0, DT])

    def move(now, _):
        s, _ = now
        options = {"stepsize_controller": controller, "max_steps": 256}
        after = ds.solve(field, s, span, force(policy, s), **options)
        return jax.tree.map(lambda x: x[-1], after.ys), after.status

    return ds.rollout(move, (State(*start), jnp.array(ds.Status.FINISHED)), length=STEPS)[1]


def succeeds(s: State):
    """Whether the pole stands over the end of an episode, and the cart was always on its track."""
    tilt = jnp.abs((s.angle + np.pi) % (2 * np.pi) - np.pi)
    return (jnp.max(tilt[-LAST:]) < UPRIGHT) & (jnp.max(jnp.abs(s.position)) < TRACK)


@eqx.filter_jit
def judge(policy, starts):
    """For each start of shape (n, 4): success, success in the exact motion, largest angle difference (rad), solved.

    An exact motion that is not solved to its end is no success, and its difference is NaN.
    """
    quick = jax.vmap(lambda x: swing(policy, x))(starts)
    exact, statuses = jax.vmap(lambda x: exact_swing(policy, x))(starts)
    difference = jnp.max(jnp.abs(quick.angle - exact.angle), axis=1)
    solved = jnp.all(ds.finished(statuses), axis=1)
    return jax.vmap(succeeds)(quick), jax.vmap(succeeds)(exact) & solved, difference, solved


def hanging(seed: int, count: int = STARTS):
    """Hanging starts of shape (count, 4) for tests."""
    return control.sample_initial_states(jr.key(seed), 1, count, NEAR, WIDE, wide_fraction=0.0, center=HANGING)[0]


def train(
    *,
    seed: cli.Seed = 0,
    policies: cli.Count = 10,
    horizon: Annotated[int, cli.Within(1, 10_000)] = HORIZON,
    run: cli.ResumableRun,
) -> dict:
    """Train policies with several seeds, judge each on 64 hanging starts, write the report.

    Args:
        seed: of the first policy's weights and starts; the others follow.
        policies: how many to train.
        horizon: decisions that the loss looks ahead.
    """
    starts, far = control.sample_initial_states(jr.key(0), 1, 64, ABOUT, WIDE, center=HANGING)[0], max(horizon, STEPS)
    growths = control.compare_gradient_growth(partial(costs, length=far), network(jr.key(seed)), starts, DECAY[0])
    growths["decaying"].warn(horizon)
    trained, losses, good, seconds, differences, failed = [], [], [], [], [], 0
    for number in range(seed, seed + policies):
        began = time.process_time()
        policy, history = learn(number, horizon, run.state(f"fit-{number}"))
        seconds.append(time.process_time() - began)
        quick, exact, difference, solved = judge(policy, hanging(TEST + number))
        failed += int(jnp.sum(~solved))
        trained.append(policy)
        if number == seed:
            ds.save(run.folder / "policy.npz", policy)
        losses.append(history.loss)
        good.append(int(exact.sum()))
        differences.append(float(jnp.nanmedian(difference)))
        run.metric(seed=number, good=good[-1], good_in_our_steps=int(quick.sum()), cpu_seconds=seconds[-1])
        run.say(f"seed {number}: {good[-1]} of {STARTS} starts after {seconds[-1]:.1f} s CPU")
    result = {
        "policies": policies,
        "at_64_of_64": good.count(STARTS),
        "least_starts": min(good),
        "cpu_seconds_median": float(np.median(seconds)),
        "cpu_seconds_worst": max(seconds),
        "angle_difference_rad_median": float(np.median(differences)),
        "failed_solves": failed,
        "useful_horizon_without_decay": growths["true"].useful_horizon,
    }
    write_report(run, trained[0], np.stack(losses), growths, result)
    return result


def write_report(run, policy, losses, growths, result) -> None:
    """The page: result, learning curves, gradient against horizon, the way up, animation, stages, certificate."""
    page = report.Report("A pole swung up by a network", "Trained through the continuous dynamics of a cart-pole")
    page.settings(run.settings)
    page.result(result, "Result from hanging starts, in the exact motion")
    figures = {
        "learning_curve": (plot.seed_curves(losses), f"Loss at each update, over {len(losses)} training seeds."),
        "gradient_growth": (
            plot.gradient_growth(growths, DT),
            "Derivative of a step's cost in the first state, before training, without and with decay.",
        ),
        "phase_portrait": (phase_portrait(policy), "Force on a cart at rest in the middle, and a swing up."),
    }
    for name, (figure, caption) in figures.items():
        page.figure(figure, caption)
        run.figure(name, figure)
    page.animation(animation(policy), "From hanging at rest.")
    page.section("Stages of a rollout")
    second = lambda s: jax.tree.map(lambda x: x[-1], swing(policy, jnp.stack(s), 20))
    stages = {f"to {k} s": second for k in range(1, 6)} | {"cost": lambda s: 1 - jnp.cos(s.angle)}
    page.figure(plot.stages(ds.stage_graph(stages, State(*jnp.asarray(HANGING + 0.1)))), "The last angle's adjoint.")
    start = jnp.array([0.1, 0.0, 3.0, 0.2])
    of_weights = lambda layers: jnp.mean(costs(eqx.tree_at(lambda m: m.layers, policy, layers), start, 20))
    page.certificate(ds.check_gradients(of_weights, (policy.layers,), max_coordinates=2))
    page.write(run.folder / "report.html")


def phase_portrait(policy):
    """The force over angle and rate for a cart at rest in the middle, and the way up from hanging."""
    angles, rates = np.linspace(-np.pi, np.pi, 121), np.linspace(-10.0, 10.0, 121)
    at = lambda a, r: force(policy, State(jnp.zeros_like(a), jnp.zeros_like(a), a, r))
    values = jax.jit(jax.vmap(jax.vmap(at, (0, None)), (None, 0)))(jnp.asarray(angles), jnp.asarray(rates))
    s = eqx.filter_jit(swing)(policy, jnp.asarray(HANGING))
    path = plot.wrapped(np.asarray(s.angle), np.asarray(s.rate))
    labels = "angle (rad)", "rate (rad/s)", "force (N)"
    return plot.field_map(angles, rates, values, *labels, paths={"from hanging at rest": path})


def animation(policy) -> report.Animation:
    """The swing from hanging at rest as frames to play."""
    s = eqx.filter_jit(swing)(policy, jnp.asarray(HANGING))
    times, length = DT * np.arange(1, STEPS + 1), 2 * MACHINE.half_length
    return scenes.cart_and_pole(times, s.position, s.angle, length, TRACK, below=1.2)


def policy_of(path: Path | None, seed: int):
    """The policy of a checkpoint, or one trained now."""
    return control.check_finite(ds.load(path, network(jr.key(0)))) if path else learn(seed)[0]


def evaluate(*, policy: cli.InFile | None = None, seeds: cli.Seeds = "0:64", seed: cli.Seed = 0) -> dict:
    """Judge one policy from hanging starts, one for each seed.

    Args:
        policy: policy.npz of a run; without it one is trained first.
        seeds: of the starts, FIRST:LAST without the last.
        seed: of the training, where one is trained.
    """
    numbers = cli.seed_range(seeds)
    starts = jnp.concatenate([hanging(2 * TEST + number, 1) for number in numbers])
    quick, exact, difference, solved = judge(policy_of(policy, seed), starts)
    return {
        "starts": len(starts),
        "good": int(exact.sum()),
        "good_in_our_steps": int(quick.sum()),
        "angle_difference_rad_median": float(jnp.nanmedian(difference)),
        "failed_solves": int(jnp.sum(~solved)),
    }


def animate(
    out: Annotated[Path, cli.WritableFile((".gif",))], *, policy: cli.InFile | None = None, seed: cli.Seed = 0
) -> dict:
    """The swing up from hanging at rest, as an animated GIF.

    Args:
        out: the GIF to write.
        policy: policy.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
    """
    plot.save_animation(animation(policy_of(policy, seed)), out)
    return {"file": str(out)}


if __name__ == "__main__":
    cli.main(train, evaluate, animate)
