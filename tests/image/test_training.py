"""Training of the noisy chain: its constants are found first, and both ways of the ablation take the same steps."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.image import patches, stagewise, trained, training
from diffsim.image.sensor import CAMERA

WIDTHS = (4, 4)


@pytest.fixture(scope="module")
def chain():
    single = lambda x: x.astype(jnp.float32)
    return jax.tree.map(single, trained.untrained("noisy", WIDTHS, key=jr.key(0)))


@pytest.fixture(scope="module")
def squares():
    """Patches of smooth waves in three colours, and of squares of colour."""
    y, x = np.mgrid[:96, :96] / 96
    waves = np.stack([np.sin(5 * x + 2 * y), np.sin(7 * y - 1), np.cos(4 * x * y + 3 * y)])
    colours = np.repeat(np.repeat(np.asarray(jr.uniform(jr.key(2), (3, 4, 4))), 24, 1), 24, 2)
    pictures = [(127.5 + 120 * waves).astype(np.uint8), (255 * colours).astype(np.uint8)]
    return jnp.asarray(patches.cut(pictures, 48, 12))


@pytest.mark.parametrize("seed", [0, 1])
def test_constants_are_the_cameras_before_the_network_learns(chain, squares, seed):
    found = training.with_constants(chain, squares, key=jr.key(seed))
    balance, matrix = found.stages["balance"], found.stages["colour"].matrix
    # A stochastic fit of finite length: about five times the errors of three seeds.
    assert abs(balance.black - CAMERA.black) < 1e-3
    np.testing.assert_allclose([balance.red, balance.blue], [CAMERA.red, CAMERA.blue], rtol=0.005)
    np.testing.assert_allclose(matrix, CAMERA.matrix, atol=0.013)
    for name in ("demosaic", "sharpen"):
        before, after = (ds.parameters(x.stages[name]) for x in (chain, found))
        assert all(np.array_equal(before[path].value, after[path].value) for path in before)


@pytest.mark.parametrize("steps", [1, 10, 950, 19_000])
def test_one_by_one_takes_as_many_steps_as_all_together(chain, squares, steps, monkeypatch):
    counts = []

    def fit(loss, model, optimizer, batches, *, train, checkpoint=None):
        counts.append(len(batches))
        return model, None

    for module in (training, stagewise):
        monkeypatch.setattr(module, "fit", fit)
    training.train("noisy", chain, squares, steps, key=jr.key(0))
    assert counts == [training.CONSTANTS, steps]
    counts.clear()
    stagewise.one_by_one(chain, squares, steps, key=jr.key(0))
    assert sum(counts) == training.CONSTANTS + steps
    network, few = stagewise.shares(chain, steps)
    assert counts == [few, network, few, few, few, few, few]
    assert 0 < few <= 100
    assert network >= 3 * few
