"""Training of the noisy chain: its constants are fitted first, and all ways of the ablation take as many steps."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.image import ColorMatrix, WhiteBalance, pretrained, sensor
from diffsim.image.demosaicing.noise_conditioned import GREATEST, LEAST
from diffsim.image.io.pictures import write_picture
from diffsim.image.sensor import CAMERA
from diffsim.image.stages.variance_stabilization import unstabilize_variance
from diffsim.image.training import patches, stagewise, train_chain
from diffsim.train.history import History

WIDTHS = (4, 4)


@pytest.fixture(scope="module")
def chain():
    single = lambda x: x.astype(jnp.float32)
    return jax.tree.map(single, pretrained.untrained("noisy", WIDTHS, key=jr.key(0)))


@pytest.fixture(scope="module")
def squares():
    """Patches of smooth waves in three colours, and of squares of colour."""
    y, x = np.mgrid[:96, :96] / 96
    waves = np.stack([np.sin(5 * x + 2 * y), np.sin(7 * y - 1), np.cos(4 * x * y + 3 * y)])
    colors = np.repeat(np.repeat(np.asarray(jr.uniform(jr.key(2), (3, 4, 4))), 24, 1), 24, 2)
    pictures = [(127.5 + 120 * waves).astype(np.uint8), (255 * colors).astype(np.uint8)]
    return jnp.asarray(patches.cut(pictures, 48, 12))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_constants_are_the_cameras_before_the_network_learns(chain, squares, seed):
    trained = train_chain.with_constants(chain, squares, key=jr.key(seed))
    balance, matrix = trained.stages["balance"], trained.stages["color"].matrix
    # A stochastic fit of finite length: about five times the errors of three seeds.
    assert abs(balance.black - CAMERA.black) < 1e-3
    np.testing.assert_allclose([balance.red, balance.blue], [CAMERA.red, CAMERA.blue], rtol=0.005)
    np.testing.assert_allclose(matrix, CAMERA.matrix, atol=0.013)
    for name in ("demosaic", "sharpen"):
        before, after = (ds.parameters(x.stages[name]) for x in (chain, trained))
        assert all(np.array_equal(before[path].value, after[path].value) for path in before)


@pytest.mark.parametrize("steps", [1, 10, 950, 19_000])
def test_one_by_one_takes_as_many_steps_as_all_together(chain, squares, steps, monkeypatch):
    counts = []

    def fit(loss, model, optimizer, batches, *, filter_spec, devices, checkpoint=None):
        counts.append(len(batches))
        return model, History(np.zeros(len(batches)), 0.0, 0.0)

    monkeypatch.setattr(train_chain, "fit", fit)
    train_chain.train("noisy", chain, squares, steps, key=jr.key(0))
    assert counts == [train_chain.CONSTANTS, steps]
    counts.clear()
    stagewise.one_by_one(chain, squares, steps, key=jr.key(0))
    assert sum(counts) == train_chain.CONSTANTS + steps
    network, few = stagewise.shares(chain, steps)
    assert counts == [few, few, few, few, few, network, few]
    assert 0 < few <= 100
    assert network >= 3 * few


@pytest.mark.slow
@pytest.mark.parametrize("own_targets", [False, True])
def test_one_by_one_trains_every_stage(chain, squares, own_targets):
    trained = stagewise.one_by_one(chain, squares, 20, key=jr.key(0), own_targets=own_targets)
    before, after = ds.parameters(chain), ds.parameters(trained)
    assert before.keys() == after.keys()
    stay = {name for name in before if np.array_equal(before[name].value, after[name].value)}
    assert stay == {"stages.demosaic.noise"}  # which is given, not learned


def test_the_noise_of_a_training_reaches_from_none_to_the_greatest():
    noises = jax.vmap(lambda key: train_chain.random_noise(key, 0.25))(jr.split(jr.key(0), 2000))
    relative = np.asarray(jax.vmap(sensor.relative_noise)(noises))
    none = relative == 0.0
    assert abs(none.mean() - 0.25) < 0.04  # four standard deviations
    assert 4.0**LEAST * 0.99 < relative[~none].min() < 4.0 ** (LEAST + 0.2)
    assert 4.0 ** (GREATEST - 0.1) < relative.max() < 4.0**GREATEST * 1.01


def test_a_folder_adds_the_patches_that_are_hard_to_demosaick(tmp_path):
    x = np.arange(288)
    picture = np.broadcast_to(0.5 + 0.4 * (x > 144) * (-1.0) ** (x // 3), (3, 144, 288))
    write_picture(tmp_path / "a.png", picture)
    own, both = train_chain.squares(mined=True), train_chain.squares(tmp_path, mined=True)
    added = np.asarray(both[len(own) :]).astype(int)
    np.testing.assert_array_equal(both[: len(own)], own)
    # Half of 40 patches, and half of 4 at half the size; the left of the picture is flat.
    assert len(added) == 22
    assert all(np.ptp(square) > 0 for square in added)


def test_the_target_of_a_stage_is_the_cameras_stage_of_the_target_before(squares):
    """Stages with the known constants of the camera, one after the other."""
    picture = 0.1 + 0.7 * squares[0].astype(jnp.float32) / 255
    target = lambda name: stagewise.own_target(name, picture)
    balance = WhiteBalance(*jnp.array([CAMERA.black, CAMERA.red, CAMERA.blue]))
    mixing = jnp.array([CAMERA.matrix[i][j] for i in range(3) for j in range(3) if i != j])
    color = eqx.tree_at(lambda c: c.mixing, ColorMatrix(), mixing)
    np.testing.assert_allclose(balance(sensor.unprocess(picture)), target("balance"), atol=1e-4)  # of 14 bits
    np.testing.assert_allclose(color(unstabilize_variance(target("demosaic"))), target("color"), atol=1e-5)
    toned = 3 * target("gamma") ** 2 - 2 * target("gamma") ** 3
    np.testing.assert_allclose(toned, target("tone"), atol=1e-5)
    np.testing.assert_array_equal(target("tone"), picture)


DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 3)
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from diffsim.image import pretrained
from diffsim.image.training import train_chain

chain = pretrained.untrained("demosaic", (4,), key=jr.key(0))
squares = jr.randint(jr.key(1), (20, 3, 32, 32), 0, 256).astype(jnp.uint8)
histories, fit = [], train_chain.fit
for one in (False, True):
    def on(*arguments, devices, **options):
        assert len(devices) == 2  # three do not divide a batch of eight
        return fit(*arguments, devices=None if one else devices, **options)
    train_chain.fit = on
    histories.append(train_chain.train("demosaic", chain, squares, 6, key=jr.key(2))[1].loss)
# Another order of summation, in single precision.
np.testing.assert_allclose(*histories, rtol=1e-4)
"""


@pytest.mark.slow
def test_devices_share_the_batches_of_a_training():
    # The number of devices is fixed when a process starts to use them.
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
