"""Can a pole be balanced by a network that was trained through the dynamics, in a tenth of a second?

A network reads the state of CartPole-v1 and sets a force between -10 and 10 N. Its loss is the mean square of the
state over 50 steps from random states. Its gradient goes through the steps of the dynamics, and Adam minimises it.
Once the pole has fallen, the state no longer changes and costs the same at every step until the end. The real
environment only pushes fully to the left or to the right, in the direction of the force's sign.

    python scenarios/cartpole.py                          train with 20 seeds, judge each in the real environment
    python scenarios/cartpole.py evaluate --seeds 0:100   one policy; --policy RUN/policy.npz for one trained
    python scenarios/cartpole.py animate cartpole.gif
    python scenarios/cartpole.py export policy.onnx       a policy for programs without diffsim, in ONNX or for JAX

The test environment is Gymnasium's: pip install "diffsim[scenarios]". Expected: 500.0, the maximum, on seeds 0 to 99
for every training seed, after less than 0.1 s of training each; in all about 20 s.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from functools import cache, partial
from pathlib import Path
from typing import Annotated

import jax
import jax.export

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import control
from diffsim._extras import extra
from diffsim.io.exported import measured
from diffsim.systems.cartpole import DT, FORCE, START, STEPS, TILT, TRACK, CartPole, State, fallen, step
from diffsim.viz import plot, report, scenes

MACHINE = CartPole()
HORIZON = 50  # steps that the loss looks ahead: 1 s
BATCH = 8
UPDATES = 150
NEAR = np.full(4, START)
WIDE = np.array([TRACK / 2, 0.5, TILT / 2, 0.5])  # bounds of half of the starts; the others are drawn as at a reset
TEST = "0:100"
EVERY = 2  # steps between the frames of an animation

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-2, UPDATES))
)  # one object for all seeds, so that the training compiles once


def network(key) -> ds.BoundedMLP:
    """The policy: the state (position, velocity, angle, rate) to a force, N."""
    return ds.BoundedMLP(4, -FORCE, FORCE, width=24, depth=2, scale=jnp.array([1.0, 1.0, 0.1, 1.0]), key=key)


def episode(policy, start, length: int):
    """States under the network's force from a start of shape (4,), and whether the pole stood after each step."""

    def move(carry, _):
        s, standing = carry
        after = step(MACHINE, s, policy(jnp.stack(s)))
        # After a fall the state is frozen: it still costs, but no gradient flows through motion outside the task.
        s = jax.tree.map(lambda new, old: jnp.where(standing, new, old), after, s)
        return s, standing & ~fallen(s)

    return ds.rollout(move, (State(*start), jnp.array(True)), length=length)[1]


def costs(policy, start, length: int):
    """The cost of each state of an episode: squares of its parts in units of their typical sizes."""
    s, _ = episode(policy, start, length)
    return (s.position / TRACK) ** 2 + (s.angle / TILT) ** 2 + 0.1 * (s.velocity**2 + s.rate**2)


@cache
def loss_over(horizon: int):
    """The loss: mean cost of `horizon` steps over starts of shape (batch, 4)."""
    return lambda policy, starts: jnp.mean(jax.vmap(lambda x: costs(policy, x, horizon))(starts))


def learn(seed: int, horizon: int = HORIZON, state: Path | None = None):
    """The trained policy and the history of the loss; the training is saved in the file `state` and resumes from it."""
    weights, starts = jr.split(jr.key(seed))
    policy, batches = network(weights), control.sample_initial_states(starts, UPDATES, BATCH, NEAR, WIDE)
    which = ds.trainable(policy, "layers")
    options = {"checkpoint": state, "progress": False}
    return ds.fit(loss_over(horizon), policy, OPTIMIZER, batches, filter_spec=which, steps_per_call=UPDATES, **options)


@eqx.filter_jit
def forces(policy, states):
    """The forces (N) for states of shape (n, 4)."""
    return jax.vmap(policy)(states)


