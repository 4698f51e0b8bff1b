"""Kills a fit with -9 at random times and resumes it: `python tests/benchmarks/kill.py [TIMES] [SEED]`.

The fit trains a small controller on typed keys, with a validation loss and a metrics file; every other time with
batches that give NaN and the policy "shrink". It saves after every call, so that kills fall on saving as on
stepping. Prints for how many of the kills the model, the history and the metrics of the fit that went on are, byte for
byte, those of one that was never stopped.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, PER_CALL = 2000, 10


def train(folder: Path, policy: str) -> None:
    """Starts or resumes the fit in a folder and saves its results there."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    import diffsim as ds

    def loss(model, batch):
        key, bad = batch
        x = jr.normal(key, (32, 2))
        return jnp.mean((jax.vmap(model)(x) - jnp.sin(x[:, 0])) ** 2) + jnp.where(bad, jnp.nan, 0.0)

    def validation(model):
        return loss(model, (jr.key(99), False))

    keys = jr.split(jr.key(1), STEPS)
    bad = jr.uniform(jr.key(2), STEPS) < (0.02 if policy == "shrink" else 0.0)
    model, history = ds.fit(
        loss,
        ds.BoundedMLP(2, -1.0, 1.0, key=jr.key(0)),
        optax.adam(optax.cosine_decay_schedule(1e-2, STEPS)),
        (keys, bad),
        steps_per_call=PER_CALL,
        progress=False,
        checkpoint=ds.Checkpoint(folder / "fit.npz", seconds=0.0),
        non_finite=policy,
        early_stopping=ds.EarlyStopping(validation=validation),
        callback=ds.train.MetricsFile(folder / "metrics.jsonl"),
    )
    ds.save(folder / "result", (model, history.loss, history.validation, history.dropped))


def start(folder: Path, policy: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, __file__, "train", str(folder), policy])


def results(folder: Path) -> tuple[bytes, bytes]:
    """The results of a fit in a folder."""
    return (folder / "result").read_bytes(), (folder / "metrics.jsonl").read_bytes()


def kill(folder: Path, policy: str, delay: float) -> int:
    """Kills a fit `delay` seconds after its first checkpoint, and returns the size of its metrics file in bytes."""
    process = start(folder, policy)
    while process.poll() is None and not (folder / "fit.npz").exists():
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.wait()
    metrics = folder / "metrics.jsonl"
    return metrics.stat().st_size if metrics.exists() else 0


def length(folder: Path, policy: str) -> float:
    """The seconds from the first checkpoint to the end of a fit, with results for comparison left in the folder."""
    process = start(folder, policy)
    while process.poll() is None and not (folder / "fit.npz").exists():
        time.sleep(0.001)
    began = time.monotonic()
    if process.wait() != 0:
        sys.exit("the fit fails without being killed")
    return time.monotonic() - began


def main(times: int, seed: int) -> int:
    draw, same, midway = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        policies = ["stop", "shrink"]
        seconds = {policy: length(root / policy, policy) for policy in policies}
        expected = {policy: results(root / policy) for policy in policies}
        for number in range(times):
            policy = policies[number % len(policies)]
            folder = root / str(number)
            size = kill(folder, policy, draw.uniform(0.0, 0.95 * seconds[policy]))
            midway += 0 < size < len(expected[policy][1])
            same += start(folder, policy).wait() == 0 and results(folder) == expected[policy]
            print(f"kill {number + 1}: {policy}, {size} bytes of metrics; {same} the same", file=sys.stderr, flush=True)
    print(f"{same} of {times} the same to the last byte; {midway} were killed between the first and the last call")
    return int(same < times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        sys.exit(train(Path(sys.argv[2]), sys.argv[3]))
        os._exit(0)
    given = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(*given, *[50, 0][len(given) :]))
