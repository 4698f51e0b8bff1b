"""Drawings of fits to measurements: bands with residuals below them, and profiles of the likelihood."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsim.uncertainty.posterior import CredibleBand
from diffsim.uncertainty.profile_likelihood import ProfileLikelihood
from diffsim.viz.animation import PALETTE

_STYLE = Path(__file__).with_name("plot.mplstyle")


def fit_band(
    x: ArrayLike, seen: ArrayLike, band: CredibleBand, noise: float, xlabel: str, ylabel: str, *, level: float = 0.9
) -> Figure:
    """Returns measurements (points,) with a model's band for one observation, and below them the residuals.

    Residuals are in units of `noise`, the standard deviation of a measurement; NaN in `seen` is a gap.
    """
    x, seen, value = (np.asarray(a, float) for a in (x, seen, band.value))
    with matplotlib.rc_context({}, _STYLE):
        figure = Figure(figsize=(6.4, 5.2))
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        label = f"{level:.0%} of new measurements"
        above.fill_between(x, band.low, band.high, color=PALETTE[0], alpha=0.25, linewidth=0, label=label)
        above.plot(x, value, color=PALETTE[0], linewidth=1.2, label="fit")
        above.plot(x, seen, "o", color="0.15", markersize=2.5, label="measured")
        above.set(ylabel=ylabel)
        above.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        below.axhline(0.0, color="0.5", linewidth=0.8)
        below.plot(x, (seen - value) / noise, "o", color="0.15", markersize=2.5)
        below.set(xlabel=xlabel, ylabel="residual / noise")
    return figure


def profile_curve(found: ProfileLikelihood, std: float, reach: float, xlabel: str) -> Figure:
    """Returns a profile of the likelihood beside that of the linear model, a line.

    `std` is the linear standard deviation, `reach` how many of these the interval's ends are away.
    """
    with matplotlib.rc_context({}, _STYLE):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.add_subplot()
        x = found.points[:, 0]
        axes.plot(x, (x - found.value) / std, color="0.5", linestyle="--", label="linear")
        axes.plot(*found.points.T, "o-", color=PALETTE[0], label="profile")
        for side in (-1, 1):
            axes.axhline(side * reach, color="0.25", linewidth=0.8, linestyle=":")
        axes.set(xlabel=xlabel, ylabel="distance from the fit\n(standard deviations)")
        axes.legend()
    return figure
