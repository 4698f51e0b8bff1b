"""Finite differences against closed forms: the slope itself, and whether the error bar is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.autodiff.ridders import directional_difference, partial_difference, ridders
from diffsim.autodiff.sweep import natural_size, step_sizes, sweep

FUNCTIONS = {
    "exp": jnp.exp,
    "log": lambda x: jnp.log(jnp.abs(x)),
    "fast oscillation": lambda x: jnp.sin(30 * x),
    "pole": lambda x: 1 / (1 + x**2),
    "cancellation": lambda x: (jnp.exp(x) - 1 - x) / x**2,
    "offset": lambda x: 1e8 + jnp.sin(x),
    "small": lambda x: 1e-8 * jnp.exp(x),
}


def slopes_and_truth(f, noise=None, dtype=jnp.float64):
    """Slopes of `f` and their error bars at 60 random points, and the exact derivatives."""
    x = np.asarray(np.random.default_rng(0).uniform(-3, 3, 60), dtype)
    size = np.asarray(2.0 ** np.floor(np.log2(np.abs(x))), dtype)
    rounded = f if noise is None else lambda x: jnp.round(f(x) / noise) * noise
    points = sweep(lambda _, h, x, size: rounded(x + h.astype(dtype) * size), None, [x, size], step_sizes(dtype))
    return ridders(points), np.asarray(jax.vmap(jax.grad(f))(x.astype(np.float64))) * size


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bar_covers_the_error(name):
    slope, truth = slopes_and_truth(FUNCTIONS[name])
    assert np.all(np.abs(slope.value - truth) <= slope.error)


@pytest.mark.parametrize("name", ["exp", "log", "pole", "small"])
def test_smooth_functions_to_eleven_digits(name):
    """Rounding at the step where extrapolation is exact is eps / 2^-6; the factor 700 allows for bad luck."""
    slope, truth = slopes_and_truth(FUNCTIONS[name])
    assert np.max(np.abs(slope.value - truth) / np.abs(truth)) < 1e-11


@pytest.mark.parametrize("name", ["exp", "pole", "offset", "cancellation", "fast oscillation"])
@pytest.mark.parametrize("noise", [1e-9, 1e-6])
def test_bar_covers_the_error_of_a_noisy_function(name, noise):
    """The error bar is a scale of the scatter, not a bound: some errors may exceed it, a little and rarely.

    The offset function has, rounded to 1e-6, points where every difference is a multiple of one grid spacing.
    """
    slope, truth = slopes_and_truth(FUNCTIONS[name], noise)
    ratio = np.abs(slope.value - truth) / slope.error
    assert np.sum(ratio > 1) <= 3
    assert np.max(ratio) < 6


@pytest.mark.parametrize("name", ["exp", "log", "pole", "small"])
def test_float32(name):
    slope, truth = slopes_and_truth(FUNCTIONS[name], dtype=jnp.float32)
    assert np.all(np.abs(slope.value - truth) <= slope.error)
    assert np.median(slope.error / np.abs(truth)) < 100 * np.finfo(np.float32).eps


def test_every_step_has_its_own_bar():
    slope, truth = slopes_and_truth(jnp.exp)
    known = np.isfinite(slope.errors)
    assert slope.values.shape == (len(slope.steps), 60)
    assert np.mean((np.abs(slope.values - truth) <= slope.errors)[known]) > 0.97  # a scale, as above
    assert np.all(slope.error == np.min(slope.errors, axis=0))


def test_tree_direction_and_entry():
    x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.0), "c": jnp.ones((2, 2), jnp.float32)}
    f = lambda x: jnp.stack([jnp.sum(x["a"] ** 3) + jnp.sin(x["b"]), jnp.sum(x["c"]) * x["b"]])
    direction = jax.tree.map(jnp.ones_like, x)
    along = directional_difference(f, x, direction)
    exact = jax.jvp(f, (x,), (direction,))[1]
    assert np.all(np.abs(along.value - exact) <= along.error)
    for index, slope in [(0, [3.0, 0.0]), (1, [12.0, 0.0]), (2, [1.0, 4.0]), (-1, [0.0, 0.0])]:
        entry = partial_difference(f, x, index)
        assert np.all(np.abs(entry.value - slope) <= entry.error)


def test_steps_follow_the_entry():
    np.testing.assert_array_equal(natural_size(np.array([3.0, -0.75, 0.0])), [2.0, 0.5, 1.0])
    np.testing.assert_array_equal(natural_size(jnp.zeros(2)), [1.0, 1.0])
    assert partial_difference(jnp.sum, jnp.array([3e-7]), 0).steps[0] < 2e-7
    assert step_sizes(jnp.float32)[-1] > step_sizes(jnp.float64)[-1]


def test_outside_the_domain_counts_as_unknown():
    slope = partial_difference(lambda x: jnp.arcsin(x), jnp.array(0.9), 0)
    assert abs(slope.value - 1 / np.sqrt(1 - 0.81)) <= slope.error < 1e-6
    assert np.isinf(partial_difference(lambda x: jnp.sqrt(-jnp.abs(x) - 1), jnp.array(0.9), 0).error)


def test_one_trace_for_all_points():
    traces = []

    def f(x):
        traces.append(1)
        return jnp.sin(x)

    partial_difference(f, jnp.array(0.3), 0)
    assert len(traces) == 2  # the shape of the output, the compiled batch


def test_python_function():
    slope = partial_difference(lambda x: np.sin(float(x)), jnp.array(0.3), 0, jit=False)
    assert abs(slope.value - np.cos(0.3)) <= slope.error


def test_bad_requests():
    with pytest.raises(InputError, match="index 2 is out of range: x has 2 entries"):
        partial_difference(jnp.sum, jnp.ones(2), 2)
    with pytest.raises(InputError, match="same structure"):
        directional_difference(jnp.sum, jnp.ones(2), jnp.ones(3))
    with pytest.raises(InputError, match="floating-point"):
        directional_difference(lambda x: x > 0, jnp.ones(2), jnp.ones(2))
