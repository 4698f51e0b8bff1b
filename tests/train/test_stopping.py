"""Early ends of a fit and its reports: validation, patience, minutes, metrics, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds

START = jnp.array(0.0)
RATE = optax.sgd(1.0)
# Unit steps: the model after n steps is n.
UP = lambda x, _: -x


def fit(steps=100, **options):
    options = {"steps_per_call": 10, "progress": False} | options
    return ds.fit(UP, START, RATE, jnp.zeros(steps), **options)


def test_the_model_with_the_least_validation_loss_is_returned():
    model, history = fit(early_stopping=ds.EarlyStopping(validation=lambda x: (x - 42.0) ** 2))
    assert model == 40.0
    assert np.array_equal(history.validation, (np.arange(10.0, 101.0, 10.0) - 42.0) ** 2)
    assert history.loss.shape == (100,)
    assert history.stopped == ""


def test_patience_ends_a_fit():
    model, history = fit(early_stopping=ds.EarlyStopping(validation=lambda x: (x - 42.0) ** 2, patience=3))
    assert model == 40.0
    assert np.array_equal(history.loss, -np.arange(70.0))
    assert history.validation.shape == (7,)
    assert history.stopped == "patience"


def test_nan_is_never_an_improvement():
    validation = lambda x: jnp.where(x > 35.0, jnp.nan, 100.0 - x)
    model, history = fit(early_stopping=ds.EarlyStopping(validation=validation, patience=4))
    assert model == 30.0
    assert np.isnan(history.validation[3:]).all()
    assert history.loss.shape == (70,)
    _, history = fit(early_stopping=ds.EarlyStopping(validation=lambda x: x * jnp.nan, patience=4))
    assert history.loss.shape == (40,)


def test_a_fit_that_lost_its_patience_does_not_resume(tmp_path):
    early_stopping = ds.EarlyStopping(validation=lambda x: (x - 42.0) ** 2, patience=3)
    first = fit(early_stopping=early_stopping, checkpoint=tmp_path / "fit.npz")
    seen = []
    again = fit(early_stopping=early_stopping, checkpoint=tmp_path / "fit.npz", callback=seen.append)
    assert seen == []
    assert again[0] == first[0] == 40.0
    assert again[1].stopped == "patience"


@pytest.mark.parametrize(
    ("early_stopping", "message"),
    [
        (ds.EarlyStopping(patience=3), "patience needs a validation loss"),
        (ds.EarlyStopping(validation=lambda x: x * jnp.ones(2)), r"the validation loss has shape \(2,\)"),
    ],
)
def test_invalid_early_stopping(early_stopping, message):
    with pytest.raises(ds.InputError, match=message):
        fit(early_stopping=early_stopping)


def test_minutes_end_a_fit_which_can_resume(tmp_path):
    path = tmp_path / "fit.npz"
    slow = lambda _: time.sleep(0.02)
    began = time.monotonic()
    model, history = fit(100_000, early_stopping=ds.EarlyStopping(minutes=0.5 / 60), callback=slow, checkpoint=path)
    # Half a second, and the call in progress, saving and compiling.
    assert time.monotonic() - began < 10.0
    assert history.stopped == "minutes"
    assert 0 < len(history.loss) < 100_000
    assert model == len(history.loss)
    more, history_2 = fit(100_000, early_stopping=ds.EarlyStopping(minutes=0.5 / 60), callback=slow, checkpoint=path)
    assert more == len(history_2.loss) > len(history.loss)
    assert history_2.seconds > history.seconds


def test_what_a_callback_receives():
    reports = []
    fit(25, callback=lambda progress: reports.append((progress, progress.model())), non_finite="skip")
    assert [progress.step for progress, _ in reports] == [10, 20, 25]
    assert [float(model) for _, model in reports] == [10.0, 20.0, 25.0]
    assert np.array_equal(np.concatenate([progress.losses for progress, _ in reports]), -np.arange(25.0))
    assert all(progress.validation is None and not progress.dropped.any() for progress, _ in reports)


def test_metrics_of_an_interrupted_fit_are_those_of_an_uninterrupted_one(tmp_path):
    class Stop(Exception):
        pass

    def run(name, end=100):
        metrics = ds.train.MetricsFile(tmp_path / f"{name}.jsonl")

        def callback(progress):
            metrics(progress)
            if progress.step == end:
                raise Stop

        bad = jnp.arange(95) == 33
        loss = lambda x, bad: jnp.where(bad, jnp.nan, -x)
        early_stopping = ds.EarlyStopping(validation=lambda x: (x - 42.0) ** 2)
        saved = ds.Checkpoint(tmp_path / f"{name}.npz", calls=2)
        options = {"steps_per_call": 10, "progress": False, "non_finite": "skip"}
        ds.fit(loss, START, RATE, bad, callback=callback, early_stopping=early_stopping, checkpoint=saved, **options)

    run("complete")
    with pytest.raises(Stop):
        run("cut", end=60)
    # A line truncated by a crash, after one beyond the last checkpoint.
    with (tmp_path / "cut.jsonl").open("a") as file:
        file.write('{"step": 70, "lo')
    run("cut")
    text = (tmp_path / "complete.jsonl").read_text()
    assert (tmp_path / "cut.jsonl").read_text() == text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]
    assert lines[0] == {"step": 10, "loss": -9.0, "mean": -4.5, "dropped": 0, "validation": 1024.0}
    assert lines[3] == {"step": 40, "loss": -38.0, "mean": None, "dropped": 1, "validation": 9.0}


INTERRUPTED = """
import signal, sys, time
import jax.numpy as jnp, optax
import diffsim as ds

# A shell starts background processes with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def callback(progress):
    print(progress.step, flush=True)
    time.sleep(0.01)

saved = ds.Checkpoint(sys.argv[1], seconds=1e9)
steps = jnp.zeros(int(sys.argv[2]))
ds.fit(lambda x, _: -x, jnp.array(0.0), optax.sgd(1.0), steps, steps_per_call=10, checkpoint=saved, callback=callback)
"""


def test_control_c_saves_and_says_how_to_resume(tmp_path):
    path, root = tmp_path / "fit.npz", Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", INTERRUPTED, str(path), "1000000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
    step = int(ds.io.checkpoint.read(path).leaves["done"].value)
    assert f"interrupted: step {step} of 1000000 is saved in {path}; the same call resumes from there" in err
    # The last step shown is the one that is saved, or the one before it if the signal came as it was shown.
    shown = int(out.split()[-1]) if out.split() else 50
    assert step in (shown, shown - 10)
