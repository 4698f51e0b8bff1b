"""Fits with a stream of batches: the bits of arrays, what ends them, resuming, and memory."""

import io
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from rich.console import Console

import diffsim as ds

ROOT = Path(__file__).parents[2]
OPTIMIZER = optax.adam(1e-2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 8, 2))
DATA = {"x": X, "y": np.sin(X[..., 0])}
ROWS = [jax.tree.map(lambda leaf, i=i: leaf[i], DATA) for i in range(40)]


def loss(model, batch):
    return jnp.mean((jax.vmap(model)(batch["x"]) - batch["y"]) ** 2)


def network():
    return ds.BoundedMLP(2, -1.0, 1.0, width=4, key=jr.key(0))


def fit(batches, **options):
    options = {"steps_per_call": 7, "progress": False} | options
    return ds.fit(loss, network(), OPTIMIZER, batches, **options)


def same(one, other):
    """Whether models and losses of two fits have the same bits."""
    return bool(eqx.tree_equal(one[0], other[0])) and np.array_equal(one[1].loss, other[1].loss)


@pytest.fixture(scope="module")
def from_arrays():
    return fit(DATA)


class Loader:
    """A loader of a known length that can be passed through again."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return len(self.rows)


@pytest.mark.parametrize(
    ("stream", "options"),
    [
        (lambda: (row for row in ROWS), {}),
        (lambda: (row for row in itertools.cycle(ROWS)), {"steps": 40}),
        (lambda: Loader(ROWS), {}),
        (lambda: ds.train.ResumableStream(lambda step: iter(ROWS[step:])), {"steps": 40}),
        (lambda: (jax.tree.map(jnp.asarray, row) for row in ROWS), {}),
    ],
)
def test_a_stream_gives_the_bits_of_arrays(from_arrays, stream, options):
    assert same(fit(stream(), **options), from_arrays)


@pytest.mark.parametrize("options", [{"epochs": 4}, {"steps": 40}])
def test_a_stream_is_passed_through_again(options):
    right = fit(jax.tree.map(lambda *rows: np.stack(rows), *(ROWS[:10] * 4)))
    assert same(fit(Loader(ROWS[:10]), **options), right)


def test_random_keys_come_in_a_stream():
    keys = jr.split(jr.key(1), 20)
    noisy = lambda x, key: (x - jr.normal(key)) ** 2
    options = {"progress": False, "steps_per_call": 6}
    right = ds.fit(noisy, jnp.array(0.0), OPTIMIZER, keys, **options)
    assert same(ds.fit(noisy, jnp.array(0.0), OPTIMIZER, (key for key in keys), **options), right)


def test_validation_patience_and_callback_see_a_stream():
    seen = []
    stopping = ds.EarlyStopping(validation=lambda model: loss(model, ROWS[0]), patience=3)
    options = {"early_stopping": stopping, "callback": lambda progress: seen.append(progress.step)}
    right, seen_right = fit(DATA, **options), list(seen)
    seen.clear()
    assert same(fit(iter(ROWS), **options), right)
    assert seen == seen_right


def failing(after: int):
    yield from ROWS[:after]
    raise OSError("disk removed")


@pytest.mark.parametrize("after", [1, 7, 9, 39])
def test_a_failing_stream_keeps_the_model(after):
    with pytest.raises(ds.FitError, match=f"failed at batch {after}: OSError: disk removed") as caught:
        fit(failing(after), steps=40)
    assert isinstance(caught.value.__cause__, OSError)
    model, history = fit(jax.tree.map(lambda leaf: leaf[:after], DATA), steps_per_call=7)
    assert np.array_equal(caught.value.history.loss, history.loss)
    assert eqx.tree_equal(caught.value.model, model)
    assert caught.value.history.stopped == "stream"


def test_a_stream_that_ends_too_early_keeps_the_model():
    with pytest.raises(ds.FitError, match="ended after 40 of 50 steps: give steps=40") as caught:
        fit(iter(ROWS), steps=50)
    assert eqx.tree_equal(caught.value.model, fit(DATA)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: jax.tree.map(lambda leaf: leaf[:5], row), r"batch 9\['x'\] has shape \(5, 2\).*drop_last=True"),
        (lambda row: row | {"x": row["x"].astype(np.float32)}, r"batch 9\['x'\] has shape .* dtype float32"),
        (lambda row: row["x"], "batch 9 has the structure"),
        (lambda row: row | {"x": "words"}, r"batch 9\['x'\] has dtype <U5: give numbers"),
    ],
)
def test_a_batch_unlike_the_first_is_named(change, message):
    with pytest.raises(ds.FitError, match=message) as caught:
        fit([*ROWS[:9], change(ROWS[9]), *ROWS[10:]].__iter__())
    assert caught.value.history.loss.shape == (9,)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        (iter([]), {}, "a list_iterator has no batch"),
        (iter(ROWS), {"epochs": 2}, "epochs=2: a list_iterator is passed through once"),
        (Loader(ROWS), {"epochs": 2, "steps": 3}, "steps=3 and epochs=2 were both given"),
        (Loader(ROWS), {"steps": 0}, "steps=0: give a whole number"),
        (Loader(ROWS), {"checkpoint": "fit.npz"}, "a Loader cannot tell where it stands"),
        (DATA, {"steps": 3}, "steps=3 is for streams"),
        (Loader(["text"]), {}, "batch 0 has dtype <U4: give numbers"),
    ],
)
def test_streams_that_cannot_be_used_are_refused(batches, options, message):
    with pytest.raises(ds.InputError, match=message):
        fit(batches, **options)


def test_a_loss_that_is_not_finite_names_the_step_of_a_stream():
    bad = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), ROWS[0])
    with pytest.raises(ds.FitError, match=r"at step 17; .*holds NaN") as caught:
        fit(iter([*ROWS[:17], bad, *ROWS[18:]]))
    assert np.isfinite(caught.value.history.loss[:17]).all()
    assert np.isnan(caught.value.history.loss[17])


def test_the_live_plot_and_the_callback_know_the_length_if_the_stream_does():
    totals = []
    note = lambda progress: totals.append(progress.total)
    with ds.train.LivePlot(console=Console(file=io.StringIO())) as live:
        fit(iter(ROWS), callback=ds.train.callbacks(note, live))
    fit(Loader(ROWS), callback=note)
    assert set(totals[:6]) == {None}
    assert set(totals[6:]) == {40}


def grain_stream(seed=3):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(ROWS).seed(seed).shuffle().repeat().to_iter_dataset()


STREAMS = {"function": lambda: ds.train.ResumableStream(lambda step: iter(ROWS[step:])), "grain": grain_stream}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_resumed_stream_has_the_same_bits(tmp_path, kind, interrupted):
    path = ds.Checkpoint(tmp_path / "fit.npz", seconds=0.0)
    right = fit(STREAMS[kind](), steps=40)
    for step in (7, 21, 28):
        interrupted(fit, STREAMS[kind](), steps=40, checkpoint=path, step=step)
    assert same(fit(STREAMS[kind](), steps=40, checkpoint=path), right)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_fit_that_was_shorter_than_a_call_goes_on(tmp_path, kind):
    """Behind 5 steps, in calls of 50 by default."""
    options = {"steps_per_call": 50, "checkpoint": tmp_path / "fit.npz"}
    fit(STREAMS[kind](), steps=5, **options)
    assert same(fit(STREAMS[kind](), steps=35, **options), fit(STREAMS[kind](), steps=35))


def test_a_resumable_stream_without_steps_is_trained_in_whole_calls(from_arrays):
    seen = []
    note = lambda progress: seen.append((progress.step, progress.total))
    assert same(fit(STREAMS["function"](), callback=note), from_arrays)
    assert seen == [(step, None) for step in (7, 14, 21, 28, 35, 40)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_finished_fit_of_a_stream_goes_on_with_more_steps(tmp_path, kind):
    right = fit(STREAMS[kind](), steps=35)
    fit(STREAMS[kind](), steps=21, checkpoint=tmp_path / "fit.npz")
    assert same(fit(STREAMS[kind](), steps=35, checkpoint=tmp_path / "fit.npz"), right)
    assert same(fit(STREAMS[kind](), steps=35, checkpoint=tmp_path / "fit.npz"), right)


def test_the_checkpoint_of_another_stream_is_refused(tmp_path):
    fit(STREAMS["function"](), steps=14, checkpoint=tmp_path / "fit.npz")
    with pytest.raises(ds.InputError, match="another set of batches"):
        fit(ds.train.ResumableStream(lambda step: iter(ROWS[5 + step :])), steps=14, checkpoint=tmp_path / "fit.npz")


@pytest.mark.parametrize("optimizer", [OPTIMIZER, optax.sgd(optax.cosine_decay_schedule(0.1, 40), momentum=0.9)])
def test_a_fit_continues_with_its_optimizer_state(optimizer):
    part = lambda *ends: jax.tree.map(lambda leaf: leaf[slice(*ends)], DATA)
    run = lambda model, batches, **options: ds.fit(loss, model, optimizer, batches, progress=False, **options)
    whole, history = run(network(), DATA)
    model, first = run(network(), part(0, 25))
    model, second = run(model, part(25, 40), optimizer_state=first.optimizer_state)
    assert np.array_equal(np.concatenate([first.loss, second.loss[:1]]), history.loss[:26])
    # The bounds of BoundedMLP are of its output: its weights have no transform that would round.
    assert eqx.tree_equal(model, whole)
    assert np.array_equal(second.loss, history.loss[25:])


def test_the_state_of_another_optimizer_is_refused():
    _, history = fit(DATA)
    with pytest.raises(ds.InputError, match="optimizer_state is of another optimizer, model or filter_spec"):
        ds.fit(loss, network(), optax.sgd(0.1), DATA, progress=False, optimizer_state=history.optimizer_state)


def test_no_thread_is_left_behind():
    fit(itertools.cycle(ROWS), steps=7)
    stopping = ds.EarlyStopping(validation=lambda model: jnp.array(1.0), patience=1)
    fit(itertools.cycle(ROWS), steps=700, early_stopping=stopping)
    time.sleep(0.2)
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_a_pytorch_loader():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.as_tensor(X.reshape(-1, 2)), torch.as_tensor(DATA["y"].ravel()))
    pairs = lambda model, batch: loss(model, {"x": batch[0], "y": batch[1]})
    model, history = ds.fit(
        pairs, network(), OPTIMIZER, DataLoader(data, batch_size=8), steps_per_call=7, progress=False
    )
    assert history.loss.shape == (40,)
    assert eqx.tree_equal(model, fit(DATA)[0])
    with pytest.raises(ds.FitError, match="drop_last=True"):
        ds.fit(pairs, network(), OPTIMIZER, DataLoader(data, batch_size=30), progress=False)


KILLED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax
jax.config.update("jax_enable_x64", True)
import test_stream as t, diffsim as ds
model, history = t.fit(
    t.grain_stream(), steps=3000, checkpoint=ds.Checkpoint(sys.argv[1], seconds=0.0), callback=lambda p: print(p.step)
)
ds.save(sys.argv[2], (model, history.loss))
"""


