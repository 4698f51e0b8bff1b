"""Initial states of a training: where they lie, and bad input."""

import jax.random as jr
import numpy as np
import pytest

from diffsim import InputError
from diffsim.control import sample_initial_states


def test_states_lie_near_the_task_and_a_fraction_anywhere():
    starts = np.asarray(
        sample_initial_states(jr.key(0), 200, 10, [0.1, 0.2], [3.0, 4.0], wide_fraction=0.3, center=[0.0, 9.0])
    )
    assert starts.shape == (200, 10, 2)
    wide, near = starts[:, :3], starts[:, 3:] - np.array([0.0, 9.0])
    for rows, size in ((wide, [3.0, 4.0]), (near, [0.1, 0.2])):
        extent = np.abs(rows).max(axis=(0, 1))
        assert np.all(extent <= size)
        # The greatest of 600 uniform numbers is below 0.97 of the limit once in 1e8 times.
        assert np.all(extent > 0.97 * np.array(size))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_all_or_nothing(fraction):
    starts = np.asarray(sample_initial_states(jr.key(0), 3, 4, [1e-3], [1.0], wide_fraction=fraction))
    assert (np.abs(starts).max() < 2e-3) == (fraction == 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, [1.0], [1.0]), "updates=0"),
        ((3, 0, [1.0], [1.0]), "batch_size=0"),
        ((3, 4, [1.0], [1.0, 2.0]), r"half_width has shape \(1,\), wide_half_width \(2,\)"),
    ],
    ids=["updates", "batch", "shapes"],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        sample_initial_states(jr.key(0), *arguments)


def test_a_fraction_beyond_one_is_named():
    with pytest.raises(InputError, match=r"wide_fraction=1\.5"):
        sample_initial_states(jr.key(0), 1, 1, [1.0], [1.0], wide_fraction=1.5)
