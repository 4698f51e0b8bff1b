"""Repeated events: twenty bounces and a thermostat against their closed forms, in every mode of differentiation."""

import functools

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, InputError, Phase, Status, forward_mode, integrate_hybrid
from diffsim.systems import bouncing_ball as bb

TIGHT = dfx.PIDController(rtol=1e-11, atol=1e-13)
BOUNCES = 20
X = jnp.array([9.80665, 0.9, 1.0])  # gravity, restitution, height


def ball(x) -> bb.BouncingBall:
    return bb.BouncingBall(g=x[0], restitution=x[1], height=x[2])


def bounces(x, count=BOUNCES, **options):
    """Times of the impacts and the speeds with which the ball meets the ground."""
    p = ball(x)
    options = {"t1": 100.0, "max_events": count, "max_steps": 64} | options
    run = integrate_hybrid((bb.FALLING,), bb.start(p), p, **options)
    return jnp.concatenate([run.event_t, -run.event_y.velocity]), run


def closed_form(x, count=BOUNCES):
    p = ball(x)
    speeds = jnp.sqrt(2 * p.g * p.height) * p.restitution ** jnp.arange(count)
    return jnp.concatenate([bb.bounce_times(p, count), speeds])


@pytest.fixture(scope="module", params=["auto", pytest.param("replay", marks=pytest.mark.exhaustive)])
def modes(request):
    """Twenty bounces and the derivatives of their mean in every mode."""
    bounced = functools.partial(bounces, mode=request.param)
    total = lambda x: jnp.mean(bounced(x)[0])
    forward = lambda x: bounces(x, mode="forward")[0]
    both = jnp.stack([X, jnp.array([3.7, 0.8, 2.0])])

    def everything(x):
        return {
            "value": bounced(x)[0],
            "jacfwd": jax.jacfwd(lambda x: bounced(x)[0])(x),
            "grad": jax.grad(total)(x),
            "hessian": jax.hessian(total)(x),
            "forward value": forward(x),
            "forward jacfwd": jax.jacfwd(forward)(x),
            "few inputs": jax.grad(forward_mode(lambda x: jnp.mean(forward(x))))(x),
            "vmap of grad": jax.vmap(jax.grad(total))(both),
            "grad of vmap": jax.grad(lambda xs: jnp.sum(jax.vmap(total)(xs)))(both),
        }

    return both, jax.jit(everything)(X)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("value", closed_form),
        ("forward value", closed_form),
        ("jacfwd", jax.jacfwd(closed_form)),
        ("forward jacfwd", jax.jacfwd(closed_form)),
        ("grad", jax.grad(lambda x: jnp.mean(closed_form(x)))),
        ("few inputs", jax.grad(lambda x: jnp.mean(closed_form(x)))),
        ("hessian", jax.hessian(lambda x: jnp.mean(closed_form(x)))),
    ],
)
def test_bounces_and_their_derivatives_have_their_closed_form(modes, name, exact):
    # The solver is exact for a parabola: rounding only, which twenty bounces repeat.
    np.testing.assert_allclose(modes[1][name], exact(X), rtol=1e-9, atol=1e-12)


def test_batches_follow_each_one(modes):
    both, batched = modes
    exact = jax.vmap(jax.grad(lambda x: jnp.mean(closed_form(x))))(both)
    np.testing.assert_allclose(batched["vmap of grad"], exact, rtol=1e-9)
    # The same sums in the same order.
    np.testing.assert_allclose(batched["grad of vmap"], batched["vmap of grad"], rtol=1e-12)


def test_event_limit_and_records():
    run = jax.jit(lambda x: bounces(x, 5)[1])(X)
    assert run.status == Status.EVENT_LIMIT
    assert run.num_events == 5
    assert np.array_equal(run.event_index, np.zeros(5))
    _, run = jax.jit(lambda x: bounces(x, 5, t1=1.5))(X)
    assert run.status == Status.FINISHED
    assert run.num_events == 2
    assert run.t == 1.5
    assert np.array_equal(run.event_phase, [0, 0, -1, -1, -1])
    assert np.array_equal(np.isnan(run.event_t), [False, False, True, True, True])


def exact_states(x, ts):
    """Heights and velocities at `ts`, from the impact before each."""
    impacts, speeds = closed_form(x, 8).reshape(2, 8)
    row = jnp.searchsorted(jax.lax.stop_gradient(impacts), ts, side="right")
    fell = row == 0
    last = jnp.maximum(row - 1, 0)
    since = jnp.where(fell, ts, ts - impacts[last])
    up = jnp.where(fell, 0.0, x[1] * speeds[last])
    height = jnp.where(fell, x[2], 0.0) + up * since - 0.5 * x[0] * since**2
    return jnp.stack([height, up - x[0] * since])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", pytest.param("replay", marks=pytest.mark.exhaustive)])
