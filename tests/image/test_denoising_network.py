"""The network for joint demosaicking and denoising: start, reach, gradients at difficult pixels, noise levels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim import image
from diffsim.image import pretrained, sensor
from diffsim.image.demosaicing.noise_conditioned import GREATEST, LEAST, NoiseConditionedLayer, noise_powers
from diffsim.image.training import evaluate, train_chain
from diffsim.testing import assert_gradients


def lively(key, widths=(3, 4)) -> image.DenoisingDemosaic:
    """A network without zero weights."""
    network = image.DenoisingDemosaic(widths, key=key)
    leaves, structure = jax.tree.flatten(network)
    keys = jr.split(jr.key(9), len(leaves))
    return jax.tree.unflatten(structure, [x + 0.1 * jr.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


def decided(key) -> image.DenoisingDemosaic:
    """A network whose offsets are larger than its stencils' sums: no difference crosses the kink of relu."""
    # An even number of channels: those that meet where both resolutions are added have offsets of one sign.
    network = lively(key, (4, 4))
    layer = lambda x: isinstance(x, NoiseConditionedLayer)
    sign = lambda count: jnp.where(jnp.arange(count) % 2 == 0, 2.0, -2.0)
    change = lambda x: eqx.tree_at(lambda a: (a.weight, a.bias), x, (0.1 * x.weight, sign(x.bias.size)))
    return jax.tree.map(lambda x: change(x) if layer(x) else x, network, is_leaf=layer)


