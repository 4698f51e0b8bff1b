"""Fits on several devices and processes: the numbers of one device, files from one process, bounded time."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import diffsim as ds

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "sharing.py"
CACHE = str(ROOT / ".cache" / "jax")


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def start(folder, devices, count, index, port, *task):
    words = [sys.executable, SCRIPT, folder, devices, count, index, port, *task]
    own = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": CACHE}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(word) for word in words], env=os.environ | own, **pipes)


def share(folder, devices, count, *task, codes=None):
    """The outputs of the processes of a fit, which must end with the exit codes `codes`, by default 0."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    processes = [start(folder, devices, count, index, port, *task) for index in range(count)]
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    exit_codes = [process.returncode for process in processes]
    assert exit_codes == (codes or [0] * count), f"{exit_codes}: {said[0][-2000:]}"
    return said


def result(folder, index=0):
    return ds.io.checkpoint.read(folder / f"result-{index}").leaves


def assert_equal(folder, other, index=0):
    """The results of two fits, their losses and parameters, are the same but for rounding."""
    actual, expected = result(folder, index), result(other)
    assert actual.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(actual[name].value, leaf.value, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the fit on one device."""
    folder = tmp_path_factory.mktemp("alone")
    share(folder, 1, 1, "one")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "count"), [(8, 1), (1, 2), (2, 2)])
def test_many_devices_and_processes_give_the_numbers_of_one(tmp_path, alone, devices, count):
    said = share(tmp_path, devices, count)
    for index in range(count):
        assert_equal(tmp_path, alone, index)
    # Only one process writes files and messages.
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert ["step 10/10" in words for words in said] == [True] + [False] * (count - 1)


@pytest.mark.slow
def test_a_fit_resumes_with_another_number_of_devices(tmp_path, alone):
    first = tmp_path / "first"
    share(first, 8, 1, "stop", codes=[7])
    assert not (first / "result-0").exists()
    for devices, count in ((1, 2), (1, 1)):
        other = tmp_path / f"{devices}-{count}"
        shutil.copytree(first, other)
        share(other, devices, count)
        assert_equal(other, alone)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_fit_in_bounded_time_and_nothing_is_lost(tmp_path, alone):
    began = time.monotonic()
    port = free_port()
    processes = [start(tmp_path, 1, 2, index, port, "die") for index in range(2)]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert processes[1].returncode == 9
    assert processes[0].returncode != 0
    assert "another process was lost" in said[0] or "JAX distributed service detected fatal errors" in said[0]
    assert time.monotonic() - began < 120
    share(tmp_path, 8, 1)
    assert_equal(tmp_path, alone)


@pytest.mark.slow
def test_processes_stop_together_when_the_time_is_up(tmp_path):
    share(tmp_path, 1, 2, "minutes")
    losses = [result(tmp_path, index)["1"].value for index in range(2)]
    assert len(losses[0]) == len(losses[1]) == 3


def squares(model, batch):
    return jnp.mean((model * batch) ** 2)


def test_devices_that_cannot_share_a_batch_are_refused():
    # Both devices of this process are the same, which is sufficient for counting.
    two = 2 * jax.devices()
    fit = lambda batches: ds.fit(squares, jnp.array(1.0), optax.sgd(0.1), batches, devices=two, progress=False)
    with pytest.raises(ds.InputError, match="2 devices cannot share batches of 3 items: give a multiple of 2, or a"):
        fit(jnp.ones((5, 3)))
    with pytest.raises(ds.InputError, match=r"a batch of shape \(\) has no axis of items"):
        fit(jr.split(jr.key(0), 5))
    with pytest.raises(ds.InputError, match="devices has none of process 0"):
        ds.fit(squares, jnp.array(1.0), optax.sgd(0.1), jnp.ones((5, 3)), devices=[], progress=False)


def test_processes_that_cannot_meet_say_why():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ds.InputError, match=f"port {port} cannot be used: .*; give another to all processes"):
            ds.train.join_processes(f"127.0.0.1:{port}", 2, 0)
    began = time.monotonic()
    with pytest.raises(ds.RunError, match=r"process 0 does not listen at 127\.0\.0\.1:\d+ after 1 s"):
        ds.train.join_processes(f"127.0.0.1:{free_port()}", 2, 1, seconds=1)
    assert time.monotonic() - began < 10
    with pytest.raises(ds.InputError, match="give HOST:PORT"):
        ds.train.join_processes("here", 2, 0)
    with pytest.raises(ds.InputError, match="numbered from 0 to count - 1"):
        ds.train.join_processes("127.0.0.1:1", 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "count"), [(8, 1), (1, 2), (2, 2)])
def test_processes_with_streams_of_their_own_give_the_numbers_of_one(tmp_path, alone, devices, count):
    share(tmp_path, devices, count, "stream")
    for index in range(count):
        assert_equal(tmp_path, alone, index)


@pytest.mark.slow
def test_processes_with_streams_resume(tmp_path, alone):
    share(tmp_path, 1, 2, "stop-stream", codes=[7, -6])
    share(tmp_path, 1, 2, "stream")
    assert_equal(tmp_path, alone)


@pytest.mark.slow
def test_a_stream_that_ends_in_one_process_ends_the_fit_in_all(tmp_path):
    said = share(tmp_path, 1, 2, "short", codes=[1, 1])
    assert "the stream of process 1 ended or failed before those of the others" in said[0]
