"""The picture of the times of gradients, docs/pictures/speed.png: `python docs/draw_speed.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from results_files import entry
from tables import SOLVERS, seconds

GREY = "#808080"  # legible on white and on black
BARS = {
    "c_adjoint_by_hand": ("C, adjoint by hand", "#9aa5b1"),
    "diffsim": ("diffsim", "#e4572e"),
    "diffrax": ("diffrax", "#3d7ea6"),
}


def main() -> None:
    """Draws the minimum times of value and gradient, one group of bars for each problem."""
    figure, axes = plt.subplots(figsize=(8.0, 4.6), layout="constrained")
    for group, key in enumerate(SOLVERS):
        cases = entry(f"solvers/tables/{key}")
        present = [name for name in BARS if name in cases]
        for place, name in enumerate(present):
            time, at = 1e-6 * cases[name]["min_us"], group + 0.27 * (place - (len(present) - 1) / 2)
            axes.barh(at, time, 0.25, color=BARS[name][1], label=BARS[name][0] if group == 0 else None)
            axes.text(1.08 * time, at, seconds(time), va="center", fontsize=7, color=GREY)
    axes.set_yticks(range(len(SOLVERS)), list(SOLVERS.values()))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1e-5, 1.0)
    axes.set_xlabel("value and gradient, s")
    axes.legend(frameon=False, labelcolor=GREY, loc="upper right")
    axes.tick_params(colors=GREY)
    axes.xaxis.label.set_color(GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    figure.savefig(Path(__file__).parent / "pictures" / "speed.png", dpi=120, transparent=True)


if __name__ == "__main__":
    main()
