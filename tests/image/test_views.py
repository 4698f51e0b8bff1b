"""Pictures for display: colours last, eight bits, stages with their adjoints."""

import jax.numpy as jnp
import numpy as np

from diffsim import image
from diffsim.image import pretrained
from diffsim.image.training import views


def test_colors_go_last_and_mosaics_stay():
    picture = np.arange(24.0).reshape(3, 2, 4)
    assert views.colors_last(picture)[1, 2].tolist() == picture[:, 1, 2].tolist()
    np.testing.assert_array_equal(views.colors_last(picture[0]), picture[0])


def test_pixels_are_cut_and_rounded():
    picture = jnp.broadcast_to(jnp.array([-0.1, 0.5, 1.2])[:, None, None], (3, 2, 2))
    assert views.pixels(picture)[0, 0].tolist() == [0, 128, 255]


def test_the_way_to_the_loss_ends_with_its_value():
    scene = jnp.full((3, 4, 4), 0.25)
    chain = image.Chain(stabilize_variance=image.stabilize_variance, demosaic=image.malvar)
    graph = views.loss_graph(chain, image.mosaic(scene), scene)
    assert [stage.name for stage in graph.stages][-3:] == ["stabilize_variance", "demosaic", "loss"]
    assert np.shape(graph.stages[-2].picture) == (4, 4, 3)


def test_a_filter_is_four_squares_with_nothing_between():
    chain = pretrained.trained("demosaic")
    weights = np.asarray(chain.stages["demosaic"].layers[0].weight)
    pictures = views.filters(chain, 2)
    assert list(pictures) == ["1", "2"]
    for drawn, weight in zip(pictures.values(), weights, strict=False):
        corners = drawn[1:13, 1:13], drawn[1:13, 14:26], drawn[14:26, 1:13], drawn[14:26, 14:26]
        for i in range(16):
            np.testing.assert_array_equal([x[i // 4 :: 4, i % 4 :: 4] for x in corners], weight)
        empty = [0, 13, 26, 27]
        assert np.isnan(drawn[empty]).all()
        assert np.isnan(drawn[:, empty]).all()
