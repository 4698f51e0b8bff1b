"""Adjoints written by hand against plain autodiff of naive formulas, in every mode that jax has."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim import image
from diffsim._jax.custom_adjoint import with_adjoint
from diffsim.image.ops import blockwise
from diffsim.image.ops.piecewise_linear import curve
from diffsim.image.stages import unsharp_mask
from diffsim.image.stages.color_matrix import mixed

# 0, the black level, grey, 1, beyond both ends, saturated in one colour; then anything.
SPECIAL = np.array([[0, 0, 0], [0.0625] * 3, [0.5] * 3, [1, 1, 1], [-0.02, 0, 0.01], [1.1, 1, 1], [1, 0, 0], [0, 0, 1]])
PICTURE = jnp.concatenate(
    [jnp.tile(jnp.asarray(SPECIAL.T)[:, :, None], (1, 1, 3)), jr.uniform(jr.key(0), (3, 8, 16))], 2
)
STEPS = jax.nn.softmax(jnp.sin(jnp.arange(15.0)))


def naive_curve(steps, picture):
    """The curve by looking up its knots."""
    knots = jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
    x = picture * steps.size
    at = jnp.clip(jnp.floor(x).astype(int), 0, steps.size - 1)
    return knots[at] + steps[at] * (x - at)


def naive_mixed(entries, picture):
    """The product of matrix and colours."""
    return jnp.einsum("ij,jhw->ihw", image.ColorMatrix(mixing=entries).matrix, picture)


def naive_mean(plane, radius):
    """The local mean, neighbour by neighbour."""
    height, width = plane.shape
    total, count = jnp.zeros_like(plane), np.zeros(plane.shape)
    padded = jnp.pad(plane, radius)
    inside = np.pad(np.ones(plane.shape), radius)
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            total = total + padded[i : i + height, j : j + width]
            count += inside[i : i + height, j : j + width]
    return total / count


def naive_guided(smoothing, picture, radius=2):
    """The guided filter as its source writes it; the guide of one plane is that plane."""
    guide = image.luma(picture) if len(picture) == 3 else picture[0]
    mean = lambda x: naive_mean(x, radius)
    level = mean(guide)
    planes = []
    for color in picture:
        slope = (mean(guide * color) - level * mean(color)) / (mean(guide**2) - level**2 + smoothing)
        planes.append(mean(slope) * guide + mean(mean(color) - slope * level))
    return jnp.stack(planes)


def naive_grid(numbers, picture, cell=4, depth=4):
    """The bilateral grid by a scatter and a gather."""
    strength, blur, mix = numbers
    _, height, width = picture.shape
    rows, columns = -(-height // cell), -(-width // cell)
    place = jnp.clip(image.luma(picture) * (depth - 2) + 0.5, 0, depth - 1)
    low = jnp.clip(jnp.floor(place).astype(int), 0, depth - 2)
    values = jnp.concatenate([jnp.ones((1, height, width)), picture])
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    grid = jnp.zeros((4, depth, rows, columns))
    for up, share in ((0, low + 1 - place), (1, place - low)):
        grid = grid.at[:, low + up, y // cell, x // cell].add(share[None] * values)
    for axis, share in ((1, mix), (2, blur), (3, blur)):
        padded = jnp.pad(grid, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        take = lambda at, size=grid.shape[axis], a=axis, b=padded: jax.lax.slice_in_dim(b, at, at + size, axis=a)
        grid = (1 - 2 * share) * grid + share * (take(0) + take(2))
    v, u = (y + 0.5) / cell - 0.5, (x + 0.5) / cell - 0.5
    sums = jnp.zeros((4, height, width))
    for a in (0, 1):
        for b in (0, 1):
            r, c = np.floor(v).astype(int) + a, np.floor(u).astype(int) + b
            near = (1 - abs(v - r)) * (1 - abs(u - c))
            r, c = np.clip(r, 0, rows - 1), np.clip(c, 0, columns - 1)
            for up, share in ((0, low + 1 - place), (1, place - low)):
                sums = sums + near[None] * share[None] * grid[:, low + up, r, c]
    return picture + strength * (sums[1:] / (sums[:1] + 1e-6) - picture)


def naive_unsharp(numbers, picture, radius=3):
    """The unsharp mask by one sum over the full square around a pixel, of a picture mirrored by jax.numpy."""
    amount, width = numbers
    at = jnp.arange(-radius, radius + 1)
    window = jnp.exp(-0.5 * (at / width) ** 2)
    window = window / jnp.sum(window)
    grey, (_, height, columns) = image.luma(picture), picture.shape
    wide = jnp.pad(grey, radius, mode="reflect")
    reach = range(2 * radius + 1)
    blurred = sum(window[i] * window[j] * wide[i : i + height, j : j + columns] for i in reach for j in reach)
    return picture + amount * (grey - blurred)[None]


def guided(smoothing, picture):
    return image.GuidedFilter(smoothing=smoothing, radius=2)(picture)


def unsharp(numbers, picture):
    return image.UnsharpMask(amount=numbers[0], width=numbers[1], radius=3)(picture)


def grid(numbers, picture, cell=4):
    return image.BilateralGrid(strength=numbers[0], blur=numbers[1], mix=numbers[2], cell=cell, depth=4)(picture)


MIXING = jnp.array([-0.5, -0.1, -0.25, -0.3, 0.05, -0.65])


def naive_balance(numbers, mosaic):
    """Site by site."""
    black, red, blue = numbers
    light = (mosaic - black) / (1.0 - black)
    return light.at[::2, ::2].multiply(red).at[1::2, 1::2].multiply(blue)


CASES = {
    "balance": (lambda n, x: image.WhiteBalance(*n)(x), naive_balance, jnp.array([0.07, 1.9, 1.6])),
    "colour matrix": (mixed, naive_mixed, MIXING),
    "curve": (curve, naive_curve, STEPS),
    "guided filter": (guided, naive_guided, jnp.array(1e-2)),
    "guided filter, one plane": (guided, naive_guided, jnp.array(1e-2)),
    "bilateral grid": (grid, naive_grid, jnp.array([0.6, 0.2, 0.1])),
    "bilateral grid, odd cells": (partial(grid, cell=3), partial(naive_grid, cell=3), jnp.array([0.6, 0.2, 0.1])),
    "unsharp mask": (unsharp, naive_unsharp, jnp.array([0.7, 1.3])),
}
# No pixel lies on a knot of the curve, where the naive formula has the slope of one side.
TALL = jnp.concatenate([PICTURE, jr.uniform(jr.key(4), (3, 15, 19))], 1)
INPUTS = {"curve": PICTURE + 1e-3, "bilateral grid": PICTURE, "bilateral grid, odd cells": PICTURE}
INPUTS |= {
    "balance": jr.uniform(jr.key(6), (22, 18)),
    "colour matrix": TALL,
    "guided filter": TALL,
    "guided filter, one plane": TALL[1:2],
    "unsharp mask": TALL,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks and strips no larger than a pixel's reach, in a picture of several, of which the last are moved inward."""
    monkeypatch.setattr(blockwise, "ROWS", 9)
    monkeypatch.setattr(blockwise, "COLUMNS", 8)
    monkeypatch.setattr(unsharp_mask, "ROWS", 4)
    monkeypatch.setattr("diffsim.image.ops.piecewise_linear.STRIP", 100)