def real(count: int) -> list:
    """A list of `count` environments of Gymnasium."""
    return [extra("gymnasium", "scenarios").make("CartPole-v1") for _ in range(count)]


def judge(policy, seeds: str) -> np.ndarray:
    """The return of one episode of the real CartPole-v1 for each seed of its reset, by the sign of the force."""
    numbers = cli.seed_range(seeds)
    act = lambda observed: (np.asarray(forces(policy, jnp.asarray(observed, float))) > 0).astype(int)
    return control.evaluate_episodes(real(len(numbers)), numbers, act)


def train(
    *,
    seed: cli.Seed = 0,
    policies: cli.Count = 20,
    horizon: Annotated[int, cli.Within(1, 10_000)] = HORIZON,
    run: cli.ResumableRun,
) -> dict:
    """Train policies with several seeds, judge each in the real environment, write the report.

    Args:
        seed: of the first policy's weights and starts; the others follow.
        policies: how many to train.
        horizon: steps that the loss looks ahead.
    """
    real(1)
    starts = control.sample_initial_states(jr.key(seed), 1, 64, NEAR, WIDE)[0]
    growth = control.gradient_growth(partial(costs, length=max(horizon, 200)), network(jr.key(seed)), starts)
    growth.warn(horizon)
    trained, histories, scores = [], [], []
    for number in range(seed, seed + policies):
        policy, history = learn(number, horizon, run.state(f"fit-{number}"))
        returns = judge(policy, TEST)
        trained.append(policy)
        if number == seed:
            ds.save(run.folder / "policy.npz", policy)
        histories.append(history)
        scores.append(returns.mean())
        run.metric(seed=number, score=scores[-1], least=returns.min(), seconds=history.seconds, loss=history.loss[-1])
        run.say(f"seed {number}: {scores[-1]:.1f} after {history.seconds:.2f} s of training")
    seconds = [history.seconds for history in histories]
    result = {
        "policies": policies,
        "at_500": int(np.sum(np.equal(scores, STEPS))),
        "least_score": float(np.min(scores)),
        "mean_score": float(np.mean(scores)),
        "training_seconds_median": float(np.median(seconds)),
        "training_seconds_worst": float(np.max(seconds)),
        "compile_seconds": histories[0].compile_seconds,
        "useful_horizon": growth.useful_horizon,
    }
    write_report(run, trained[0], np.stack([history.loss for history in histories]), growth, result)
    return result


def write_report(run, policy, losses, growth, result) -> None:
    """The page: result, learning curves, gradient against horizon, phase portrait, animation, stages, certificate."""
    page = report.Report("A pole balanced by a network", "Trained through the dynamics, tested in Gymnasium")
    page.settings(run.settings)
    page.result(result, "Result in Gymnasium's CartPole-v1, resets 0 to 99")
    figures = {
        "learning_curve": (plot.seed_curves(losses), f"Loss at each update, over {len(losses)} training seeds."),
        "gradient_growth": (plot.gradient_growth({"true": growth}, DT), "Derivative of a step's cost before training."),
        "phase_portrait": (phase_portrait(policy), "Force for a cart at rest in the middle, and two trajectories."),
    }
    for name, (figure, caption) in figures.items():
        page.figure(figure, caption)
        run.figure(name, figure)
    page.animation(animation(policy), "An episode pushed fully to the left or right at each step.")
    page.section("Stages of a rollout")
    start = jnp.array([0.3, 0.1, 0.05, -0.1])
    balance = lambda s: ds.rollout(lambda s, _: step(MACHINE, s, policy(jnp.stack(s))), s, length=10)[0]
    stages = {f"to {0.2 * k:.1f} s": balance for k in range(1, 5)} | {"cost": lambda s: (s.angle / TILT) ** 2}
    page.figure(plot.stages(ds.stage_graph(stages, State(*start))), "How much the last angle depends on every state.")
    of_weights = lambda layers: jnp.mean(costs(eqx.tree_at(lambda m: m.layers, policy, layers), start, HORIZON))
    page.certificate(ds.check_gradients(of_weights, (policy.layers,), max_coordinates=2))
    page.write(run.folder / "report.html")


