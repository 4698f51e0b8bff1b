"""The compilation cache in a second process, causes of compilations, and messages during them."""

import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim.train.progress import ProgressBar, title

# A fit and a solve: nothing that diffrax and equinox put into a program may prevent a cache hit.
TWICE = """
import sys
import diffsim as ds, jax, jax.numpy as jnp, optax
misses, hits = [], []
count = {"/jax/compilation_cache/cache_misses": misses, "/jax/compilation_cache/cache_hits": hits}
jax.monitoring.register_event_listener(lambda event, **_: count.get(event, []).append(event))
ds.compilation.cache_compilation(sys.argv[1])
def loss(rate, start):
    return ds.integrate(lambda t, y, rate: -rate * y, start, jnp.array([0.0, 1.0]), rate, max_steps=32)[-1] ** 2
ds.fit(loss, jnp.array(1.0), optax.adam(1e-2), jnp.ones(4), progress=False)
print(len(misses), len(hits))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    def run():
        command = [sys.executable, "-c", TWICE, str(tmp_path / "made" / "here")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return [int(word) for word in done.stdout.split()]

    missed, _ = run()
    assert missed > 0
    missed_again, hit = run()
    assert missed_again == 0
    assert hit >= missed


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ds.InputError, match=r"file cannot keep compiled programs: .*; give a folder to write in"):
        ds.compilation.cache_compilation(tmp_path / "file")


def test_the_argument_that_made_a_function_compile_again_is_named():
    @eqx.filter_jit
    def f(model, x, *, power=2):
        return jnp.sum(model["weight"]) * jnp.sum(x**power)

    counted = ds.compilation.count_compilations(f)
    small, model = np.ones(3), {"weight": jnp.ones(3)}
    for args, options in [
        ((model, small), {}),
        ((model, small + 1), {}),
        ((model, small.astype(np.float32)), {}),
        ((model, np.ones((2, 3))), {}),
        ((model, small), {"power": 3}),
        ((model, small), {"power": 4}),
        (({"weight": jax.device_put(jnp.ones(3), jax.devices()[0])}, small), {}),
        ((model, small), {"power": 4}),
    ]:
        counted(*args, **options)
    assert counted.causes[:5] == [
        "first call",
        "args[1] has dtype float32, before float64",
        "args[1] has shape (2, 3), before (3,)",
        "power is new",
        "power has number 4, before 3",
    ]
    # With some versions of JAX arrays placed on a device compile again, and are then named as the cause.
    assert all("args[0]['weight'] has sharding" in cause for cause in counted.causes[5:])
    assert counted.count == len(counted.causes)
    assert counted.seconds > 0


def test_a_fresh_function_each_call_is_told_from_other_arguments():
    counted = ds.compilation.count_compilations(lambda x: jax.jit(lambda x: x + 1)(x))
    counted(np.ones(3))
    counted(np.ones(3))
    assert counted.causes == ["first call", "the same arguments"]


def test_a_compilation_is_told_once_without_a_terminal_and_only_if_it_takes_long(capfd, monkeypatch):
    monkeypatch.setattr("diffsim.train.progress._SECONDS_BETWEEN_LINES", 0.05)
    for shown, seconds in ((True, 0.2), (True, 0.0), (False, 0.2)):
        with ProgressBar(3, shown) as bar, bar.compiling(title):
            time.sleep(seconds)
        said = capfd.readouterr().err
        assert said == ("compiling progress.title, 0 s so far\n" if shown and seconds else "")


def test_a_terminal_sees_what_compiles_for_how_long(capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressBar(3) as bar:
        with bar.compiling(title):
            time.sleep(0.3)
        bar.show(1, 0.5)
    said = capfd.readouterr().err
    assert "compiling progress.title, 0 s" in said
    assert "loss 0.5" in said
