"""One event: its time, state and derivatives against closed forms, which of several comes first, and how it fails."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, InputError, Phase, Status, integrate_phase

TIGHT = dfx.PIDController(rtol=1e-11, atol=1e-13)


def line(t, y, args):
    return jnp.ones_like(y)


def at(height, direction="both", **more):
    return Event(lambda t, y, args: y - height, direction, **more)


def end(phase, y0=0.0, args=None, t1=10.0, **options):
    """The end of a phase, compiled."""
    options = {"stepsize_controller": TIGHT, "max_steps": 128} | options
    return jax.jit(lambda y0, args: integrate_phase(phase, 0.0, y0, args, t1=t1, **options))(jnp.asarray(y0), args)


@pytest.mark.parametrize("heights", [(0.31, 0.37), (0.37, 0.31)])
def test_the_earlier_of_two_events_in_one_step_wins(heights):
    result = end(Phase(line, (at(heights[0]), at(heights[1], "rising"))), dt0=1.0)
    assert result.status == Status.FINISHED
    assert result.event == heights.index(0.31)
    # A straight line: rounding.
    assert result.t == pytest.approx(0.31, rel=1e-14)


@pytest.mark.parametrize("direction", ["both", "falling"])
def test_an_event_does_not_fire_again_at_its_own_restart(direction):
    # Thrown up from the ground with 3 m/s: it comes back at 2 v / g = 0.6 s.
    throw = Phase(
        lambda t, y, a: jnp.stack([y[1], -10.0 * jnp.ones_like(t)]), (Event(lambda t, y, a: y[0], direction),)
    )
    for height in (0.0, 1e-16, -1e-16):
        result = end(throw, jnp.array([height, 3.0]))
        assert result.status == Status.FINISHED
        assert result.t == pytest.approx(0.6, rel=1e-12)


def test_two_crossings_within_one_step():
    twice = lambda t, y, a: (y - 0.31) * (y - 0.37)
    for direction, time in (("both", 0.31), ("falling", 0.31), ("rising", 0.37)):
        result = end(Phase(line, (Event(twice, direction),)), dt0=1.0)
        assert result.status == Status.FINISHED
        # A root of a parabola with slope 0.06: rounding divided by it.
        assert result.t == pytest.approx(time, rel=1e-13)


def throw_through(height, direction):
    """The phase of a ball under 10 m/s^2 with an event at a height."""
    fall = lambda t, y, a: jnp.stack([y[1], -10.0 * jnp.ones_like(t)])
    return Phase(fall, (Event(lambda t, y, a: y[0] - height, direction),))


@pytest.mark.parametrize(("direction", "sign"), [("rising", -1), ("falling", 1)])
def test_a_ball_thrown_through_a_height_within_one_step(direction, sign):
    result = end(
        throw_through(4.9, direction), jnp.array([0.0, 10.0]), dt0=3.0, stepsize_controller=dfx.ConstantStepSize()
    )
    assert result.status == Status.FINISHED
    # 10 t - 5 t^2 = 4.9.
    assert result.t == pytest.approx(1 + sign * np.sqrt(0.02), rel=1e-12)


def test_a_touched_event_grazes():
    result = end(throw_through(5.0, "both"), jnp.array([0.0, 10.0]))
    assert result.status == Status.GRAZING
    # Near a double root a rounding of 1e-16 moves the time by its square root.
    assert result.t == pytest.approx(1.0, abs=1e-6)


def test_an_event_that_is_not_met():
    result = end(throw_through(5.1, "both"), jnp.array([0.0, 10.0]), t1=3.0)
    assert result.status == Status.EVENT_NOT_FOUND
    assert result.event == -1
    assert result.t == 3.0
    assert np.all(np.isnan(result.next_y))
    np.testing.assert_allclose(result.y, [10 * 3 - 45, 10 - 30], rtol=1e-12)


def test_failures_have_a_status():
    blow_up = end(Phase(lambda t, y, a: y**2, (at(-1.0),)), 1.0, max_steps=512)
    assert blow_up.status in (Status.NON_FINITE, Status.STEP_LIMIT)
    assert np.isnan(blow_up.next_y)
    short = end(Phase(lambda t, y, a: -y, (at(1e-3),)), 1.0, max_steps=4)
    assert short.status == Status.STEP_LIMIT
    assert short.steps == 4


def arrival_time(p, direction="falling", **options):
    """When y = exp(-p0 t) has fallen to p1: log(1 / p1) / p0. Field and event close over p; so does the reset."""
    phase = Phase(
        lambda t, y, args: -p[0] * y, (Event(lambda t, y, args: y - p[1], direction, lambda t, y, a: p[0] * y),)
    )
    options = {"stepsize_controller": TIGHT, "max_steps": 128} | options
    result = integrate_phase(phase, 0.0, jnp.array(1.0), t1=20.0, **options)
    return jnp.stack([result.t, result.next_y])


def exact_arrival(p):
    return jnp.stack([-jnp.log(p[1]) / p[0], p[0] * p[1]])


@pytest.mark.parametrize("mode", ["auto", pytest.param("replay", marks=pytest.mark.exhaustive)])
def test_closures_over_differentiated_values(mode):
    chosen = lambda p: arrival_time(p, mode=mode)
    p = jnp.array([0.8, 0.3])
    third = lambda f: jax.jacfwd(jax.jacfwd(jax.jacfwd(f)))
    both = jax.jit(
        lambda p: (
            jax.jacfwd(chosen)(p),
            jax.jacrev(chosen)(p),
            jax.hessian(lambda p: chosen(p)[0])(p),
            jax.jacfwd(lambda p: arrival_time(p, mode="forward"))(p),
            third(lambda p: arrival_time(p, mode="forward")[0])(p),
        )
    )
    forward, reverse, hessian, one_pass, cubes = both(p)
    # The controller's 1e-11, times the hundred steps at most and the second derivative's sixteenfold size.
    np.testing.assert_allclose(forward, jax.jacfwd(exact_arrival)(p), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(hessian, jax.hessian(lambda p: exact_arrival(p)[0])(p), rtol=1e-8)
    # The same steps: rounding.
    np.testing.assert_allclose(reverse, forward, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(one_pass, forward, rtol=1e-11, atol=1e-12)
    # The solution's own third derivative is off by 2.4e-7 with these tolerances, by 1.7e-8 with a hundredth of them.
    np.testing.assert_allclose(cubes, third(lambda p: exact_arrival(p)[0])(p), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": dfx.Dopri8()},
        {"solver": dfx.Dopri8(), "mode": "replay"},
        {"solver": dfx.Kvaerno5(), "stepsize_controller": dfx.PIDController(rtol=1e-9, atol=1e-11)},
        {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 1 / 64},
    ],
    ids=["Dopri8", "Dopri8 replayed", "Kvaerno5", "constant steps"],
)
def test_other_solvers_find_the_same_event(options):
    p = jnp.array([0.8, 0.3])
    value, gradient = jax.jit(jax.value_and_grad(lambda p: arrival_time(p, **options)[0]))(p)
    # Kvaerno5 at rtol 1e-9 is the least accurate of the three.
    np.testing.assert_allclose(value, exact_arrival(p)[0], rtol=1e-7)
    np.testing.assert_allclose(gradient, jax.grad(lambda p: exact_arrival(p)[0])(p), rtol=1e-6)


def test_limits_report_the_lowest_value_even_within_a_step():
    dip = lambda t, y, a: (y - 0.43) ** 2 - 0.01
    slope = lambda t, y, a: 3.0 - y
    phase = Phase(line, (at(2.0),), (dip, slope))
    result = end(phase, dt0=1.0, stepsize_controller=dfx.ConstantStepSize())
    # A parabola and a line are their own cubics: rounding.
    np.testing.assert_allclose(result.lowest, [-0.01, 1.0], rtol=1e-12)
    assert result.status == Status.FINISHED


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (lambda t, y, a: y > 3, r"returned bool of shape \(\); .*for `x > 3` write `x - 3`"),
        (lambda t, y, a: jnp.stack([y, y]), r"returned float64 of shape \(2,\); it must return one real number"),
    ],
    ids=["boolean", "vector"],
)
def test_an_event_is_one_real_number(event, message):
    with pytest.raises(InputError, match=message):
        integrate_phase(Phase(line, (Event(event),)), 0.0, 0.0, t1=1.0)
    with pytest.raises(InputError, match=message):
        integrate_phase(Phase(line, (), (event,)), 0.0, 0.0, t1=1.0)


@pytest.mark.usefixtures("wrong_types")
def test_other_bad_input():
    with pytest.raises(InputError, match=r"direction='up' of an Event: use one of rising, falling, both"):
        Event(lambda t, y, a: y, "up")
    with pytest.raises(InputError, match=r"""mode='reverse': use "auto", "replay" or "forward\""""):
        integrate_phase(Phase(line), 0.0, 0.0, t1=1.0, mode="reverse")
