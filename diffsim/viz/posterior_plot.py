"""Figures of fits to measurements: bands with residuals below them, and profile likelihoods."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsim.uncertainty.posterior import CredibleBand
from diffsim.uncertainty.profile_likelihood import ProfileLikelihood
from diffsim.viz.animation import PALETTE
from diffsim.viz.canvas import STYLE


def fit_band(
    x: ArrayLike, observed: ArrayLike, band: CredibleBand, noise: float, xlabel: str, ylabel: str, *, level: float = 0.9
) -> Figure:
    """Returns a figure of measurements with a model's band for new measurements, and of the residuals below.

    Args:
        x: The abscissae, shape (points,).
        observed: The measurements, shape (points,); NaN is a gap.
        band: The fit and its band, as `Posterior.credible_band` returns them.
        noise: The standard deviation of a measurement, the unit of the residuals.
        xlabel, ylabel: The labels of the axes, with units.
        level: The probability of the band, for the legend.
    """
    x, observed, value = (np.asarray(a, float) for a in (x, observed, band.value))
    with matplotlib.rc_context({}, STYLE):
        figure = Figure(figsize=(6.4, 5.2))
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        label = f"{level:.0%} of new measurements"
        above.fill_between(x, band.low, band.high, color=PALETTE[0], alpha=0.25, linewidth=0, label=label)
        above.plot(x, value, color=PALETTE[0], linewidth=1.2, label="fit")
        above.plot(x, observed, "o", color="0.15", markersize=2.5, label="measured")
        above.set(ylabel=ylabel)
        above.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        below.axhline(0.0, color="0.5", linewidth=0.8)
        below.plot(x, (observed - value) / noise, "o", color="0.15", markersize=2.5)
        below.set(xlabel=xlabel, ylabel="residual / noise")
    return figure


def profile_curve(profile: ProfileLikelihood, std: float, reach: float, xlabel: str) -> Figure:
    """Returns a figure of a profile likelihood compared with that of the linear model, a straight line.

    Args:
        profile: The profile, as `profile_likelihood` returns it.
        std: The standard deviation of the linear model.
        reach: The distance of the interval's ends from the fit, in standard deviations.
        xlabel: The label of the parameter, with its unit.
    """
    with matplotlib.rc_context({}, STYLE):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.add_subplot()
        x = profile.points[:, 0]
        axes.plot(x, (x - profile.value) / std, color="0.5", linestyle="--", label="linear")
        axes.plot(*profile.points.T, "o-", color=PALETTE[0], label="profile")
        for side in (-1, 1):
            axes.axhline(side * reach, color="0.25", linewidth=0.8, linestyle=":")
        axes.set(xlabel=xlabel, ylabel="distance from the fit\n(standard deviations)")
        axes.legend()
    return figure
