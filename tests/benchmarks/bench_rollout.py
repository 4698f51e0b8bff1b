"""Value and gradient of a rollout compared with a checkpointed scan written by hand, in one process: time and memory.

    python tests/benchmarks/bench_rollout.py

The cart-pole under CartPole's network, BATCH episodes of STEPS steps, both in turns; the table gives the least of
ROUNDS wall times, XLA's temporary memory, and the ratio of the two. Both compute the same numbers, which is checked.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import cartpole as scenario  # sets double precision

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim.systems.cartpole import CartPole, State, step

STEPS, BATCH, ROUNDS = 400, 32, 40


def move(policy, s):
    """The next state under the policy."""
    return step(CartPole(), s, policy(jnp.stack(s)))


def cost(s):
    """Squares of a state, or of many."""
    return s.position**2 + s.angle**2 + 0.1 * (s.velocity**2 + s.rate**2)


def by_rollout(policy, start):
    """The mean cost of the states after each step."""
    return jnp.mean(cost(ds.rollout(lambda s, _: move(policy, s), State(*start), length=STEPS)[1]))


def by_hand(policy, start):
    """The same as a plain scan."""

    @jax.checkpoint
    def one(s, _):
        s = move(policy, s)
        return s, s

    return jnp.mean(cost(jax.lax.scan(one, State(*start), None, length=STEPS)[1]))


def summed(policy, start):
    """The same with the cost summed during the scan, so that the states are not stored twice."""

    def one(carry, _):
        s, total = carry
        s = move(policy, s)
        return (s, total + cost(s)), None

    (_, total), _ = ds.rollout(lambda c, _: one(c, None)[0], (State(*start), jnp.array(0.0)), length=STEPS)
    return total / STEPS


def program(one, policy, starts):
    """The compiled value and gradient of the mean over a batch."""
    moving, rest = eqx.partition(policy, eqx.is_inexact_array)
    mean = lambda moving, starts: jnp.mean(jax.vmap(lambda x: one(eqx.combine(moving, rest), x))(starts))
    compiled = jax.jit(jax.value_and_grad(mean)).lower(moving, starts).compile()
    return lambda: compiled(moving, starts), compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    policy = scenario.learn(0)[0]
    starts = 0.05 * jr.normal(jr.key(0), (BATCH, 4))
    programs = {f.__name__: program(f, policy, starts) for f in (by_hand, by_rollout, summed)}
    flat = {name: jax.flatten_util.ravel_pytree(run())[0] for name, (run, _) in programs.items()}
    for name, values in flat.items():
        np.testing.assert_allclose(values, flat["by_hand"], rtol=1e-9, err_msg=name)
    times = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, (run, _) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - began)
    least = {name: min(values) for name, values in times.items()}
    print(f"{STEPS} steps, batch {BATCH}, float64: value and gradient")
    for name, (_, size) in programs.items():
        ratio = least[name] / least["by_hand"]
        print(
            f"{name:12s} {1e3 * least[name]:7.2f} ms  {ratio:5.2f} of the scan by hand  {size / 1e6:6.2f} MB temporary"
        )


if __name__ == "__main__":
    main()
