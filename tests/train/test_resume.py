"""Interrupted and resumed fits: the same bits as without interruption, and other checkpoints are not changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import diffsim as ds

ROOT = Path(__file__).parents[2]
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(1e-2, 40))
KEYS = jr.split(jr.key(1), 40)


def loss(model, key):
    x = jr.normal(key, (8, 2))
    return jnp.mean((jax.vmap(model)(x) - jnp.sin(x[:, 0])) ** 2)


def network(seed=0, width=4):
    return ds.BoundedMLP(2, -1.0, 1.0, width=width, key=jr.key(seed))


def fit(path, model=None, optimizer=OPTIMIZER, batches=KEYS, **options):
    """A fit of 40 steps in calls of 7, saved after each."""
    saved = None if path is None else ds.Checkpoint(path, seconds=0.0)
    options = {"steps_per_call": 7, "progress": False, "checkpoint": saved} | options
    return ds.fit(loss, model or network(), optimizer, batches, **options)


def arrays(model):
    """The arrays of a model, keys as their data."""
    plain = lambda x: jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return [np.asarray(plain(x)) for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def assert_same(one, other):
    (model, history), (model_2, history_2) = one, other
    pairs = zip(arrays(model), arrays(model_2), strict=True)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert np.array_equal(history.loss, history_2.loss, equal_nan=True)
    assert history.loss.dtype == history_2.loss.dtype
    assert history.dropped == history_2.dropped


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.npz"


@pytest.mark.parametrize("step", [1, 8, 21, 40])
def test_an_interrupted_fit_ends_with_the_same_bits(path, step, interrupted):
    interrupted(fit, path, step=step)
    steps = []
    resumed = fit(path, callback=lambda progress: steps.append(progress.step))
    assert_same(resumed, fit(None))
    # It resumed from the interrupted call, not from an earlier one.
    assert steps == [s for s in (7, 14, 21, 28, 35, 40) if s >= step]
    # A completed fit ends immediately.
    again = fit(path, callback=lambda progress: pytest.fail("a step was made"))
    assert_same(again, resumed)
    assert again[1].compile_seconds == 0.0


def test_what_is_random_or_frozen_in_a_model_resumes_too(path, interrupted):
    class Noisy(eqx.Module):
        weight: ds.Scalar = ds.param(0.5, bounds=(0.0, 1.0))
        key: jax.Array = eqx.field(default_factory=lambda: jr.key(7))
        weak: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(1.0))

        def __call__(self, x):
            return self.weight * x[0] + self.weak * jr.normal(self.key)

    interrupted(fit, path, Noisy(), step=20)
    assert_same(fit(path, Noisy()), fit(None, Noisy()))


OTHERS = {
    "steps": ({"batches": KEYS[:30]}, r"steps is 40, here 30"),
    "steps per call": ({"steps_per_call": 8}, r"steps_per_call is 7, here 8"),
    "batches": ({"batches": KEYS[::-1]}, r"another set of batches"),
    "start": ({"model": network(seed=1)}, r"another starting model"),
    "shape": ({"model": network(width=5)}, r"weight has shape \(4, 2\), expected \(5, 2\)"),
    "rate": ({"optimizer": optax.adam(2e-2)}, r"another optimizer"),
    "schedule": ({"optimizer": optax.adam(optax.cosine_decay_schedule(1e-2, 41))}, r"another optimizer"),
    "opt_state": ({"optimizer": optax.sgd(1e-2)}, r"another optimizer; state\.opt_state\..*mu.* is unknown"),
    "frozen": ({"filter_spec": ds.trainable(network(), "*.weight")}, r"bias is unknown"),
    "validation": ({"early_stopping": ds.EarlyStopping(validation=lambda m: loss(m, KEYS[0]))}, r"best.* is missing"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_the_checkpoint_of_another_fit_is_refused_and_not_changed(path, case, interrupted):
    options, message = OTHERS[case]
    interrupted(fit, path, step=20)
    before = path.read_bytes()
    with pytest.raises(ds.InputError, match=rf"is of another fit: .*{message}.* or another path for a new fit"):
        fit(path, **options)
    assert path.read_bytes() == before


def test_a_file_that_is_no_fit_or_damaged_is_refused_and_not_changed(path):
    ds.save(path, {"a": 1})
    with pytest.raises(ds.InputError, match=r"fit\.npz holds no fit: give another path"):
        fit(path)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ds.InputError, match=r"fit\.npz is .*damaged at its end"):
        fit(path)
    assert path.read_bytes().endswith(b"\0")
    with pytest.raises(ds.InputError, match=r"the folder .* does not exist"):
        fit(path.parent / "absent" / "fit.npz")


def test_a_checkpoint_of_another_jax_resumes_with_a_message(path, monkeypatch, capfd, interrupted):
    interrupted(fit, path, step=20)
    real = ds.io.checkpoint.versions()
    monkeypatch.setattr("diffsim.train.snapshot.versions", lambda: real | {"jax": "99.0"})
    fit(path)
    assert re.search(r"was saved by jax [\d.]+, here 99\.0: the rest may differ in rounding", capfd.readouterr().err)


def test_how_often_a_fit_is_saved(path, monkeypatch):
    saved = []
    note = lambda path, leaves, about: saved.append(int(leaves["done"].value))
    monkeypatch.setattr("diffsim.train.snapshot.write", note)
    expected = {(0.0, None): [0, 7, 14, 21, 28, 35, 40], (1e9, None): [0, 40], (1e9, 2): [0, 14, 28, 40]}
    for options, steps in expected.items():
        saved.clear()
        fit(path, checkpoint=ds.Checkpoint(path, *options))
        assert saved == steps


def test_a_full_disk_stops_the_fit_and_keeps_the_last_checkpoint(path, monkeypatch):
    def fill(progress):
        if progress.step == 14:
            monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(ds.RunError, match=r"fit\.npz was not saved: No space left on device"):
        fit(path, callback=fill)
    monkeypatch.undo()
    steps = []
    assert_same(fit(path, callback=lambda progress: steps.append(progress.step)), fit(None))
    assert steps[0] == 14


def test_a_failed_fit_leaves_the_last_healthy_checkpoint_and_can_resume_with_another_policy(path):
    def breaking(model, batch):
        key, bad = batch
        return jnp.where(bad, jnp.nan, loss(model, key))

    def run(policy, saved):
        batches = KEYS, jnp.arange(40) == 23
        options = {"steps_per_call": 7, "progress": False, "non_finite": policy, "checkpoint": saved}
        return ds.fit(breaking, network(), OPTIMIZER, batches, **options)

    saved = ds.Checkpoint(path, seconds=0.0)
    for _ in range(2):
        with pytest.raises(ds.FitError, match="loss nan at step 23 of 40"):
            run("stop", saved)
    model, history = run("skip", saved)
    assert history.dropped == 1
    expected, _ = run("skip", None)
    # The steps before the failure were computed by the program of another policy.
    for a, b in zip(arrays(model), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.exhaustive
def test_kills_at_random_moments_lose_nothing():
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "kill.py"), "3"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "3 of 3 the same to the last byte" in done.stdout


class Oscillator(eqx.Module):
    """A model with bounds of every kind."""

    mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.5, 4.0))
    rate: ds.Scalar = ds.param(1.0, "1/s", bounds=(0.0, np.inf))
    offset: ds.Scalar = ds.param(-1.0, bounds=(-np.inf, 0.0))
    phase: ds.Scalar = ds.param(0.3)


def of_oscillator(model, target):
    return (model.mass - target) ** 2 + (model.rate - 2.0) ** 2 + (model.offset + 3.0) ** 2 + (model.phase - 1.0) ** 2


@pytest.mark.parametrize("validated", [False, True])
def test_a_checkpoint_is_read_without_the_code_that_wrote_it(tmp_path, validated):
    path, targets = tmp_path / "fit.npz", jnp.linspace(1.0, 3.0, 30)
    stopping = ds.EarlyStopping(validation=lambda model: abs(model.mass - 2.1)) if validated else ds.EarlyStopping()
    options = {"progress": False, "checkpoint": path, "steps_per_call": 4, "early_stopping": stopping}
    model, history = ds.fit(of_oscillator, Oscillator(), OPTIMIZER, targets, **options)
    saved = ds.train.read_fit(path)
    assert saved.step == 30
    assert np.array_equal(saved.history.loss, history.loss)
    assert np.array_equal(saved.history.validation, history.validation) if validated else not saved.history.validation
    assert eqx.tree_equal(saved.model(Oscillator()), model)
    assert saved.settings["loss"].endswith("test_resume.of_oscillator")
    assert saved.settings["steps_per_call"] == 4
    assert saved.settings["parameters"]["rate"] == {"unit": "1/s", "bounds": [0.0, None]}
    # Fine-tuning goes on from there with another optimizer.
    finer, _ = ds.fit(of_oscillator, saved.model(Oscillator()), optax.sgd(0.01), targets, progress=False)
    assert float(of_oscillator(finer, 3.0)) < float(of_oscillator(model, 3.0))


def test_a_file_that_holds_no_fit_is_refused(tmp_path):
    ds.save(tmp_path / "model.npz", Oscillator())
    with pytest.raises(ds.InputError, match="holds no fit"):
        ds.train.read_fit(tmp_path / "model.npz")
