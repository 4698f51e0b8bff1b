"""The plot of a fit on the terminal: what it shows, and where there is no terminal."""

import io
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import diffsim as ds
from diffsim.train.live_plot import BRAILLE, averages, braille, limits, line_of_dots

START = jnp.array(1.0)
# The loss before step n is 0.81 to the power n - 1.
RATE = optax.constant_schedule(0.05)


def fit(plot, steps=40, **options):
    options = {"steps_per_call": 10, "progress": False, "callback": plot} | options
    return ds.fit(lambda x, _: x**2, START, optax.sgd(RATE), jnp.zeros(steps), **options)


def terminal(**options):
    return Console(file=io.StringIO(), force_terminal=True, width=60, height=30, **options)


def shown(plot):
    """The last frame as plain lines."""
    console = Console(file=io.StringIO(), width=60)
    console.print(plot.frame(plot.progress))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_falling_loss_is_a_straight_line_on_a_logarithmic_scale():
    with ds.train.LivePlot(learning_rate=RATE, height=4, console=terminal()) as plot:
        fit(plot, early_stopping=ds.EarlyStopping(validation=lambda x: x**2))
    lines = shown(plot)
    assert lines[0].startswith("        1 ┤⠉")
    # From the loss before step 1 to the validation loss after step 40; the four of them lie on the same line.
    assert lines[3].startswith(f"{0.81**40:>9.3g} ┤")
    assert lines[3].endswith("●")
    assert re.sub("[^●]", "", "".join(lines)) == "●●●●"
    assert lines[4] == " " * 10 + "└" + "─" * 48
    assert lines[5].split() == ["1", "40"]
    numbers = rf"step 40/40 loss {0.81**39:.4g} validation {0.81**40:.4g} rate 0.05 [\d.e+]+ steps/s 0:00:00 left"
    assert re.fullmatch(numbers, " ".join(" ".join(lines[6:]).split()))


def test_frames_replace_each_other_and_the_cursor_comes_back():
    console = terminal()
    with ds.train.LivePlot(height=4, console=console) as plot:
        fit(plot)
    output = console.file.getvalue()
    assert output.startswith("\x1b[?25l")
    assert output.rstrip().endswith("\x1b[?25h")
    # Seven lines of a frame are erased before the next one: its four lines, two of the axis, and the numbers.
    assert "\x1b[1A\x1b[2K" * 6 in output
    assert "step 40/40" in output


def test_the_cursor_comes_back_after_a_failed_fit():
    console = terminal()
    with pytest.raises(ds.FitError), ds.train.LivePlot(console=console) as plot:
        ds.fit(lambda x, bad: x / bad, START, optax.sgd(0.1), jnp.array([1.0, 0.0]), progress=False, callback=plot)
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_without_a_terminal_lines_are_printed():
    console = Console(file=io.StringIO(), width=20)
    with ds.train.LivePlot(console=console) as plot:
        fit(plot)
    first, last = console.file.getvalue().splitlines()
    assert first == f"step 10/40  loss {0.81**9:.4g}"
    assert last.startswith(f"step 40/40  loss {0.81**39:.4g}  ")
    assert last.endswith(" steps/s  0:00:00 left")


def test_a_fit_that_resumes_is_drawn_from_where_it_resumes(tmp_path):
    fit(None, checkpoint=ds.Checkpoint(tmp_path / "fit.npz"), early_stopping=ds.EarlyStopping(minutes=0.0))
    with ds.train.LivePlot(height=2, console=terminal()) as plot:
        fit(plot, checkpoint=tmp_path / "fit.npz", early_stopping=ds.EarlyStopping())
    assert shown(plot)[3].split() == ["11", "40"]


@pytest.mark.parametrize(
    ("losses", "labels"),
    [
        (np.array([2.0, 0.5, -1.0]), ["2", "-1"]),
        (np.array([100.0, np.nan, 1.0]), ["100", "1"]),
        (np.full(3, 7.0), ["22.1", "2.21"]),
        (np.full(3, np.nan), ["3.16", "0.316"]),
        (np.array([np.inf, 10.0]), ["31.6", "3.16"]),
    ],
    ids=["negative", "gap", "constant", "no number", "infinite"],
)
def test_any_losses_can_be_drawn(losses, labels):
    with ds.train.LivePlot(height=3, console=terminal()) as plot:
        plot(ds.train.FitProgress(len(losses), losses, np.zeros(len(losses), bool), None, lambda: None, 9))
        assert [line.split("┤")[0].strip() for line in shown(plot) if "┤" in line] == labels


def test_columns_are_means_of_their_steps():
    np.testing.assert_allclose(averages(np.array([0.0, 2.0]), 5), [0.0, 0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(averages(np.array([1.0, 3.0, np.nan, 5.0, np.inf, np.nan]), 3), [2.0, 5.0, np.nan])
    # 10 steps in 4 columns: 2, 3, 2 and 3 of them.
    np.testing.assert_allclose(averages(np.arange(10.0), 4), [0.5, 3.0, 5.5, 8.0])
    assert limits(np.array([np.nan, 1.0, 3.0])) == (1.0, 3.0)


def test_a_curve_has_no_gaps():
    dots = line_of_dots(np.array([1.0, 0.0, np.nan, 0.5]), 5)
    assert dots.astype(int).T.tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert braille(np.ones((4, 2), bool)) == ["⣿"]
    assert braille(np.array([[True, False], [False, False], [False, False], [False, True]])) == ["⢁"]
    assert BRAILLE.sum() == 0xFF


def test_a_plot_is_used_as_a_context():
    with pytest.raises(ds.InputError, match=r"this plot is not open: use it as `with ds\.train\.LivePlot"):
        fit(ds.train.LivePlot())
    with pytest.raises(ds.InputError, match="height=1: a curve has at least 2 lines"):
        ds.train.LivePlot(height=1)
