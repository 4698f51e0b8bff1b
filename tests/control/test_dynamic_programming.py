"""Dynamic programming: interpolation, a closed form, Gymnasium's pendulum, and bad input."""

from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError
from diffsim.control import GridAxis, ValueFunction, evaluate_episodes, greedy_control, value_iteration
from diffsim.systems.pendulum import RATE, TORQUE, Rod, State, rod_cost, rod_step

LINE = (GridAxis(-2.0, 2.0, 401),)


def test_values_between_points_are_interpolated():
    axes = (GridAxis(0.0, 1.0, 3), GridAxis(0.0, 4.0, 4, periodic=True))
    x, y = np.meshgrid(*(axis.points() for axis in axes), indexing="ij")
    value = ValueFunction(jnp.asarray(2 * x + 3 * x * y), axes)
    exact = lambda x, y: 2 * x + 3 * x * y
    for place in ((0.2, 1.3), (1.0, 0.0), (0.75, 2.999)):
        np.testing.assert_allclose(value(jnp.array(place)), exact(*place), rtol=1e-12)
    # Around the periodic axis, from 3 to 4, which is 0 again; beyond the other axis the value at its end.
    np.testing.assert_allclose(value(jnp.array([1.0, 3.5])), (exact(1, 3) + exact(1, 0)) / 2, rtol=1e-12)
    np.testing.assert_allclose(value(jnp.array([1.0, -1.0])), exact(1, 3), rtol=1e-12)
    np.testing.assert_allclose(value(jnp.array([7.0, 1.0])), exact(1, 1), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(value)(jnp.array([0.3, 1.2])), [2 + 3 * 1.2, 3 * 0.3], rtol=1e-12)


def test_a_cart_that_moves_at_most_a_tenth_a_step():
    """|x| falls by 0.1 a step: from 1 the least cost of 10 steps is 1.0 + 0.9 + ... + 0.1."""
    step = lambda s, u: (s[0] + u,)
    cost = lambda s, u: jnp.abs(s[0])
    value = value_iteration(step, cost, LINE, [-0.1, 0.0, 0.1], 10)
    np.testing.assert_allclose(value((jnp.array(1.0),)), 5.5, rtol=1e-12)
    policy = greedy_control(step, cost, value, [-0.1, 0.0, 0.1])
    assert [float(policy((jnp.array(x),))) for x in (1.0, -1.0, 0.0)] == [-0.1, 0.1, 0.0]


@pytest.mark.exhaustive
def test_the_optimum_of_gymnasiums_pendulum():
    step, torques = partial(rod_step, Rod()), np.linspace(-TORQUE, TORQUE, 33)
    axes = (GridAxis(-np.pi, np.pi, 400, periodic=True), GridAxis(-RATE, RATE, 401))
    value = value_iteration(step, rod_cost, axes, torques, 200, make_state=State._make)
    policy = jax.jit(jax.vmap(greedy_control(step, rod_cost, value, torques)))
    states = lambda seen: State(np.arctan2(seen[:, 1], seen[:, 0]).astype(float), seen[:, 2].astype(float))
    act = lambda seen: np.asarray(policy(states(seen)), np.float32)[:, None]
    returns = evaluate_episodes([gymnasium.make("Pendulum-v1") for _ in range(100)], range(100), act)
    # -132.5 was achieved elsewhere with a finer search and -132.1 bounds it; this grid gives -132.97.
    assert -133.0 < returns.mean() < -132.1


@pytest.mark.parametrize(
    ("axes", "controls", "horizon"),
    [(LINE, [], 3), (LINE, [0.0], 0), ((), [0.0], 3), ((GridAxis(0.0, 1.0, 1),), [0.0], 3)],
    ids=["controls", "horizon", "axes", "points"],
)
def test_bad_input_is_named(axes, controls, horizon):
    with pytest.raises(InputError, match="give at least one of each, and axes of at least 2 points"):
        value_iteration(lambda s, u: s, lambda s, u: s[0], axes, controls, horizon)
