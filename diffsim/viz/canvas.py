"""A new figure with one pair of axes, in the style of all figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from diffsim.viz.animation import PALETTE

STYLE = Path(__file__).with_name("plot.mplstyle")
Canvas = tuple[Figure, Axes]


@contextmanager
def new_axes(xlabel: str, ylabel: str, figsize: tuple[float, float] | None = None) -> Iterator[Canvas]:
    """Yields a new figure and its axes; the style applies within the context."""
    with matplotlib.rc_context({"axes.prop_cycle": cycler(color=PALETTE)}, STYLE):
        figure = Figure(figsize=figsize)
        axes = figure.add_subplot()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, axes
