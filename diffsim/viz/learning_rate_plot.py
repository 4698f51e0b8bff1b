"""The figure of a learning-rate range test."""

import numpy as np
from matplotlib.figure import Figure

from diffsim.train.learning_rate_range import LearningRateRange
from diffsim.viz.animation import PALETTE
from diffsim.viz.canvas import new_axes


def learning_rate_range(test: LearningRateRange, *, ylabel: str = "loss") -> Figure:
    """Returns a figure of the loss of a range test against the learning rate, with the suggested rate marked.

    Args:
        test: The test, as `train.learning_rate_range` returns it.
        ylabel: The label of the loss.
    """
    with new_axes("learning rate", ylabel) as (figure, axes):
        axes.plot(test.rates, np.where(np.isfinite(test.losses), test.losses, np.nan), color="0.5", lw=0.7, alpha=0.6)
        axes.plot(test.rates, test.smoothed, color=PALETTE[0], label="smoothed loss")
        if np.isfinite(test.suggested):
            loss = test.smoothed[np.searchsorted(test.rates, test.suggested)]
            label = f"steepest descent: {test.suggested:.2g}"
            axes.plot(test.suggested, loss, "o", color=PALETTE[1], label=label)
        if test.divergence is not None:
            axes.axvline(test.divergence, color="0.25", linestyle="--", label=f"diverges: {test.divergence:.2g}")
        before = test.losses[np.isfinite(test.smoothed)]
        margin = 0.05 * (np.ptp(before) or 1.0)
        # Losses after the divergence would hide the rest.
        axes.set(xscale="log", ylim=(before.min() - margin, before.max() + margin))
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)
    return figure
