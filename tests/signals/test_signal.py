"""Signals and clocks by themselves: values between and beyond knots, derivatives, files, and invalid input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

import diffsim as ds
from diffsim.signals import read_signal

TIMES = np.array([0.0, 1.0, 1.5, 4.0, 4.25, 6.0, 9.0])
VALUES = np.array([1.0, -2.0, 0.5, 3.0, 3.5, -1.0, 2.0])
BETWEEN = np.linspace(0.01, 8.99, 57)


def test_held_and_linear_signals_have_the_values_of_numpy():
    held = VALUES[np.searchsorted(TIMES, BETWEEN, side="right") - 1]
    np.testing.assert_array_equal(ds.signal(TIMES, VALUES, kind="hold")(BETWEEN), held)
    np.testing.assert_allclose(ds.signal(TIMES, VALUES)(BETWEEN), np.interp(BETWEEN, TIMES, VALUES), rtol=1e-14)


def test_an_akima_spline_is_that_of_scipy():
    inside = slice(*np.searchsorted(BETWEEN, TIMES[[2, -3]]))  # its slopes at the ends are matters of convention
    own = ds.signal(TIMES, VALUES, kind="akima")(BETWEEN)
    np.testing.assert_allclose(own[inside], Akima1DInterpolator(TIMES, VALUES)(BETWEEN)[inside], rtol=1e-12)


@pytest.mark.parametrize("kind", ["cubic", "monotonic", "akima"])
def test_cubic_signals_need_the_knots_nearby_alone(kind):
    import interpax

    with jax.numpy_rank_promotion("allow"):
        whole = interpax.interp1d(jnp.asarray(BETWEEN), jnp.asarray(TIMES), jnp.asarray(VALUES), method=kind)
    signal = ds.signal(TIMES, VALUES, kind=kind)
    np.testing.assert_allclose(signal(BETWEEN), whole, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(signal(TIMES), VALUES, rtol=1e-12)


def test_a_monotonic_signal_stays_between_its_knots():
    signal = ds.signal([0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 1.0], kind="monotonic")
    values = signal(np.linspace(0.0, 3.0, 301))
    assert values.min() >= 0.0
    assert values.max() <= 1.0


@pytest.mark.parametrize("kind", ["hold", "linear", "cubic"])
def test_beyond_the_ends_a_signal_does_what_its_name_says(kind):
    beyond = np.array([-3.0, 12.0])
    np.testing.assert_array_equal(ds.signal(TIMES, VALUES, kind=kind)(beyond), VALUES[[0, -1]])
    refused = ds.signal(TIMES, VALUES, kind=kind, outside="refuse")
    assert np.all(np.isnan(refused(beyond)))
    assert np.all(np.isfinite(refused(TIMES)))


@pytest.mark.parametrize("kind", ["hold", "linear", "akima"])
def test_a_periodic_signal_repeats_forward_and_backward(kind):
    signal = ds.signal(TIMES, VALUES, kind=kind, outside="periodic", period=10.0)
    inside = np.linspace(0.05, 9.95, 41)
    for cycle in (-3, -1, 2):
        np.testing.assert_allclose(signal(inside + 10.0 * cycle), signal(inside), rtol=1e-10, atol=1e-10)
    closed = ds.signal([0.0, 1.0, 2.0], [1.0, 3.0, 1.0], outside="periodic")
    np.testing.assert_allclose(closed(np.array([1.5, 2.5, -0.5])), [2.0, 2.0, 2.0], rtol=1e-14)


def test_many_knots_are_found_as_few_are():
    times, values = np.arange(300.0), np.random.default_rng(0).normal(size=(300, 2))
    signal, at = ds.signal(times, values), np.linspace(-1.0, 301.0, 211)
    for column in range(2):
        np.testing.assert_allclose(signal(at)[:, column], np.interp(at, times, values[:, column]), atol=1e-13)


def test_derivatives_by_values_knots_and_time_are_those_of_the_formula():
    def value(times, values, t):
        return ds.signal(times, values)(t)

    times, values, t = jnp.asarray(TIMES), jnp.asarray(VALUES), jnp.array(2.0)
    by_times, by_values, by_t = jax.grad(value, (0, 1, 2))(times, values, t)
    slope = 2.5 / 2.5
    np.testing.assert_allclose(by_values[2:4], [0.8, 0.2], rtol=1e-14)
    np.testing.assert_allclose(by_times[2:4], [-0.8 * slope, -0.2 * slope], rtol=1e-14)
    np.testing.assert_allclose(by_t, slope, rtol=1e-14)
    assert float(jnp.abs(by_values).sum()) == pytest.approx(1.0)


def test_a_clock_is_on_for_its_share_of_each_period():
    clock = ds.clock(0.2, 0.25, phase=0.5)
    at = np.array([0.0, 0.099, 0.101, 0.149, 0.151, 0.301, -0.099, -0.049])
    np.testing.assert_array_equal(clock(at), [0, 0, 1, 1, 0, 1, 1, 0])
    np.testing.assert_allclose(clock.rising.at(jnp.arange(-1, 3)), [-0.1, 0.1, 0.3, 0.5], atol=1e-15)
    np.testing.assert_allclose(clock.falling.at(jnp.arange(2)), [0.15, 0.35], atol=1e-15)
    assert list(ds.parameters(clock)) == ["period", "duty", "phase"]


def test_a_padded_signal_is_the_same_function_of_time():
    for kind in ("hold", "linear"):
        signal = ds.signal(TIMES, VALUES, kind=kind)
        padded = signal.padded(12)
        assert padded.times.shape == (12,)
        np.testing.assert_allclose(padded(BETWEEN), signal(BETWEEN), rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([0.0, 1.0, 1.0], [0, 1, 2]), {}, r"times\[1\]=1, times\[2\]=1 .*must increase"),
        (([0.0, 2.0, 1.0], [0, 1, 2]), {}, r"times\[1\]=2, times\[2\]=1 .*must increase"),
        (([0.0, np.nan], [0, 1]), {}, r"times\[1\]=nan .*finite"),
        (([0.0, 1.0], [0.0, np.nan]), {}, r"values\[1\]=nan .*gap"),
        (([0.0, 1.0], [0.0, 1.0, 2.0]), {}, "2 times has 3 values"),
        (([0.0, 1.0], 1.0), {}, "one value without an axis"),
        (([0.0], [1.0]), {}, "at least 2"),
        (([0.0, 1.0], ["a", "b"]), {}, "real numbers"),
        (([0.0, 1.0], [0.0, 1.0]), {"kind": "step"}, "kind='step'.*hold, linear"),
        (([0.0, 1.0], [0.0, 1.0]), {"outside": "zero"}, "outside='zero'.*refuse"),
        (([0.0, 1.0], [0.0, 1.0]), {"outside": "periodic"}, "make them equal, or give period="),
        (([0.0, 1.0], [0.0, 1.0]), {"outside": "periodic", "period": 0.5}, "longer period"),
        (([0.0, 1.0], [0.0, 1.0]), {"period": 2.0}, 'outside="periodic" too'),
    ],
)
def test_invalid_signals_are_refused(wrong_types, arguments, options, words):
    with pytest.raises(ds.InputError, match=words):
        ds.signal(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0.0,), "period=0"), ((-1.0,), "period=-1"), ((1.0, 1.5), "duty=1.5"), ((1.0, 0.0), "duty=0 .*between 0 and 1")],
)
def test_invalid_clocks_are_refused(arguments, words):
    with pytest.raises(ds.InputError, match=words):
        ds.clock(*arguments)


def test_columns_of_a_file_become_a_signal_with_a_unit(tmp_path):
    path = tmp_path / "drive.csv"
    path.write_text("# a remark\ntime [s],speed (km/h),gear\n0,0,1\n2,36,1\n5,72,2\n")
    speed = read_signal(path, "speed", unit="m/s", factor=1 / 3.6)
    np.testing.assert_allclose(speed(np.array([1.0, 5.0])), [5.0, 20.0], rtol=1e-14)
    assert speed.unit == "m/s"
    assert read_signal(path, "speed").unit == "km/h"
    with pytest.raises(ds.InputError, match=r"no unit for column 'gear'.*unit="):
        read_signal(path, "gear", kind="hold")
    with pytest.raises(ds.InputError, match=r"'speed' in km/h, not in m/s: give factor="):
        read_signal(path, "speed", unit="m/s")
    with pytest.raises(ds.InputError, match=r"'time' in s, not in min: give time_factor="):
        read_signal(path, "speed", time_unit="min")
    with pytest.raises(ds.InputError, match="has no column 'wind'"):
        read_signal(path, "wind", unit="m/s")
    path.write_text("time [s],speed [m/s]\n0,0\n2,1\n2,2\n")
    with pytest.raises(ds.InputError, match=r"line 4: time .*must increase"):
        read_signal(path, "speed")