def test_states_at_given_times_across_events_and_their_gradient(mode):
    ts = jnp.linspace(0.0, 2.0, 41)
    inside = np.asarray(ts < 1.92)

    def states(x):
        ys = bounces(x, 8, t1=1.92, ts=ts, mode=mode)[1].ys
        return jnp.stack(ys)

    total = lambda ys: jnp.sum(jnp.where(inside[None], jnp.cos(jnp.arange(82.0)).reshape(2, 41) * ys, 0.0))
    ys, gradient = jax.jit(lambda x: (states(x), jax.grad(lambda x: total(states(x)))(x)))(X)
    # A parabola again: rounding.
    np.testing.assert_allclose(ys[:, inside], exact_states(X, ts)[:, inside], rtol=0, atol=1e-9)
    assert np.all(np.isnan(ys[:, ~inside]))
    expected = jax.grad(lambda x: total(exact_states(x, ts)))(X)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)


def at(height, direction, to):
    return Event(lambda t, y, args: y - height, direction, to=to)


def thermostat(x, count=6, **options):
    """Switching times of a heater that works up to 22 and rests down to 20 degrees; x: rate, outside, power."""
    cool = lambda t, y, x: -x[0] * (y - x[1])
    heat = lambda t, y, x: -x[0] * (y - x[1] - x[2])
    heating = Phase(heat, (at(22.0, "rising", 1),))
    cooling = Phase(cool, (at(20.0, "falling", 0),))
    options = {"stepsize_controller": TIGHT, "max_steps": 64, "max_events": count} | options
    return integrate_hybrid((heating, cooling), jnp.array(20.0), x, t1=1e3, **options)


def thermostat_times(x, count=6):
    up = jnp.log((20.0 - x[1] - x[2]) / (22.0 - x[1] - x[2])) / x[0]
    down = jnp.log((22.0 - x[1]) / (20.0 - x[1])) / x[0]
    return jnp.cumsum(jnp.where(jnp.arange(count) % 2 == 0, up, down))


@pytest.mark.slow
def test_two_phases_take_turns():
    x = jnp.array([0.5, 5.0, 40.0])
    run, jacobian = jax.jit(lambda x: (thermostat(x), jax.jacrev(lambda x: thermostat(x).event_t)(x)))(x)
    assert np.array_equal(run.event_phase, [0, 1, 0, 1, 0, 1])
    assert run.phase == 0
    # Six phases with the controller's 1e-11 over some tens of steps each.
    np.testing.assert_allclose(run.event_t, thermostat_times(x), rtol=1e-9)
    np.testing.assert_allclose(run.event_y, [22, 20, 22, 20, 22, 20], rtol=1e-13)
    np.testing.assert_allclose(jacobian, jax.jacfwd(thermostat_times)(x), rtol=1e-8, atol=1e-9)


def test_the_program_does_not_grow_with_the_number_of_events():
    def size(count):
        return len(jax.jit(lambda x: bounces(x, count)[0]).lower(X).as_text())

    # The numbers 5 and 50 occur in some shapes only.
    assert size(50) == pytest.approx(size(5), rel=0.01)


def test_bad_input():
    at_rest = lambda t, y, args: jnp.zeros_like(y)
    with pytest.raises(InputError, match=r"Event\.to=2: there are 1 phases, numbered from 0"):
        integrate_hybrid((Phase(at_rest, (at(1.0, "both", 2),)),), 0.0, t1=1.0)
    with pytest.raises(InputError, match=r"initial_phase=1: there are 1 phases"):
        integrate_hybrid((Phase(at_rest),), 0.0, t1=1.0, initial_phase=1)
    with pytest.raises(InputError, match=r"phases is empty"):
        integrate_hybrid((), 0.0, t1=1.0)


def last_height(x, **options):
    """The height at a given time, the last entry of `x`, after two bounces."""
    _, run = bounces(x[:3], t1=x[3], max_events=8, **options)
    return run.y.height


def exact_last_height(x):
    p, after = ball(x[:3]), x[3] - bb.bounce_times(ball(x[:3]), 2)[1]
    return p.restitution**2 * jnp.sqrt(2 * p.g * p.height) * after - 0.5 * p.g * after**2


@pytest.mark.exhaustive
def test_the_state_at_a_fixed_time_after_events_has_its_derivatives():
    # Its phase begins at an event, whose time moves with the parameters; the end does not.
    x = jnp.concatenate([X, jnp.array([1.6])])
    value, slope, curvature = (f(exact_last_height)(x) for f in (lambda f: f, jax.grad, jax.hessian))
    np.testing.assert_allclose(jax.jit(last_height)(x), value, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.grad(last_height))(x), slope, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda x: last_height(x, mode="replay")))(x), slope, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(lambda x: last_height(x, mode="forward")))(x), slope, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.hessian(last_height))(x), curvature, rtol=1e-8, atol=1e-8)