@eqx.filter_jit
def pushed(policy, start) -> State:
    """The states of an episode with full pushes, `STEPS` of them, from a start of shape (4,)."""
    push = lambda s: FORCE * control.straight_through_sign(policy(jnp.stack(s)))
    return ds.rollout(lambda s, _: step(MACHINE, s, push(s)), State(*start), length=STEPS)[1]


def phase_portrait(policy):
    """The force for a cart at rest in the middle, and two episodes from tilted poles."""
    angles, rates = np.linspace(-TILT, TILT, 81), np.linspace(-2.0, 2.0, 81)
    grid = np.column_stack([x.ravel() for x in np.meshgrid(angles, rates)])
    force = np.asarray(forces(policy, jnp.asarray(np.pad(grid, ((0, 0), (2, 0)))))).reshape(rates.size, -1)
    paths = {}
    for angle, rate in ((0.15, 0.0), (-0.1, -0.4)):
        s = pushed(policy, jnp.array([0.0, 0.0, angle, rate]))
        paths[f"from {angle:g} rad, {rate:g} rad/s"] = np.column_stack([s.angle, s.rate])[:100]
    labels = "angle (rad)", "rate (rad/s)", "force (N)"
    return plot.field_map(angles, rates, force, *labels, contours=(0.0,), paths=paths)


def animation(policy, start=(0.0, 0.0, 0.15, 0.0)) -> report.Animation:
    """An episode as frames to play."""
    s = jax.tree.map(lambda x: np.asarray(x)[::EVERY], pushed(policy, jnp.array(start)))
    times = DT * (1 + EVERY * np.arange(len(s.angle)))
    return scenes.cart_and_pole(times, s.position, s.angle, 2 * MACHINE.half_length, TRACK)


def policy_of(path: Path | None, seed: int):
    """The policy of a checkpoint, or one trained now."""
    return control.check_finite(ds.load(path, network(jr.key(0)))) if path else learn(seed)[0]


def evaluate(*, policy: cli.InFile | None = None, seeds: cli.Seeds = TEST, seed: cli.Seed = 0) -> dict:
    """Judge one policy in the real environment.

    Args:
        policy: policy.npz of a run; without it one is trained first.
        seeds: of the environment's resets, FIRST:LAST without the last.
        seed: of the training, where one is trained.
    """
    real(1)
    returns = judge(policy_of(policy, seed), seeds)
    best = int(np.sum(returns == STEPS))
    scores = {"mean_score": float(returns.mean()), "least_score": float(returns.min())}
    return {"episodes": len(returns), **scores, "at_500": best}


def animate(
    out: Annotated[Path, cli.WritableFile((".gif",))], *, policy: cli.InFile | None = None, seed: cli.Seed = 0
) -> dict:
    """An episode from a tilted pole, as an animated GIF.

    Args:
        out: the GIF to write.
        policy: policy.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
    """
    plot.save_animation(animation(policy_of(policy, seed)), out)
    return {"file": str(out)}


def export(
    out: Annotated[Path, cli.WritableFile((".jax", ".onnx"))],
    *,
    policy: cli.InFile | None = None,
    seed: cli.Seed = 0,
    single: bool = False,
) -> dict:
    """A policy in a file that runs without diffsim: states of shape (batch, 4) to forces (batch,), N.

    Args:
        out: the file to write: .onnx for onnxruntime, .jax for JAX, with derivatives.
        policy: policy.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
        single: compute in single precision.
    """
    dtype = jnp.float32 if single else jnp.float64
    chosen = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_array(x) else x, policy_of(policy, seed))
    states = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 4"), dtype)
    ds.export(jax.vmap(chosen), states, path=out)
    return measured(out, np.zeros((1, 4), dtype))


if __name__ == "__main__":
    cli.main(train, evaluate, animate, export)
