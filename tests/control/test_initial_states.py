"""First states of a training: where they lie, and bad input."""

import jax.random as jr
import numpy as np
import pytest

from diffsim import InputError
from diffsim.control import draw_starts


def test_starts_lie_near_the_task_and_a_share_anywhere():
    starts = np.asarray(draw_starts(jr.key(0), 200, 10, [0.1, 0.2], [3.0, 4.0], share=0.3, around=[0.0, 9.0]))
    assert starts.shape == (200, 10, 2)
    wide, near = starts[:, :3], starts[:, 3:] - np.array([0.0, 9.0])
    for rows, size in ((wide, [3.0, 4.0]), (near, [0.1, 0.2])):
        extent = np.abs(rows).max(axis=(0, 1))
        assert np.all(extent <= size)
        # Of 600 uniform numbers the greatest is above 0.97 of the limit but once in 1e8.
        assert np.all(extent > 0.97 * np.array(size))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing(share):
    starts = np.asarray(draw_starts(jr.key(0), 3, 4, [1e-3], [1.0], share=share))
    assert (np.abs(starts).max() < 2e-3) == (share == 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, [1.0], [1.0]), "updates=0"),
        ((3, 0, [1.0], [1.0]), "batch=0"),
        ((3, 4, [1.0], [1.0, 2.0]), r"near has shape \(1,\), wide \(2,\)"),
    ],
    ids=["updates", "batch", "shapes"],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_starts(jr.key(0), *arguments)


def test_a_share_beyond_one_is_named():
    with pytest.raises(InputError, match=r"share=1\.5"):
        draw_starts(jr.key(0), 1, 1, [1.0], [1.0], share=1.5)
