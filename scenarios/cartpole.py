"""Can a pole be balanced by a network that was trained through the dynamics, in a tenth of a second?

A network reads the state of CartPole-v1 and sets a force between -10 and 10 N. Its loss is the mean square of the
state over 50 steps from random states, and Adam differentiates it through the steps themselves. A state that has
fallen stays as it fell, and costs as much until the end. The real environment only pushes fully to the left or to
the right: there the sign of the force decides.

    python scenarios/cartpole.py                          train with 20 seeds, judge each in the real environment
    python scenarios/cartpole.py evaluate --seeds 0:100   one policy; --policy RUN/checkpoint.npz for one trained
    python scenarios/cartpole.py parity --episodes 200    our steps beside Gymnasium's
    python scenarios/cartpole.py animate cartpole.gif

Gymnasium judges: pip install "diffsim[scenarios]". Expected: 500.0, the maximum, on seeds 0 to 99 for every training
seed, after less than 0.1 s of training each; in all about 20 s.
"""

import time
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import cli, plot, report
from diffsim.systems.cartpole import DT, FORCE, START, STEPS, TILT, TRACK, CartPole, State, fallen, step

MACHINE = CartPole()
HORIZON = 50  # steps that the loss looks ahead: 1 s
BATCH = 8
UPDATES = 150
RATE = 2e-2
WIDE = np.array([TRACK / 2, 0.5, TILT / 2, 0.5])  # half of the starts are drawn up to here, the others as at a reset
TEST = "0:100"
EVERY = 2  # steps between the frames of an animation

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(RATE, UPDATES))
)  # one object for all seeds, which therefore compile once


def network(key) -> ds.BoundedMLP:
    """The policy: the state (position, velocity, angle, rate) to a force, N."""
    return ds.BoundedMLP(4, -FORCE, FORCE, width=24, depth=2, scale=jnp.array([1.0, 1.0, 0.1, 1.0]), key=key)


def cost(policy, start):
    """Mean square of the state over the horizon, each part in units of its size, from one start of shape (4,)."""

    def move(carry, _):
        s, standing = carry
        after = step(MACHINE, s, policy(jnp.stack(s)))
        # What has fallen stays there: it costs, and its motion, which is none of ours, carries no gradient.
        s = jax.tree.map(lambda new, old: jnp.where(standing, new, old), after, s)
        return s, standing & ~fallen(s)

    _, (s, _) = ds.rollout(move, (State(*start), jnp.array(True)), length=HORIZON)
    return jnp.mean((s.position / TRACK) ** 2 + (s.angle / TILT) ** 2 + 0.1 * (s.velocity**2 + s.rate**2))


def loss(policy, starts):
    """Mean cost over starts of shape (batch, 4)."""
    return jnp.mean(jax.vmap(lambda start: cost(policy, start))(starts))


def draw_starts(key):
    """First states for every update, (updates, batch, 4): one half as the environment draws them, the other wide."""
    shape = (UPDATES, BATCH, 4)
    size = jnp.where(jnp.arange(BATCH)[:, None] % 2 == 0, START, jnp.asarray(WIDE)[None])
    return size[None] * jr.uniform(key, shape, minval=-1.0, maxval=1.0)


def learn(seed: int):
    """The policy after its last update, and the history of the loss."""
    weights, starts = jr.split(jr.key(seed))
    policy = network(weights)
    which = ds.trainable(policy, "layers")
    batches = draw_starts(starts)
    return ds.fit(loss, policy, OPTIMIZER, batches, train=which, steps_per_call=UPDATES, progress=False)


@eqx.filter_jit
def forces(policy, states):
    """The forces (N) for states of shape (n, 4)."""
    return jax.vmap(policy)(states)


def gymnasium() -> Any:
    """The module of the real environments. Raises InputError if it is not installed."""
    try:
        import gymnasium
    except ImportError as error:
        remedy = 'the real environment needs Gymnasium: pip install "diffsim[scenarios]"'
        raise ds.InputError(remedy) from error
    return gymnasium


def judge(policy, seeds) -> np.ndarray:
    """The return of one episode of the real CartPole-v1 for each seed of its reset, by the sign of the force."""
    environments = [gymnasium().make("CartPole-v1") for _ in seeds]
    seen = np.stack([e.reset(seed=seed)[0] for e, seed in zip(environments, seeds, strict=True)]).astype(float)
    returns, running = np.zeros(len(seen)), np.ones(len(seen), bool)
    while running.any():
        right = np.asarray(forces(policy, jnp.asarray(seen))) > 0
        for i in np.flatnonzero(running):
            seen[i], reward, terminated, truncated, _ = environments[i].step(int(right[i]))
            returns[i] += reward
            running[i] = not (terminated or truncated)
    return returns


