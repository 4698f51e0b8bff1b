"""Figures: they contain the given data, and nothing global changes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from PIL import Image

from diffsim._errors import InputError, RunError
from diffsim.control import GradientGrowth
from diffsim.train import LearningRateRange
from diffsim.uncertainty.posterior import CredibleBand
from diffsim.uncertainty.profile_likelihood import ProfileLikelihood
from diffsim.viz import animation_plot, plot
from diffsim.viz.animation import PALETTE, Animation, Disc, Polyline, bounds

TIMES = np.linspace(0.0, 1.0, 11)
PATH = np.stack([4.0 * TIMES, TIMES * (1 - TIMES)], axis=-1)
ARM = np.stack([np.zeros_like(PATH), PATH], axis=1)


def drawn(figure) -> None:
    """Draws the figure, which is when most of matplotlib's warnings occur."""
    figure.draw_without_rendering()


def test_learning_curve_draws_loss_validation_and_references():
    figure = plot.learning_curve([8.0, 4.0, 2.0, 1.0], [5.0, 2.0], {"published": 0.5}, ylabel="miss (m²)")
    (axes,) = figure.axes
    loss, validation, published = axes.lines
    np.testing.assert_array_equal(loss.get_xydata(), [[1, 8], [2, 4], [3, 2], [4, 1]])
    np.testing.assert_array_equal(validation.get_xydata(), [[2, 5], [4, 2]])
    assert list(published.get_ydata()) == [0.5, 0.5]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "miss (m²)"
    assert axes.get_legend().get_texts()[2].get_text() == "published: 0.5"
    drawn(figure)


def test_seed_curves_are_worst_median_and_best_at_each_step():
    figure = plot.seed_curves([[1.0, 4.0], [2.0, 5.0], [9.0, 0.5]])
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {"worst seed": [9.0, 5.0], "median": [2.0, 4.0], "best seed": [1.0, 0.5]}
    drawn(figure)


def test_noisy_losses_have_a_running_mean():
    losses = 2.0 + np.tile([1.0, -1.0], 75)
    raw, mean = plot.learning_curve(losses).axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    np.testing.assert_allclose(mean.get_ydata()[1:-1], 2.0, atol=0.34)
    assert mean.get_label() == "training"
    np.testing.assert_allclose(
        plot.running_mean([[1.0, 2.0, 6.0, np.nan, 1.0]], 3), [[1.5, 3.0, np.nan, np.nan, np.nan]]
    )


def test_legends_are_above_the_axes():
    axes = plot.curves(TIMES, {"arm": TIMES, "sling": TIMES**2}, "time (s)", "angle (rad)").axes[0]
    axes.figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1.0


def test_growth_of_gradients_starts_at_one():
    grown = GradientGrowth(np.array([1, 4]), np.array([2.0, 8.0]), np.array([1.0, 1.0]), 4, 50.0)
    (line,) = plot.gradient_growth({"true": grown}, 0.5).axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[0.5, 1.0], [2.0, 4.0]])


