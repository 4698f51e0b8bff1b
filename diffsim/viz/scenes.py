"""Animations of systems: each function turns a trajectory into an `Animation` for a report or a GIF."""

import numpy as np
from numpy.typing import ArrayLike

from .._types import Scalar
from .animation import Animation, Disc, Extent, Polyline


def cart_and_pole(
    times: ArrayLike,
    position: ArrayLike,
    angle: ArrayLike,
    length: float | Scalar,
    track: float,
    *,
    below: float = 0.3,
) -> Animation:
    """Returns an animation of a cart on a track, with a pole.

    Args:
        times: Times in s, shape (frames,).
        position: Position of the cart in m, shape (frames,).
        angle: Angle of the pole in rad, zero upright and positive to the right, shape (frames,).
        length: Length of the pole in m.
        track: Length of the track to either side in m.
        below: Height of the visible region under the track in m.
    """
    hinge = np.column_stack([np.asarray(position), np.zeros(np.size(times))])
    tip = hinge + float(length) * np.column_stack([np.sin(angle), np.cos(angle)])
    ends = np.array([[-0.2, 0.0], [0.2, 0.0]])
    shapes = [
        Polyline(np.array([[-track, -0.08], [track, -0.08]]), colour=3, width=1.0),
        Polyline(hinge[:, None] + ends, width=10.0),
        Polyline(np.stack([hinge, tip], axis=1), colour=1, width=4.0),
        Disc(hinge, 0.03, colour=2),
    ]
    return Animation(np.asarray(times), shapes, extent=(-track - 0.2, track + 0.2, -below, float(length) + 0.2))


def rod(times: ArrayLike, angle: ArrayLike, length: float | Scalar, torque: ArrayLike) -> Animation:
    """Returns an animation of a rod that turns about the origin; the bar below it shows the torque.

    Args:
        times: Times in s, shape (frames,).
        angle: Angle in rad, zero upright and positive to the right, shape (frames,).
        length: Length of the rod in m.
        torque: Torque as a fraction of its limit, from -1 to 1, shape (frames,).
    """
    size = float(length)
    tip = size * np.column_stack([np.sin(angle), np.cos(angle)])
    base = np.zeros_like(tip)
    turn = np.column_stack([0.5 * size * np.asarray(torque), np.full(np.size(times), -1.25 * size)])
    shapes = [
        Polyline(np.stack([turn * np.array([0.0, 1.0]), turn], axis=1), colour=2, width=6.0),
        Polyline(np.stack([base, tip], axis=1), colour=1, width=6.0),
        Disc(base[:1], 0.05 * size, colour=0),
    ]
    return Animation(np.asarray(times), shapes, extent=(-1.4 * size, 1.4 * size, -1.4 * size, 1.2 * size))


def flyer(
    times: ArrayLike,
    centre: ArrayLike,
    tilt: ArrayLike,
    arm: float | Scalar,
    thrusts: ArrayLike,
    wind: ArrayLike,
    extent: Extent,
) -> Animation:
    """Returns an animation of a quadrotor, with its thrusts and the wind as lines.

    Args:
        times: Times in s, shape (frames,).
        centre: Position of the quadrotor (x, height) in m, shape (frames, 2).
        tilt: Tilt in rad, positive to the right, shape (frames,).
        arm: Half width of the quadrotor in m.
        thrusts: Left and right thrust as fractions of their limit, shape (frames, 2).
        wind: Wind in m/s, shape (frames, 2). It is drawn from the upper left, a metre for 10 m/s.
        extent: The visible region (left, right, bottom, top) in m.
    """
    centre, wind, thrusts = np.asarray(centre), np.asarray(wind), np.asarray(thrusts)
    along = np.column_stack([np.cos(tilt), -np.sin(tilt)])
    up = np.column_stack([np.sin(tilt), np.cos(tilt)])
    left, right = centre - float(arm) * along, centre + float(arm) * along
    flames = [
        np.stack([end, end + 0.5 * push[:, None] * up], axis=1)
        for end, push in zip((left, right), thrusts.T, strict=True)
    ]
    corner = np.broadcast_to([extent[0] + 0.6, extent[3] - 0.5], wind.shape)
    shapes = [
        Disc(np.zeros((1, 2)), 0.06, colour=3),
        Polyline(np.stack([corner, corner + 0.1 * wind], axis=1), colour=2, width=3.0),
        *(Polyline(flame, colour=1, width=3.0) for flame in flames),
        Polyline(np.stack([left, right], axis=1), width=5.0),
    ]
    return Animation(np.asarray(times), shapes, {"path": centre}, extent=extent)
