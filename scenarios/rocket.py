"""Can a network trained through flight and touchdown land a rocket softly, on the target and with little fuel?

A network reads the state of a rocket in the vertical plane and, 4 times a second, sets the throttle and the gimbal of
its engine. From random starts some 500 m up, sinking at 60 m/s, it flies until the height is zero: touchdown is an
event, and the length of the flight is free. The loss of the touchdown and the fuel is differentiated through event
and decisions. Success, in motion integrated to 1e-8: within 5 m of the target, sinking at less than 2 m/s, drifting
at less than 1 m/s, tilted by less than 0.1 rad, with fuel left. From straight above the target the least fuel is known.

    python scenarios/rocket.py                                     train with 5 seeds, judge each on 1,000 starts
    python scenarios/rocket.py evaluate --policy RUN/policy.npz   one policy on other starts
    python scenarios/rocket.py animate rocket.gif

Expected: 99% of unseen starts for each training seed, on 1.08 times the least fuel, after some 15 s of CPU time each.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import time
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

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
from diffsim.systems.rocket import GIMBAL, GROUND, Rocket, State, best_ignition, outline, rocket, vertical_burn
from diffsim.viz import plot, report

MACHINE = Rocket()
DT, STEPS = 0.25, 100  # s between two decisions, and decisions of a flight at most
MIDDLE = np.array([0.0, 500.0, 0.0, 0.0, -60.0, 0.0, 28_000.0])  # starts are drawn about this state
SPREAD = np.array([80.0, 150.0, 0.2, 8.0, 15.0, 0.05, 500.0])  # and within this distance from it
VERTICAL = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0])  # times a start: straight above the target, upright
LIMITS = np.array([5.0, 1e-3, 0.1, 1.0, 2.0, 0.1])  # of a success: m, m, rad, m/s, m/s, rad/s
SINK = 1.0  # m/s, the touchdown that the loss asks for
SIZE, FUEL = np.array([5.0, 5.0, 0.05, 0.5, 0.7, 0.05]), 1000.0  # scales of the touchdown's errors and of fuel (kg)
BATCH, UPDATES, TESTS = 32, 2000, 1000
TEST, EVALUATION = 1_000_000, 2_000_000  # first seeds of tests and of `evaluate`: no training seed is as large
EXTENT = (-300.0, 300.0, -30.0, 680.0)  # m, of the figures
SOLVER = dfx.Bosh3()
IN_TRAINING = {"solver": SOLVER, "stepsize_controller": dfx.ConstantStepSize(), "dt0": DT, "max_steps": 4}

# A function of a key, the number of updates and the number of states in each.
draw = partial(
    control.sample_initial_states, half_width=SPREAD, wide_half_width=SPREAD, wide_fraction=0.0, center=MIDDLE
)
# One object for all seeds, so that the training compiles once.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1.5e-2, UPDATES)))


class Flight(NamedTuple):
    """A flight at one decision: the state, the controls (throttle and gimbal), and whether it is in the air."""

    s: State
    controls: jax.Array
    aloft: jax.Array


def network(key) -> ds.BoundedMLP:
    """The policy: seven numbers of the state to throttle (0 to 1) and gimbal (rad)."""
    return ds.BoundedMLP(7, np.array([0.0, -GIMBAL]), np.array([1.0, GIMBAL]), width=32, depth=2, key=key)


def decide(policy, s: State):
    """Throttle and gimbal in a state; the height is read on a scale that is finest near the ground."""
    motion = [s.x / 50, s.tilt / 0.3, s.vx / 10, s.vz / 20, s.rate / 0.3]
    return policy(jnp.stack([jnp.arcsinh(s.height / 10), s.mass / MACHINE.dry - 1, *motion]))


field = lambda t, s, controls: rocket(MACHINE, s, *controls)  # throttle and gimbal are constant


def fly(policy, start, parts: int = 1) -> tuple[Flight, Flight]:
    """The flight at the last decision before the ground, and after each decision, from a start of shape (7,)."""

    def move(now: Flight, _) -> Flight:
        after = ds.zero_order_hold(field, now.s, now.controls, DT, steps=parts, solver=SOLVER)
        aloft = now.aloft & (after.height > 0)
        s = jax.tree.map(lambda new, old: jnp.where(aloft, new, old), after, now.s)
        return Flight(s, decide(policy, s), aloft)

    s = State(*start)
    return ds.rollout(move, Flight(s, decide(policy, s), jnp.array(True)), length=STEPS)


def land(last: Flight, **options) -> ds.ode.PhaseResult:
    """The touchdown after the last decision; EVENT_NOT_FOUND, and a state in the air, if the flight was too long."""
    return ds.integrate_phase(ds.Phase(field, (GROUND,)), 0.0, last.s, last.controls, t1=DT, **options)


def cost(policy, start):
    """The cost of one flight: the errors at its touchdown, linear where they are large, and its fuel."""
    # A flight that was too long costs the errors of its last state. The cost of a failed one is NaN: `fit` then stops.
    end = land(fly(policy, start)[0], **IN_TRAINING).y
    errors = jnp.stack(end._replace(vz=end.vz + SINK)[:6]) / SIZE
    return jnp.sqrt(1 + jnp.sum(errors**2)) - 1 + (start[6] - end.mass) / FUEL


def loss(policy, starts):
    """The mean cost of the flights from starts of shape (batch, 7)."""
    return jnp.mean(jax.vmap(lambda start: cost(policy, start))(starts))


def learn(seed: int, state: Path | None = None):
    """The trained policy and the history of the loss; the training is saved in the file `state` and resumes from it."""
    weights, starts = jr.split(jr.key(seed))
    policy = network(weights)
    options = {
        "steps_per_call": 100,
        "checkpoint": state,
        "progress": False,
        "filter_spec": ds.trainable(policy, "layers"),
    }
    return ds.fit(loss, policy, OPTIMIZER, draw(starts, UPDATES, BATCH), **options)


@eqx.filter_jit
def judge(policy, starts):
    """The ends of flights from starts of shape (n, 7) in the exact motion: states of shape (n, 7), and statuses."""
    ends = jax.vmap(lambda start: land(fly(policy, start, parts=4)[0]))(starts)
    return jnp.stack(ends.y, axis=1), ends.status


def measured(policy, starts) -> dict:
    """Landings from starts of shape (n, 7), medians at touchdown, and fuel relative to the least from above the target.

    Flights without a touchdown do not count as landings; they are counted separately and left out of the medians.
    """
    high = starts * VERTICAL
    (ends, status), (down, down_status) = judge(policy, starts), judge(policy, high)
    best = jax.vmap(lambda start, end: best_ignition(MACHINE, State(*start), -end[4]).time)(high, down)
    ends, touched, straight = np.asarray(ends), np.asarray(ds.finished(status)), np.asarray(ds.finished(down_status))
    if not touched.any() or not straight.any():
        raise ds.RunError(f"no flight of {len(starts)} touched down, {ds.ode.count_statuses(status)}: train longer")
    soft = touched & np.all(np.abs(ends[:, :6]) < LIMITS, axis=1) & (ends[:, 6] > float(MACHINE.dry))
    fuel = np.asarray((high - down)[:, 6] / (MACHINE.thrust / MACHINE.exhaust * best))
    return {
        "landings": int(np.sum(soft)),
        "sink_m_s": float(-np.median(ends[touched, 4])),
        "offset_m": float(np.median(np.abs(ends[touched, 0]))),
        "fuel_over_least": float(np.median(fuel[straight])),
        "without_touchdown": int(np.sum(~touched)),
        "without_touchdown_from_above": int(np.sum(~straight)),
    }


def train(*, seed: cli.Seed = 0, policies: cli.Count = 5, run: cli.ResumableRun) -> dict:
    """Train policies with several seeds, judge each on 1,000 unseen starts, write the report.

    Args:
        seed: of the first policy's weights and starts; the others follow.
        policies: how many to train.
    """
    trained, rows = [], []
    for number in range(seed, seed + policies):
        began = time.process_time()
        trained.append(learn(number, run.state(f"fit-{number}")))
        seconds, starts = time.process_time() - began, draw(jr.key(TEST + number), 1, TESTS)[0]
        rows.append({**measured(trained[-1][0], starts), "cpu_seconds": seconds})
        run.metric(seed=number, **rows[-1])
        run.say(f"seed {number}: {rows[-1]['landings']} of {TESTS} starts after {seconds:.1f} s CPU")
    ds.save(run.folder / "policy.npz", trained[0][0])
    medians = {f"{name}_median": float(np.median([row[name] for row in rows])) for name in rows[0]}
    result = {"policies": policies, "landings_least": min(row["landings"] for row in rows), **medians}
    write_report(run, trained[0][0], np.stack([history.loss for _, history in trained]), result)
    return result


def write_report(run, policy, losses, result) -> None:
    """The page: result, learning curves, trajectories, a vertical landing and the best, animation, certificate."""
    page = report.Report("A rocket landed by a network", "Trained through flight and touchdown")
    page.settings(run.settings)
    page.result(result, f"Result from {TESTS} unseen starts for each seed")
    figures = {
        "learning_curve": (plot.seed_curves(losses), f"Loss at each update, over {len(losses)} training seeds."),
        "trajectories": (trajectories(policy), "Twelve landings from unseen starts, the rocket on one of them."),
        "vertical": (vertical(policy), "Straight down: the network's landing, and the one of least fuel."),
    }
    for name, (figure, caption) in figures.items():
        page.figure(figure, caption)
        run.figure(name, figure)
    page.animation(animation(policy), "A landing from an unseen start; the flame's length is the throttle.")
    of_weights = lambda layers: cost(eqx.tree_at(lambda m: m.layers, policy, layers), jnp.asarray(MIDDLE + SPREAD / 2))
    page.certificate(ds.check_gradients(of_weights, (policy.layers,), rtol=1e-5, max_coordinates=2))
    page.write(run.folder / "report.html")


@eqx.filter_jit
def flown(policy, start):
    """States after each decision, that of the touchdown after it, and the lines to draw, (steps, 2, 2, 2)."""
    last, path = fly(policy, start)
    s = jax.tree.map(lambda along, end: jnp.where(path.aloft, along, end), path.s, land(last).y)
    throttle = jnp.where(path.aloft, path.controls[:, 0], 0.0)
    return s, jax.vmap(lambda *now: outline(MACHINE, *now))(s, throttle, path.controls[:, 1])


def shapes(lines) -> list[report.Polyline]:
    """The ground, the flame and the rocket."""
    ground = report.Polyline(np.array([EXTENT[:2], (-15.0, -15.0)]).T, colour=3, width=1.0)
    return [ground, report.Polyline(lines[:, 1], colour=1, width=4.0), report.Polyline(lines[:, 0], width=5.0)]


def trajectories(policy):
    """Paths from unseen starts to the target, and the rocket along one of them."""
    s, lines = jax.vmap(lambda start: flown(policy, start))(draw(jr.key(TEST), 1, 12)[0])
    paths = [report.Polyline(np.column_stack(path), colour=5, width=1.0) for path in zip(s.x, s.height, strict=True)]
    return plot.polylines([*paths, *shapes(lines[0])], extent=EXTENT, frames=range(0, STEPS, 6))


def vertical(policy):
    """Sinking speed against height of a landing straight down, by the network and on the least fuel."""
    start, heights = State(*jnp.asarray(MIDDLE * VERTICAL)), np.linspace(0.0, MIDDLE[1], 400)
    s, lit = flown(policy, jnp.stack(start))[0], best_ignition(MACHINE, start, SINK)
    burn = vertical_burn(MACHINE, start._replace(height=lit.height, vz=lit.velocity), jnp.linspace(lit.time, 0.0, 200))
    falling = np.sqrt(MIDDLE[4] ** 2 + 2 * MACHINE.g * (MIDDLE[1] - heights))
    speeds = {
        "network": -np.interp(heights, [*s.height[::-1], start.height], [*s.vz[::-1], start.vz]),
        "least fuel": np.where(heights < lit.height, -np.interp(heights, burn.height, burn.vz), falling),
    }
    return plot.curves(heights, speeds, "height (m)", "sinking at (m/s)")


def animation(policy) -> report.Animation:
    """A landing from an unseen start as frames to play."""
    s, lines = flown(policy, draw(jr.key(TEST), 1, 1)[0, 0])
    trail = {"path": np.column_stack([s.x, s.height])}
    return report.Animation(DT * np.arange(1, STEPS + 1), shapes(lines), trail, extent=EXTENT)


def policy_of(path: Path | None, seed: int):
    """The policy of a checkpoint, or one trained now."""
    return control.check_finite(ds.load(path, network(jr.key(0)))) if path else learn(seed)[0]


def evaluate(*, policy: cli.InFile | None = None, seeds: cli.Seeds = "0:10", seed: cli.Seed = 0) -> dict:
    """Judge one policy from 100 starts for each seed.

    Args:
        policy: policy.npz of a run; without it one is trained first.
        seeds: of the starts, FIRST:LAST without the last.
        seed: of the training, where one is trained.
    """
    starts = jnp.concatenate([draw(jr.key(EVALUATION + number), 1, 100)[0] for number in cli.seed_range(seeds)])
    return {"starts": len(starts), **measured(policy_of(policy, seed), starts)}


def animate(
    out: Annotated[Path, cli.WritableFile((".gif",))], *, policy: cli.InFile | None = None, seed: cli.Seed = 0
) -> dict:
    """A landing from an unseen start, as an animated GIF.

    Args:
        out: the GIF to write.
        policy: policy.npz of a run; without it one is trained first.
        seed: of the training, where one is trained.
    """
    plot.save_animation(animation(policy_of(policy, seed)), out)
    return {"file": str(out)}


if __name__ == "__main__":
    cli.main(train, evaluate, animate)