def test_a_wrapped_path_has_a_gap_where_the_angle_jumps():
    path = plot.wrapped([3.0, 3.2, 3.4], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(path[:, 0], [3.0, np.nan, 3.4 - 2 * np.pi])
    np.testing.assert_array_equal(path[:, 1], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("loss", [[], [np.nan, 1.0, np.inf], [-1.0, -2.0], [0.0, 1.0]])
def test_learning_curve_of_awkward_losses_draws(loss):
    figure = plot.learning_curve(loss)
    drawn(figure)
    assert figure.axes[0].get_legend() is None


def test_validation_steps_are_kept():
    figure = plot.learning_curve(np.ones(9), [1.0, 2.0], validation_steps=[3, 9])
    assert list(figure.axes[0].lines[1].get_xdata()) == [3, 9]


def test_curves_are_named_and_coloured_in_order():
    figure = plot.curves(TIMES, {"arm": TIMES, "sling": TIMES**2}, "time (s)", "angle (rad)")
    (axes,) = figure.axes
    assert [line.get_color() for line in axes.lines] == list(PALETTE[:2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["arm", "sling"]
    assert axes.get_xlabel() == "time (s)"
    drawn(figure)


def test_field_map_hides_masked_and_unusable_cells():
    values = np.arange(12.0).reshape(3, 4) - 1.0
    values[2, 3] = np.nan
    mask = np.zeros((3, 4), bool)
    mask[1, 1] = True
    figure = plot.field_map(
        np.arange(4), np.arange(3), values, "x", "y", "miss (m)", log=True, mask=mask, contours=(3, 99)
    )
    shown = figure.axes[0].collections[0].get_array()
    assert [tuple(cell) for cell in np.argwhere(np.ma.getmaskarray(shown))] == [
        (0, 0),
        (0, 1),
        (1, 1),
        (2, 3),
    ]
    assert isinstance(figure.axes[0].collections[0].norm, LogNorm)
    assert figure.axes[1].get_ylabel() == "miss (m)"
    drawn(figure)


@pytest.mark.parametrize("value", [np.nan, 0.0, 2.0])
@pytest.mark.parametrize("log", [False, True])
def test_field_map_of_one_value_draws(value, log):
    drawn(plot.field_map([0, 1], [0, 1], np.full((2, 2), value), "x", "y", "z", log=log, contours=(1.0,)))


def test_polylines_fade_from_the_first_frame_to_the_last():
    base = Polyline([[0.0, 0.0], [4.0, 0.0]])
    figure = plot.polylines([Polyline(ARM), base, Disc(PATH, 0.1, 1)], {"ball": PATH}, frames=[0, 5, 10], ground=0.0)
    (axes,) = figure.axes
    ground, trail, static, *arms = axes.lines
    assert list(ground.get_ydata()) == [0.0, 0.0]
    np.testing.assert_array_equal(trail.get_xydata(), PATH)
    assert static.get_alpha() == 1.0
    np.testing.assert_array_equal([arm.get_xydata() for arm in arms], ARM[[0, 5, 10]])
    assert [arm.get_alpha() for arm in arms] == [0.5, 0.75, 1.0]
    assert [disc.center for disc in axes.patches] == [tuple(PATH[frame]) for frame in (0, 5, 10)]
    assert axes.get_aspect() == 1.0
    drawn(figure)


def test_polylines_chooses_six_frames():
    assert len(plot.polylines([Polyline(ARM)]).axes[0].lines) == 6


def test_polylines_leaves_gaps_for_what_is_not_finite():
    arm = np.full_like(ARM, np.nan)
    figure = plot.polylines([Polyline(arm), Disc(arm[:, 0], 0.1)])
    assert not any(disc.get_visible() for disc in figure.axes[0].patches)
    drawn(figure)


def test_animation_is_resampled_to_real_time(tmp_path):
    uneven = np.array([0.0, 0.1, 1.0])
    animation = Animation(uneven, [Disc([[0.0, 0.0], [1.0, 0.0], [2.0, 1.0]], 0.2)])
    path = plot.save_animation(animation, tmp_path / "throw.gif", fps=5)
    with Image.open(path) as picture:
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append((picture.info["duration"], np.asarray(picture.convert("L"), int)))
    # Frames at 0, 0.2, ..., 1 s; those that repeat may be merged into one that lasts longer.
    assert sum(duration for duration, _ in frames) == 6 * 200
    assert frames[0][0] == 200
    assert np.abs(frames[0][1] - frames[1][1]).max() > 50


def test_animation_refuses_other_suffixes(tmp_path):
    with pytest.raises(InputError, match=r"throw\.mp4: an animation can be written as \.gif only"):
        plot.save_animation(Animation(TIMES, []), tmp_path / "throw.mp4")


SWING = Animation(
    7.0 * TIMES,
    [Polyline(ARM, width=6.0), Disc(PATH, 0.2, colour=1), Disc(np.array([1.0, 0.1]), 0.1, colour=2)],
    trails={"path": PATH},
)


def test_the_frames_of_a_gif_are_what_a_full_drawing_gives(tmp_path):
    path = plot.save_animation(SWING, tmp_path / "a.gif")
    extent = bounds(SWING.shapes, SWING.trails)
    with Image.open(path) as gif:
        gif.seek(3)  # equal frames are one
        frame = np.asarray(gif.convert("RGB"), int)
    with animation_plot.world(SWING.trails, extent, SWING.labels, None) as (figure, axes):
        figure.set_dpi(100)
        for shape in SWING.shapes:
            animation_plot.draw(axes, shape, 3, 1.0)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        full = np.asarray(canvas.buffer_rgba(), int)[..., :3]
    # Flat colours are exact; shades on edges are the nearest of the palette.
    different = np.max(np.abs(frame - full), axis=-1)
    assert np.mean(different == 0) > 0.97
    assert np.mean(different > 40) < 2e-3
    assert tuple(frame[0, 0]) == (255, 255, 255)


def test_a_disc_has_one_radius_on_the_page_and_in_a_figure():
    extent = (0.0, 60.0, -1.0, 20.0)
    shapes = [Disc(PATH, 0.01), Disc(PATH, 2.0)]
    drawn_shapes = [patch.radius for patch in plot.polylines(shapes, extent=extent, frames=[0]).axes[0].patches]
    assert drawn_shapes == [shape["radius"] for shape in Animation(TIMES, shapes, extent=extent).data()["shapes"]]
    assert drawn_shapes == [0.2, 2.0]  # a three-hundredth of the width at least


def test_the_axes_of_a_gif_are_drawn_once(tmp_path, monkeypatch):
    draws, draw = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: (draws.append(canvas), draw(canvas)))
    plot.save_animation(SWING, tmp_path / "a.gif")  # 176 frames
    assert len(draws) <= 2


def test_a_picture_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    for name, save in (
        ("a.gif", lambda path: plot.save_animation(SWING, path)),
        ("a.svg", lambda path: plot.save_figure(plot.learning_curve([1.0, 0.5]), path)),
        ("a.PNG", lambda path: plot.save_figure(plot.learning_curve([1.0, 0.5]), path)),
    ):
        before = save(tmp_path / name).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_disk)
            with pytest.raises(RunError, match="was not saved: No space left on device"):
                save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.PNG", "a.gif", "a.svg"]


def full_disk(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_logarithmic_axes_bounds_and_many_names():
    curves = {str(power): TIMES**power for power in range(1, 10)} | {"bound": TIMES + 1}
    figure = plot.curves(TIMES, curves, "time (s)", "value", log="y", dashed=["bound"])
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(curves)
    assert axes.lines[-1].get_linestyle() == "--"
    assert axes.get_legend() is None
    assert len(figure.legends) == 1
    drawn(figure)


def test_paths_on_a_map():
    figure = plot.field_map(TIMES, TIMES, np.outer(TIMES, TIMES), "x", "y", "loss", paths={"descent": 3 * PATH})
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), 3 * PATH)
    assert axes.get_xlim() == (0.0, 1.0)  # the map's, however far the path goes
    drawn(figure)


def test_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    plot.curves(TIMES, {"arm": TIMES}, "time (s)", "angle (rad)")
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported():
    code = "import sys, diffsim.viz.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    folder = Path(plot.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


def test_pictures_stand_side_by_side_under_their_names():
    figure = plot.pictures({"colour": np.full((8, 12, 3), 1.5), "grey": np.eye(5), "third": np.eye(3)}, columns=2)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["colour", "grey", "third"]
    assert shown[0].images[0].get_array().max() == 1.0


def test_a_band_is_drawn_with_measurements_and_residuals():
    band = CredibleBand(TIMES, 0.1 + 0 * TIMES, TIMES - 0.2, TIMES + 0.2)
    seen = np.where(TIMES > 0.85, np.nan, TIMES + 0.1)
    figure = plot.fit_band(TIMES, seen, band, 0.05, "time (s)", "angle (rad)", level=0.9)
    above, below = figure.axes
    fit, points = above.lines
    np.testing.assert_array_equal(fit.get_ydata(), TIMES)
    np.testing.assert_array_equal(points.get_ydata(), seen)
    np.testing.assert_allclose(below.lines[1].get_ydata()[:5], 2.0)
    assert above.get_legend().get_texts()[0].get_text() == "90% of new measurements"
    assert below.get_xlabel() == "time (s)"
    drawn(figure)


def test_a_profile_is_drawn_with_its_linear_one():
    points = np.array([[1.0, -2.0], [2.0, 0.0], [3.0, 1.5]])
    figure = plot.profile_curve(ProfileLikelihood("x", 2.0, 1.0, 3.0, (False, False), points), 0.5, 1.7, "x (m)")
    linear, profile, *levels = figure.axes[0].lines
    np.testing.assert_array_equal(linear.get_ydata(), [-2.0, 0.0, 2.0])
    np.testing.assert_array_equal(profile.get_xydata(), points)
    assert [line.get_ydata()[0] for line in levels] == [-1.7, 1.7]
    drawn(figure)


def test_a_range_test_shows_its_losses_the_suggested_rate_and_the_divergence():
    rates, losses = np.geomspace(1e-3, 1.0, 4), np.array([4.0, 2.0, 1.0, np.inf])
    smoothed = np.array([4.0, 2.0, 1.0, np.nan])
    figure = plot.learning_rate_range(LearningRateRange(rates, losses, smoothed, rates[1], 1.0), ylabel="miss (m²)")
    (axes,) = figure.axes
    raw, smooth, suggested, divergence = axes.lines
    np.testing.assert_array_equal(raw.get_xydata()[:3], np.column_stack([rates, losses])[:3])
    np.testing.assert_array_equal(smooth.get_ydata()[:3], losses[:3])
    np.testing.assert_allclose(suggested.get_xydata(), [[1e-2, 2.0]])
    assert list(divergence.get_xdata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "smoothed loss",
        "steepest descent: 0.01",
        "diverges: 1",
    ]
    assert (axes.get_xscale(), axes.get_ylabel()) == ("log", "miss (m²)")
    assert axes.get_ylim() == pytest.approx((0.85, 4.15))
    drawn(figure)
    flat = LearningRateRange(rates, np.ones(4), np.ones(4), np.nan, None)
    assert len(plot.learning_rate_range(flat).axes[0].lines) == 2
