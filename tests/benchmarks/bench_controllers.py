"""Controllers against the real environments: parity of steps, transitions that training takes, a second start.

python tests/benchmarks/bench_controllers.py parity        greatest differences over 200 random episodes
python tests/benchmarks/bench_controllers.py transitions   simulated steps until CartPole-v1 is first at 475
python tests/benchmarks/bench_controllers.py start         CartPole trained in new processes, compiled before
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENARIOS = Path(__file__).parents[2] / "scenarios"
sys.path.insert(0, str(SCENARIOS))
import cartpole as scenario  # sets double precision

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import control
from diffsim.systems import cartpole, pendulum

SEEDS = 20
SOLVED = 475.0  # mean return from which CartPole-v1 counts as solved
EPISODE, EPISODES = 150, 16  # steps of an episode of training at most, and their number at most
# Without state, so that every episode can be a separate fit.
OPTIMIZER = optax.sign_sgd(0.05)


def cartpole_parity(episodes: int) -> tuple[float, int, int]:
    """Greatest difference of any state over complete random episodes, mismatches of endings, and steps."""
    move = jax.jit(lambda s, force: (after := cartpole.step(cartpole.CartPole(), s, force), cartpole.fallen(after)))
    real, worst, mismatches, steps = gymnasium.make("CartPole-v1").unwrapped, 0.0, 0, 0
    for seed in range(episodes):
        real.reset(seed=seed)
        s = cartpole.State(*jnp.asarray(real.state, float))
        for action in np.random.default_rng(seed).integers(2, size=cartpole.STEPS):
            terminated = real.step(int(action))[2]
            s, ended = move(s, cartpole.FORCE * (2.0 * action - 1))
            worst = max(worst, float(np.max(np.abs(np.stack(s) - real.state))))
            mismatches += bool(ended) != terminated
            steps += 1
            if terminated:
                break
    return worst, mismatches, steps


def pendulum_parity(episodes: int) -> tuple[float, float]:
    """Greatest difference of any state and of any cost over complete episodes of random torques, all compiled."""

    @jax.jit
    def move(s, torque):
        return pendulum.rod_step(pendulum.Rod(), s, torque), pendulum.rod_cost(s, torque)

    real, worst, worst_cost = gymnasium.make("Pendulum-v1").unwrapped, 0.0, 0.0
    for seed in range(episodes):
        real.reset(seed=seed)
        s, draw = pendulum.State(*jnp.asarray(real.state)), np.random.default_rng(seed)
        for _ in range(pendulum.STEPS):
            torque = draw.uniform(-3, 3, 1).astype(np.float32)
            reward = real.step(torque)[1]
            s, cost = move(s, torque[0])
            worst = max(worst, float(np.max(np.abs(np.stack(s) - real.state))))
            worst_cost = max(worst_cost, abs(float(cost) + reward))
    return worst, worst_cost


def parity() -> None:
    began = time.perf_counter()
    worst, mismatches, steps = cartpole_parity(200)
    print(f"CartPole-v1, 200 episodes, {steps} steps: {worst:.1e} at most, {mismatches} endings differ")
    worst, cost = pendulum_parity(200)
    print(f"Pendulum-v1, 200 episodes of 200 steps: states {worst:.1e} at most, costs {cost:.1e}")
    print(f"{time.perf_counter() - began:.0f} s")


@eqx.filter_jit
def score(policy, starts):
    """Mean steps that simulated episodes of full pushes last, from starts of shape (n, 4)."""
    down = jax.vmap(lambda start: cartpole.fallen(scenario.pushed(policy, start)))(starts)
    stood = jnp.sum(jnp.cumsum(down, axis=1) == 0, axis=1)
    return jnp.mean(jnp.minimum(stood + 1, cartpole.STEPS))


@eqx.filter_jit
def taken(policy, start):
    """Transitions of an episode of training, the failing one among them."""
    stood = scenario.episode(policy, start, EPISODE)[1]
    return jnp.minimum(jnp.sum(stood) + 1, EPISODE)


def first_solved(seed: int) -> int | None:
    """Transitions of training until the policy of a seed first scores 475 in the real environment, if it does.

    Each update learns from one episode of at most 150 steps. What fell costs on, but takes no transitions.
    """
    weights, starts, resets = jr.split(jr.key(seed), 3)
    policy = scenario.network(weights)
    batches = control.sample_initial_states(starts, EPISODES, 1, scenario.NEAR, scenario.NEAR)
    resets = cartpole.START * jr.uniform(resets, (100, 4), minval=-1.0, maxval=1.0)
    which, loss, count = ds.trainable(policy, "layers"), scenario.loss_over(EPISODE), 0
    for batch in batches:
        count += int(taken(policy, batch[0]))
        policy, _ = ds.fit(loss, policy, OPTIMIZER, batch[None], filter_spec=which, progress=False)
        # The simulation, a thousand times cheaper, decides when to evaluate in the real environment.
        if score(policy, resets) >= SOLVED and scenario.judge(policy, scenario.TEST).mean() >= SOLVED:
            return count
    return None


def transitions() -> None:
    counts = [first_solved(seed) for seed in range(SEEDS)]
    reached = sum(count is not None for count in counts)
    ranked = [np.inf if count is None else count for count in counts]
    print(f"CartPole-v1 at {SOLVED:g}: {reached} of {SEEDS} seeds, transitions {counts}")
    print(f"median {np.median(ranked):g}, most {np.max(ranked):g}")


TRAIN = """
import time, cartpole
began = time.perf_counter()
history = cartpole.learn(0)[1]
print(f"{time.perf_counter() - began:.2f} s after the import, {history.seconds:.2f} s of them training")
"""


def start() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        paths = os.pathsep.join(map(str, (SCENARIOS, SCENARIOS.parent)))
        for name in ("first", "second", "third"):
            command, environment = [sys.executable, "-c", TRAIN], {**os.environ, **cache, "PYTHONPATH": paths}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            print(f"{name} process: CartPole trained {done.stdout.strip()}")


if __name__ == "__main__":
    jobs = {"parity": parity, "transitions": transitions, "start": start}
    for word in sys.argv[1:] or jobs:
        jobs[word]()
