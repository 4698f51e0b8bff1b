"""Moving pictures of systems: trajectories in, an `Animation` to play in a report or save as a GIF out."""

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
    """A cart at `position` (m) on a track `track` (m) to either side, with a pole of `length` (m) at `angle` (rad).

    `times` (s), `position` and `angle` are of shape (frames,). The angle is zero upright and grows to the right;
    `below` (m) is how much of the picture lies under the track.
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
    """A rod of `length` (m) at `angle` (rad, zero upright) about the origin; the arm beside it shows the `torque`.

    All are of shape (frames,). `torque` is a fraction of its limit, from -1 to 1.
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
    """A quadrotor of half width `arm` (m) at `centre` (m) and `tilt` (rad), its thrusts and the wind as lines.

    `centre`, `thrusts` (fractions of their limit) and `wind` are of shape (frames, 2), the others (frames,). The wind
    (m/s) is drawn from the upper left, a metre for 10 m/s.
    """
    centre, wind, thrusts = np.asarray(centre), np.asarray(wind), np.asarray(thrusts)
    along = np.column_stack([np.cos(tilt), -np.sin(tilt)])
    up = np.column_stack([np.sin(tilt), np.cos(tilt)])
    left, right = centre - float(arm) * along, centre + float(arm) * along
    flames = [
        np.stack([end, end + 0.5 * push[:, None] * up], axis=1)
        for end, push in zip((left, right), thrusts.T, strict=True)
    ]
    place = np.broadcast_to([extent[0] + 0.6, extent[3] - 0.5], wind.shape)
    shapes = [
        Disc(np.zeros((1, 2)), 0.06, colour=3),
        Polyline(np.stack([place, place + 0.1 * wind], axis=1), colour=2, width=3.0),
        *(Polyline(flame, colour=1, width=3.0) for flame in flames),
        Polyline(np.stack([left, right], axis=1), width=5.0),
    ]
    return Animation(np.asarray(times), shapes, {"path": centre}, extent=extent)