def save(policy, path: Path) -> None:
    """Writes the policy's weights by their names."""
    weights: dict[str, Any] = {name: np.asarray(entry.value) for name, entry in ds.parameters(policy).items()}
    np.savez(path, **weights)


def load(path: Path):
    """The policy of a file written by `save`. Raises InputError if it holds no policy of this scenario."""
    policy = network(jr.key(0))
    known = {name: np.shape(entry.value) for name, entry in ds.parameters(policy).items()}
    try:
        with np.load(path) as file:
            given = {name: file[name] for name in file.files}
    except (ValueError, EOFError, AttributeError) as error:
        raise ds.InputError(f"{path} is no checkpoint: give the checkpoint.npz of a run of this scenario") from error
    wrong = [n for n in {**known, **given} if n not in known or n not in given or given[n].shape != known[n]]
    if wrong:
        raise ds.InputError(f"{path} does not hold this scenario's network: '{wrong[0]}' is missing, new or misshapen")
    bad = [name for name, value in given.items() if not np.all(np.isfinite(value))]
    if bad:
        raise ds.InputError(f"{path}: '{bad[0]}' is not finite, so that the policy decides nothing")
    return ds.replace(policy, given)


def train(*, seed: int = 0, policies: int = 20, run: cli.Run) -> dict:
    """Train policies with several seeds, judge each in the real environment, write the report.

    Args:
        seed: of the first policy's weights and starts; the others follow.
        policies: how many to train.
    """
    if policies < 1 or seed < 0:
        raise ds.InputError(f"policies={policies}, seed={seed}: give at least one policy and no negative seed")
    gymnasium()
    histories, scores = [], []
    for number in range(seed, seed + policies):
        policy, history = learn(number)
        returns = judge(policy, cli.seed_range(TEST))
        if number == seed:
            save(policy, run.folder / "checkpoint.npz")
            first = policy
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
    }
    write_report(run, first, np.stack([history.loss for history in histories]), scores, seconds, result)
    return result


def write_report(run, policy, losses, scores, seconds, result) -> None:
    """The page: scores by seed, learning curves, phase portrait, animation and gradient check."""
    page = report.Report("A pole balanced by a network", "Trained through the steps of the dynamics, judged outside")
    page.settings(run.settings)
    rows = [
        ("policies at 500.0, the maximum", f"{result['at_500']} of {result['policies']}"),
        ("least score", f"{result['least_score']:.1f}"),
        ("training, s, median and worst", f"{np.median(seconds):.3f}, {np.max(seconds):.3f}"),
        ("compilation, s", f"{result['compile_seconds']:.1f}"),
    ]
    page.table("Result in Gymnasium's CartPole-v1, resets 0 to 99", ["quantity", "reached"], rows)
    updates = np.arange(1, losses.shape[1] + 1)
    levels = {"worst seed": losses.max(axis=0), "median": np.median(losses, axis=0), "best seed": losses.min(axis=0)}
    curve = plot.curves(updates, levels, "update", "loss", log="y", dashed=("worst seed", "best seed"))
    page.figure(curve, f"Loss at each update, over {len(losses)} training seeds.")
    run.figure("learning_curve", curve)
    portrait = phase_portrait(policy)
    page.figure(portrait, "Force over angle and rate for a cart at rest in the middle, and two trajectories.")
    run.figure("phase_portrait", portrait)
    page.animation(animation(policy), "An episode pushed fully to the left or right at each step.")
    numbers = range(int(run.settings["seed"]), int(run.settings["seed"]) + len(scores))
    table = [[n, score, s, loss] for n, score, s, loss in zip(numbers, scores, seconds, losses[:, -1], strict=True)]
    page.table("Every training seed", ["seed", "score", "training, s", "last loss"], table)
    start = jnp.array([0.3, 0.1, 0.05, -0.1])
    of_weights = lambda layers: cost(eqx.tree_at(lambda m: m.layers, policy, layers), start)
    page.certificate(ds.check_gradients(of_weights, (policy.layers,), max_coordinates=2))
    page.write(run.folder / "report.html")