@pytest.mark.exhaustive
def test_a_killed_fit_of_a_stream_resumes_bit_for_bit(tmp_path):
    """20 fits, each killed by the system at a random moment of its steps, and one that was not."""
    pytest.importorskip("grain")
    own = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    run = lambda *words: [sys.executable, "-c", KILLED, *(str(tmp_path / word) for word in words)]
    subprocess.run(run("whole.npz", "right.npz"), env=own, check=True, capture_output=True)
    right, rng = ds.io.checkpoint.read(tmp_path / "right.npz").leaves, np.random.default_rng(0)
    for index in range(20):
        words = run(f"{index}.npz", f"result-{index}.npz")
        process = subprocess.Popen(words, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        subprocess.run(words, env=own, check=True, capture_output=True)
        leaves = ds.io.checkpoint.read(tmp_path / f"result-{index}.npz").leaves
        assert all(np.array_equal(leaves[name].value, leaf.value) for name, leaf in right.items()), index


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_the_stream():
    """10,000 batches of 1.3 MB, thirteen gigabytes in all, of which never more than a few calls are in memory."""

    def big():
        rng = np.random.default_rng(0)
        while True:
            yield rng.normal(size=(16, 10_000)) if rng.integers(10) == 0 else np.ones((16, 10_000))

    peaks = []
    note = lambda progress: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # MB
    narrow = lambda x, batch: jnp.mean(jnp.square(x - jnp.mean(batch)))
    ds.fit(
        narrow, jnp.array(1.0), optax.sgd(0.01), big(), steps=10_000, steps_per_call=20, progress=False, callback=note
    )
    assert peaks[-1] - peaks[20] < 60
    assert peaks[-1] < 0.1 * 10_000 * 1.28
