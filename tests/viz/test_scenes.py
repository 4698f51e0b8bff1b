"""Animations of systems: the positions of their shapes."""

import numpy as np

from diffsim.viz import scenes

TIMES = np.array([0.0, 0.1])


def test_a_pole_stands_falls_to_the_right_and_rides_on_its_cart():
    picture = scenes.cart_and_pole(TIMES, [0.5, -1.0], [0.0, np.pi / 2], 2.0, 2.4)
    pole = picture.shapes[2].frames()
    np.testing.assert_allclose(pole, [[[0.5, 0.0], [0.5, 2.0]], [[-1.0, 0.0], [1.0, 0.0]]], atol=1e-12)
    assert picture.extent == (-2.4 - 0.2, 2.4 + 0.2, -0.3, 2.2)


def test_a_rod_turns_and_its_bar_shows_the_torque():
    picture = scenes.rod(TIMES, [0.0, np.pi], 1.0, [1.0, -0.5])
    torque_bar, rod = (picture.shapes[k].frames() for k in (0, 1))
    np.testing.assert_allclose(rod[:, 1], [[0.0, 1.0], [0.0, -1.0]], atol=1e-12)
    np.testing.assert_allclose(torque_bar[:, 1, 0] - torque_bar[:, 0, 0], [0.5, -0.25])


def test_a_quadrotor_leans_to_the_right_and_its_thrusts_lean_with_it():
    centre, thrusts, wind = np.ones((2, 2)), [[1.0, 0.5], [0.0, 1.0]], [[10.0, 0.0], [0.0, -5.0]]
    picture = scenes.flyer(TIMES, centre, [0.0, np.pi / 2], 0.2, thrusts, wind, (-2.0, 2.0, -2.0, 2.0))
    _, blowing, left, right, body = (shape.frames() for shape in picture.shapes)
    # Level its right rotor is at the right, tilted by a quarter turn to the right it is below.
    np.testing.assert_allclose(body[:, 1], [[1.2, 1.0], [1.0, 0.8]], atol=1e-12)
    np.testing.assert_allclose(left[0, 1] - left[0, 0], [0.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(right[1, 1] - right[1, 0], [0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(blowing[:, 1] - blowing[:, 0], [[1.0, 0.0], [0.0, -0.5]], atol=1e-12)
