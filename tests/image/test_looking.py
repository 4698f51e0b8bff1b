"""Pictures as they are looked at: colours last, eight bits, stages with their adjoints."""

import jax.numpy as jnp
import numpy as np

from diffsim import image
from diffsim.image import looking


def test_colours_go_last_and_mosaics_stay():
    picture = np.arange(24.0).reshape(3, 2, 4)
    assert looking.colours_last(picture)[1, 2].tolist() == picture[:, 1, 2].tolist()
    np.testing.assert_array_equal(looking.colours_last(picture[0]), picture[0])


def test_pixels_are_cut_and_rounded():
    picture = jnp.broadcast_to(jnp.array([-0.1, 0.5, 1.2])[:, None, None], (3, 2, 2))
    assert looking.pixels(picture)[0, 0].tolist() == [0, 128, 255]


def test_the_way_to_the_loss_ends_with_its_value():
    scene = jnp.full((3, 4, 4), 0.25)
    chain = image.Chain(root=image.root, demosaic=image.malvar)
    graph = looking.to_the_loss(chain, image.mosaic(scene), scene)
    assert [stage.name for stage in graph.stages][-3:] == ["root", "demosaic", "loss"]
    assert np.shape(graph.stages[-2].picture) == (4, 4, 3)