@eqx.filter_jit
def episode(policy, start) -> State:
    """The states of an episode with full pushes, `STEPS` of them, from a start of shape (4,)."""
    push = lambda s: jnp.where(policy(jnp.stack(s)) > 0, FORCE, -FORCE)
    return ds.rollout(lambda s, _: step(MACHINE, s, push(s)), State(*start), length=STEPS)[1]


def phase_portrait(policy):
    """The force for a cart at rest in the middle, and two episodes from tilted poles."""
    angles, rates = np.linspace(-TILT, TILT, 81), np.linspace(-2.0, 2.0, 81)
    grid = np.column_stack([x.ravel() for x in np.meshgrid(angles, rates)])
    values = np.asarray(forces(policy, jnp.asarray(np.pad(grid, ((0, 0), (2, 0))))))
    paths = {}
    for angle, rate in ((0.15, 0.0), (-0.1, -0.4)):
        s = episode(policy, jnp.array([0.0, 0.0, angle, rate]))
        paths[f"from {angle:g} rad, {rate:g} rad/s"] = np.column_stack([s.angle, s.rate])[:100]
    force = values.reshape(rates.size, -1)
    return plot.field_map(
        angles, rates, force, "angle (rad)", "rate (rad/s)", "force (N)", contours=(0.0,), paths=paths
    )


def animation(policy, start=(0.0, 0.0, 0.15, 0.0)) -> report.Animation:
    """An episode as frames to play."""
    s = jax.tree.map(lambda x: np.asarray(x)[::EVERY], episode(policy, jnp.array(start)))
    zero = np.zeros_like(s.position)
    reach = 2 * float(MACHINE.half_length)
    hinge = np.column_stack([s.position, zero])
    tip = hinge + reach * np.column_stack([np.sin(s.angle), np.cos(s.angle)])
    ends = np.array([[-0.2, 0.0], [0.2, 0.0]])
    shapes = [
        report.Polyline(np.array([[-TRACK, -0.08], [TRACK, -0.08]]), colour=3, width=1.0),
        report.Polyline(hinge[:, None] + ends, width=10.0),
        report.Polyline(np.stack([hinge, tip], axis=1), colour=1, width=4.0),
        report.Disc(hinge, 0.03, colour=2),
    ]
    return report.Animation(DT * (1 + EVERY * np.arange(len(zero))), shapes, extent=(-2.6, 2.6, -0.3, 1.2))


def evaluate(*, policy: Path | None = None, seeds: str = TEST, seed: int = 0) -> dict:
    """Judge one policy in the real environment.

    Args:
        policy: checkpoint.npz of a run; without it one is trained first.
        seeds: of the environment's resets, FIRST:LAST without the last.
        seed: of the training, where one is trained.
    """
    resets = cli.seed_range(seeds)
    gymnasium()
    returns = judge(load(policy) if policy else learn(seed)[0], resets)
    return {
        "episodes": len(returns),
        "mean_score": float(returns.mean()),
        "least_score": float(returns.min()),
        "at_500": int(np.sum(returns == STEPS)),
    }


def parity(*, episodes: int = 200) -> dict:
    """Compare our steps with Gymnasium's over whole episodes of random actions.

    Args:
        episodes: how many, with resets and actions of seeds 0, 1, ...
    """
    if episodes < 1:
        raise ds.InputError(f"episodes={episodes}: give at least one")
    began = time.perf_counter()
    ours = jax.jit(lambda s, force: (after := step(MACHINE, s, force), fallen(after)))
    real = gymnasium().make("CartPole-v1").unwrapped
    worst, mismatches, steps = 0.0, 0, 0
    for seed in range(episodes):
        real.reset(seed=seed)
        s, terminated = State(*jnp.asarray(real.state)), False
        for action in np.random.default_rng(seed).integers(2, size=STEPS):
            terminated = real.step(int(action))[2]
            s, ended = ours(s, FORCE * (2.0 * action - 1))
            worst = max(worst, float(np.max(np.abs(np.stack(s) - real.state))))
            mismatches += bool(ended) != terminated
            steps += 1
            if terminated:
                break
    seconds = time.perf_counter() - began
    return {"episodes": episodes, "steps": steps, "worst": worst, "mismatches": mismatches, "seconds": seconds}


def animate(out: Path, *, policy: Path | None = None, seed: int = 0) -> dict:
    """An episode from a tilted pole, as an animated GIF.

    Args:
        out: the GIF to write.
        policy: checkpoint.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
    """
    plot.save_animation(animation(load(policy) if policy else learn(seed)[0]), out)
    return {"file": str(out)}


if __name__ == "__main__":
    cli.main(train, evaluate, parity, animate)