@pytest.mark.parametrize("name", CASES)
def test_value_and_both_modes_are_those_of_the_naive_formula(name):
    function, naive, parameters = CASES[name]
    args = (parameters, INPUTS[name])
    tangents = tuple(jr.normal(jr.key(i), x.shape) for i, x in enumerate(args))
    result, expected = (jax.jit(lambda *a, f=f: jax.jvp(f, a, tangents))(*args) for f in (function, naive))
    np.testing.assert_allclose(result[0], expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(result[1], expected[1], rtol=1e-9, atol=1e-10)
    cotangent = jr.normal(jr.key(5), INPUTS[name].shape)
    pulled = [jax.jit(lambda *a, f=f: jax.vjp(f, *a)[1](cotangent))(*args) for f in (function, naive)]
    for a, b in zip(*pulled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_batches_go_through_both_ways(name):
    function, _, parameters = CASES[name]
    pictures = jnp.stack([INPUTS[name], INPUTS[name][:, ::-1]])
    loss = lambda p, x: jnp.sum(jnp.sin(function(p, x)))
    inside = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(parameters, pictures)
    outside = jax.jit(jax.grad(lambda p, x: jnp.sum(jax.vmap(loss, (None, 0))(p, x)), (0, 1)))(parameters, pictures)
    single = [jax.grad(loss, (0, 1))(parameters, x) for x in pictures]
    np.testing.assert_allclose(inside[1], jnp.stack([s[1] for s in single]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outside[1], inside[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outside[0], inside[0].sum(0), rtol=1e-9, atol=1e-12)


def test_second_derivatives_are_those_of_the_function():
    cube = with_adjoint(
        lambda p, x: p * x**3, lambda p, x, cotangent: (jnp.sum(cotangent * x**3), 3 * p * x**2 * cotangent)
    )
    x = jnp.array([[[0.5, -1.0, 2.0]]])
    slope = lambda p, x: jax.grad(lambda p, x: jnp.sum(cube(p, x)), 1)(p, x)
    along = jnp.ones_like(x)
    np.testing.assert_allclose(jax.jvp(lambda x: slope(2.0, x), (x,), (along,))[1], 12.0 * x)
    np.testing.assert_allclose(jax.grad(lambda p: jnp.sum(slope(p, x)))(2.0), jnp.sum(3 * x**2))


def test_second_derivatives_of_the_color_matrix_are_those_of_the_naive_formula():
    args = MIXING, TALL
    tangents = tuple(jr.normal(jr.key(i), x.shape) for i, x in enumerate(args))
    slopes = lambda f: jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1))
    result, expected = (jax.jit(lambda *a, f=f: jax.jvp(slopes(f), a, tangents))(*args) for f in (mixed, naive_mixed))
    twice = [
        jax.jit(jax.grad(lambda *a, f=f: jnp.sum(slopes(f)(*a)[0] ** 2), (0, 1)))(*args) for f in (mixed, naive_mixed)
    ]
    for a, b in zip(jax.tree.leaves((result, twice[0])), jax.tree.leaves((expected, twice[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_at_a_knot_the_slope_is_the_mean_of_both_sides():
    slope = jax.grad(lambda x: jnp.sum(curve(STEPS, x)))(jnp.full((1, 1, 1), 4 / 15))
    np.testing.assert_allclose(slope[0, 0, 0], 15 * 0.5 * (STEPS[3] + STEPS[4]), rtol=1e-12)