def test_untrained_it_is_malvars_filters():
    mosaic = jr.uniform(jr.key(0), (10, 14))
    inner = np.s_[:, 2:-2, 2:-2]
    picture = image.DenoisingDemosaic((3, 4), key=jr.key(1))(mosaic)
    assert picture.shape == (3, 10, 14)
    np.testing.assert_allclose(picture[inner], image.malvar(mosaic)[inner], atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_correction_of_a_flat_mosaic_does_not_depend_on_its_color(noise):
    network = eqx.tree_at(lambda n: n.noise, lively(jr.key(4)), jnp.array(noise))
    corrections = []
    for color in (np.zeros(3), np.full(3, 0.4), np.array([0.9, 0.2, 0.05])):
        picture = jnp.asarray(np.broadcast_to(color[:, None, None], (3, 20, 20)))
        corrections.append(network(image.mosaic(picture)) - picture)
    assert np.abs(corrections[0]).max() > 0.1
    np.testing.assert_allclose(corrections[1], corrections[0], atol=1e-12)
    np.testing.assert_allclose(corrections[2], corrections[0], atol=1e-12)


# 0, the black level, grey, white and saturated in one colour, each over a complete quad.
@pytest.mark.slow
@pytest.mark.parametrize("quad", [(0, 0, 0, 0), (0.0625,) * 4, (0.5,) * 4, (1,) * 4, (1, 0, 0, 0), (-0.02, 0.01, 0, 0)])
def test_gradients_at_the_pixels_where_code_breaks(quad):
    mosaic = jr.uniform(jr.key(2), (12, 12)).at[4:6, 4:6].set(jnp.array(quad).reshape(2, 2))
    mosaic = mosaic.at[8:, :].set(quad[0])
    loss = lambda network, m: jnp.sum(jnp.sin(network(image.stabilize_variance(m))))
    assert_gradients(jax.jit(loss), (decided(jr.key(3)), mosaic), max_coordinates=2)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_noise_changes_what_it_does_and_has_a_derivative(noise):
    network, mosaic = lively(jr.key(3)), jr.uniform(jr.key(4), (8, 8))
    at = lambda noise: eqx.tree_at(lambda n: n.noise, network, jnp.asarray(noise))(mosaic)
    assert np.abs(at(1.0) - at(noise)).max() > 1e-3
    step = 1e-7
    slope = jax.jvp(at, (jnp.array(noise),), (jnp.array(1.0),))[1]
    np.testing.assert_allclose(slope, (at(noise + step) - at(noise - step)) / (2 * step), rtol=1e-5, atol=1e-6)


def test_noise_is_relative_to_the_middle_and_cut_to_what_was_trained_on():
    noises = [float(sensor.relative_noise(noise)) for noise in (sensor.CLEAN, *sensor.LEVELS.values())]
    np.testing.assert_allclose(noises, [0.0, 0.25, 1.0, 4.0], atol=1e-12)
    np.testing.assert_allclose(sensor.relative_noise(sensor.at_level(-2.5)), 4.0**-2.5)
    assert float(sensor.relative_noise(image.Noise(1.0, 0.1))) == 4.0**GREATEST
    # The scaled level is -1 without noise; at the greatest, 4^LEAST is added to the noise.
    np.testing.assert_allclose(noise_powers(jnp.array(0.0)), [-1.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(noise_powers(jnp.array(4.0**GREATEST - 4.0**LEAST)), [1.0, 1.0], atol=1e-12)


def test_the_deviation_of_roots_is_that_of_stabilized_noise():
    light = jnp.linspace(0.1, 0.9, 20_000)
    for noise in sensor.LEVELS.values():
        deviation = jnp.sqrt(noise.shot * light + noise.read**2)
        noisy = light + deviation * jr.normal(jr.key(0), light.shape)
        roots = image.stabilize_variance(noisy) - image.stabilize_variance(light)
        np.testing.assert_allclose(jnp.std(roots), sensor.deviation_of_roots(noise), rtol=0.03)


@pytest.fixture(scope="module")
def shipped():
    """The noisy chain that ships, in double precision."""
    return jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, pretrained.trained("noisy"))


# The last tile begins at a multiple of four, whether or not the sizes are multiples of four.
@pytest.mark.slow
@pytest.mark.parametrize("size", [(104, 136), (102, 134)])
def test_tiles_of_the_noisy_chain_equal_the_full_picture_up_to_its_edge(size, shipped):
    mosaic = jr.uniform(jr.key(5), size)
    np.testing.assert_allclose(image.in_tiles(shipped, mosaic, size=32, halo=32), shipped(mosaic), atol=1e-12)


def test_the_picture_of_a_file_is_what_the_chain_makes_of_the_mosaic():
    chain, mosaic = pretrained.trained("noisy"), jr.uniform(jr.key(6), (50, 66), jnp.float32)
    np.testing.assert_allclose(evaluate.run_tiles(chain, mosaic), eqx.filter_jit(chain)(mosaic), atol=1e-6)


@pytest.mark.slow
def test_only_training_leaves_out_the_mirrored_edge():
    chain, mosaic = pretrained.trained("noisy"), jr.uniform(jr.key(7), (64, 68), jnp.float32)
    in_training, mirrored = train_chain.on_patches(chain)(mosaic), chain(mosaic)
    # Farther from the edge than the stencils and the sharpening reach, both are equal.
    inner = np.s_[:, 28:-28, 28:-28]
    np.testing.assert_allclose(in_training[inner], mirrored[inner], atol=1e-5)
    assert np.abs(in_training - mirrored).max() > 1e-2


def test_sizes_that_are_no_multiple_of_four_come_back():
    chain = pretrained.untrained("noisy", (2, 2), key=jr.key(0))
    assert evaluate.run_tiles(chain, np.full((10, 14), 0.3)).shape == (3, 10, 14)


@pytest.mark.slow
@pytest.mark.parametrize("color", [(0.5, 0.5, 0.5), (0.7, 0.4, 0.3)], ids=["grey", "skin"])
def test_a_flat_color_is_flat_up_to_its_edges(color, shipped):
    scene = jnp.broadcast_to(jnp.array(color)[:, None, None], (3, 42, 46))
    # Of a mosaic mirrored about its outermost pixels every quad is as within, its reds where they were.
    np.testing.assert_allclose(shipped(image.unprocess(scene)), scene, atol=0.02)
