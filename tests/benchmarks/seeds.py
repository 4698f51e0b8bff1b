"""The trebuchet's training over several seeds: miss on fresh targets, judged at tight tolerance, and its cost.

python tests/benchmarks/seeds.py [SEEDS] [--write]
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scenarios"))
import trebuchet as scenario  # sets double precision

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from timing import WORDS, keep


def main(seeds: int) -> None:
    reaches = scenario.reach()
    good, rows = 0, []
    for seed in range(seeds):
        chosen, fresh = np.random.default_rng(seed).spawn(2)
        data = jnp.asarray(scenario.draw_targets(chosen, 512, reaches))
        model = scenario.network(jr.key(seed))
        train = ds.trainable(model, "layers")
        options = {"solver": scenario.OPTIMIZER, "steps": 60, "filter_spec": train, "progress": False}
        if seed == 0:
            ds.fit_least_squares(scenario.misses, model, data, **options)  # compiles
        cpu = time.process_time()
        model, history = ds.fit_least_squares(scenario.misses, model, data, **options)
        cpu = time.process_time() - cpu
        miss, _ = scenario.judge(model, scenario.draw_targets(fresh, 1000, reaches))
        good += int(miss.mean() <= 1e-3)
        print(
            f"seed {seed}: mean miss {miss.mean():.4%}, median {np.median(miss):.4%}, worst {miss.max():.2%}; "
            f"training {history.seconds:.1f} s wall, {cpu:.1f} s CPU",
            flush=True,
        )
        rows.append({"mean_miss": float(miss.mean()), "training_cpu_seconds": cpu})
    print(f"mean miss at most 0.1% in {good} of {seeds}")
    summary = {"number": seeds, "good": good, "worst_mean_miss": max(row["mean_miss"] for row in rows)}
    seconds = max(row["training_cpu_seconds"] for row in rows)
    keep("trebuchet_seeds", "seeds.py --write", seeds=summary | {"worst_training_cpu_seconds": seconds})


if __name__ == "__main__":
    main(int(WORDS[0]) if WORDS else 5)
