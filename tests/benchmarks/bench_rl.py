"""Reinforcement learning compared with training through the dynamics: CPU seconds and transitions to a score.

    python tests/benchmarks/bench_rl.py [SEEDS]

PPO and SAC are those of stable-baselines3 with the settings of its zoo, on one thread; their policies are judged
without noise on resets 0 to 99 every so many transitions, outside the clock. diffsim's are judged at the end. The clock
counts everything but imports: networks, tracing, compilation, training; nothing is compiled before. stable-baselines3
needs torch: pip install "diffsim[bench]".
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import pendulum as ours

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import control

try:
    import torch
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
except ImportError:
    sys.exit('stable-baselines3 is not installed here, so nothing was compared: pip install "diffsim[bench]"')

GOALS = {"CartPole-v1": 475.0, "Pendulum-v1": -150.0}
UPDATES, HORIZON = 300, 48
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-2, UPDATES)))
falling = lambda first: lambda rest: first * rest

# The algorithm, its number of environments, transitions at most and between evaluations, and the zoo's settings.
BASELINES = {
    ("SAC", "Pendulum-v1"): (SAC, 1, 20_000, 500, dict(learning_rate=1e-3)),
    ("PPO", "CartPole-v1"): (
        *(PPO, 8, 100_000, 1024),
        dict(n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0)
        | dict(learning_rate=falling(1e-3), clip_range=falling(0.2)),
    ),
    ("PPO", "Pendulum-v1"): (
        *(PPO, 4, 100_000, 4096),
        dict(n_steps=1024, gae_lambda=0.95, gamma=0.9, n_epochs=10, ent_coef=0.0)
        | dict(learning_rate=1e-3, clip_range=0.2, use_sde=True, sde_sample_freq=4),
    ),
}


def score(agent, name: str) -> float:
    """The mean return of an agent's deterministic actions in the real environment on resets 0 to 99."""
    act = lambda seen: agent.predict(seen.astype(np.float32), deterministic=True)[0]
    return float(control.evaluate_episodes([gymnasium.make(name) for _ in range(100)], range(100), act).mean())


def baseline(key: tuple[str, str], seed: int) -> tuple[float, int, float]:
    """CPU seconds, transitions and score when an algorithm first reaches its goal, or at its end."""
    algorithm, count, most, every, settings = BASELINES[key]
    torch.set_num_threads(1)
    began = time.process_time()
    # Seeds of resets beyond those that judge.
    environment = make_vec_env(key[1], n_envs=count, seed=10_000 + 100 * seed)
    agent = algorithm("MlpPolicy", environment, seed=seed, device="cpu", **settings)
    spent, reached = time.process_time() - began, -np.inf

    class Judge(BaseCallback):
        def _on_step(self) -> bool:
            nonlocal began, spent, reached
            if self.num_timesteps % every == 0:
                spent += time.process_time() - began
                reached = score(agent, key[1])
                began = time.process_time()
            return reached < GOALS[key[1]]

    began = time.process_time()
    agent.learn(most, callback=Judge())
    return spent, agent.num_timesteps, reached


def drawn(seed: int):
    """A network and the starts of all updates, both by NumPy, for which nothing need be compiled."""
    draw = np.random.default_rng(seed)
    uniform = lambda *shape: draw.uniform(-1, 1, shape).astype(np.float32)
    weigh = lambda leaf: jnp.asarray(uniform(*leaf.shape) / np.sqrt(np.float32(leaf.shape[-1])))
    shapes = eqx.filter_eval_shape(ours.network, jr.key(0))
    policy = jax.tree.map(lambda leaf: weigh(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, shapes)
    wide = np.arange(ours.BATCH)[:, None] < ours.WIDE * ours.BATCH
    reach = np.where(wide, (ours.START[0], ours.RATE), ours.START).astype(np.float32)
    return policy, jnp.asarray(reach * uniform(UPDATES, ours.BATCH, 2))


def through_the_dynamics(seed: int) -> tuple[float, int, float]:
    """CPU seconds, transitions and score of diffsim's pendulum after a short training, compilation included."""
    jax.clear_caches()
    began = time.process_time()
    policy, starts = drawn(seed)
    batches, loss = (
        (starts, np.linspace(*ours.DECAY, UPDATES, dtype=np.float32)),
        control.mean_cost(ours.costs, HORIZON),
    )
    policy, _ = ds.fit(loss, policy, OPTIMIZER, batches, steps_per_call=UPDATES, progress=False)
    spent = time.process_time() - began
    return spent, UPDATES * ours.BATCH * HORIZON, float(ours.judge(policy, ours.TEST).mean())


def main(seeds: int) -> None:
    rows = {("ours", "Pendulum-v1"): [through_the_dynamics(seed) for seed in range(seeds)]}
    show(("ours", "Pendulum-v1"), rows)
    for key in BASELINES:
        rows[key] = [baseline(key, seed) for seed in range(seeds)]
        show(key, rows)
    cost = {name: np.median([row[0] for row in rows[name, "Pendulum-v1"]]) for name in ("ours", "SAC")}
    print(f"Pendulum-v1 to -150: SAC takes {cost['SAC'] / cost['ours']:.1f} times our CPU time (medians)")


def show(key, rows) -> None:
    goal = GOALS[key[1]]
    good = sum(row[2] >= goal for row in rows[key])
    print(f"{key[0]} on {key[1]}: {good} of {len(rows[key])} seeds reach {goal:g}", flush=True)
    for seed, (seconds, transitions, reached) in enumerate(rows[key]):
        print(f"    seed {seed}: {seconds:.1f} s CPU, {transitions} transitions, score {reached:.1f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
