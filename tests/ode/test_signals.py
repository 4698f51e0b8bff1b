"""Solves driven by signals and clocks against closed forms: values, derivatives of every kind, and their jumps."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_signals

import diffsim as ds
from diffsim import Event, Phase, Status

RATE = 0.7


def response(times, values, t):
    """The state at `t` of dy/dt = u - 0.7 y from y(0) = 0, where u is zero until times[0] and then held."""
    past = lambda since: jnp.where(t > since, -jnp.expm1(-RATE * (t - since)) / RATE, 0.0)
    steps = jnp.diff(values, prepend=0.0)
    return sum(step * past(since) for step, since in zip(steps, times, strict=True))


def held(times, values):
    """The same input as a signal."""
    before = jnp.concatenate([jnp.array([-9.0], times.dtype), times])
    return ds.signal(before, jnp.concatenate([jnp.zeros(1, values.dtype), values]), kind="hold")


def driven(x, ts, **options):
    """States of the same equation at `ts`, for times x[0] and values x[1]."""
    field = lambda t, y, u: u(t) - RATE * y
    return ds.integrate(field, jnp.zeros((), x.dtype), ts, held(x[0], x[1]), **options)


X = jnp.array([[0.3, 0.8, 1.1], [1.0, -2.0, 3.0]])
ENDS = jnp.array([0.0, 1.5])


@pytest.fixture(scope="module")
def right():
    last = lambda x: response(x[0], x[1], 1.5)
    return last(X), jax.grad(last)(X), jax.hessian(last)(X)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": dfx.Dopri8(), "rtol": 1e-8},
        {"solver": dfx.Kvaerno5(), "rtol": 1e-8},
        {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.05},
        {"adjoint": ds.ReplayAdjoint(memory="jacobians")},
        {"adjoint": ds.ReplayAdjoint(memory="two_levels")},
    ],
    ids=["tsit5", "dopri8", "kvaerno5", "constant", "jacobians", "two_levels"],
)
def test_values_and_derivatives_by_knots_and_values(right, options):
    last = lambda x: driven(x, ENDS, **options)[-1]

    value, reverse = jax.jit(jax.value_and_grad(last))(X)
    np.testing.assert_allclose(value, right[0], rtol=1e-5)
    np.testing.assert_allclose(reverse, right[1], rtol=1e-5, atol=1e-6)


def test_a_batch_in_forward_mode(right):
    last = lambda x: driven(x, ENDS)[-1]
    rows = jnp.stack([X, 0.9 * X])
    forward = jax.jit(jax.vmap(jax.jacfwd(last)))(rows)
    slopes = jax.vmap(jax.grad(lambda x: response(x[0], x[1], 1.5)))(rows)
    np.testing.assert_allclose(forward, slopes, rtol=1e-5, atol=1e-6)


def test_the_hessian_is_that_of_the_closed_form(right):
    hessian = jax.jit(jax.hessian(lambda x: driven(x, ENDS, rtol=1e-9)[-1]))(X)
    np.testing.assert_allclose(hessian, right[2], atol=1e-5)


def test_single_precision():
    x = X.astype(jnp.float32)
    value, slopes = jax.value_and_grad(lambda x: driven(x, ENDS.astype(jnp.float32))[-1])(x)
    assert value.dtype == slopes.dtype == jnp.float32
    np.testing.assert_allclose(value, response(X[0], X[1], 1.5), rtol=1e-4)
    np.testing.assert_allclose(slopes, jax.grad(lambda x: response(x[0], x[1], 1.5))(X), rtol=1e-3, atol=1e-4)
    assert ds.clock(jnp.float32(0.1), 0.2)(jnp.float32(0.0)).dtype == jnp.float32


@pytest.mark.parametrize("backward", [False, True])
def test_states_at_knots_are_those_before_the_jump(backward):
    ts = jnp.array([0.0, 0.3, jnp.nextafter(0.3, 1.0), 0.8, 1.1, 1.5])[jnp.array([0, 1, 3, 4, 5])]
    states = np.array([float(response(X[0], X[1], t)) for t in ts])
    start = jnp.array(states[-1 if backward else 0])
    ts, states = (ts[::-1], states[::-1]) if backward else (ts, states)
    field = lambda t, y, u: u(t) - RATE * y
    solution = ds.solve(field, start, ts, held(X[0], X[1]), rtol=1e-9, dense=True)
    np.testing.assert_allclose(solution.ys, states, atol=1e-8)
    about = np.array([0.3 - 1e-15, 0.3 - 6e-17, 0.3, 0.3 + 6e-17, 0.3 + 1e-16, 0.3 + 1e-15, 0.8, 1.1])
    np.testing.assert_allclose(solution.evaluate(about), [float(response(*X, t)) for t in about], atol=1e-8)


def test_states_at_knots_at_the_ends():
    u = ds.signal(np.array([-1.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0]), kind="hold")
    phase = Phase(lambda t, y, u: u(t) + 0 * y)
    end = ds.integrate_phase(phase, 0.0, jnp.array(0.5), u, t1=1.0, ts=jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(end.ys, [0.5, 1.5, 2.5], rtol=1e-12)
    assert end.t == 1.0


@pytest.mark.parametrize("at", [0.0, 1e-7, 1.0])
def test_jumps_of_several_signals_at_one_time_have_derivatives_of_their_own(at):
    @jax.jit
    def both(p):
        last = lambda p: ds.integrate(
            lambda t, y, u: sum(signal(t) for signal in u),
            jnp.array(0.0),
            jnp.array([-1.0, 1.5]),
            [held(p[i : i + 1], jnp.array([float(size)])) for i, size in enumerate((1, 10))],
        )[-1]
        return jax.value_and_grad(last)(p)

    value, reverse = both(jnp.full(2, at))
    np.testing.assert_allclose(value, 11 * (1.5 - at), rtol=1e-9)
    np.testing.assert_allclose(reverse, [-1.0, -10.0], rtol=1e-9)


def test_knots_very_close_to_each_other():
    x = jnp.array([[0.3, 0.3 + 1e-9, 1.1], [1.0, -2.0, 3.0]])
    slopes = jax.grad(lambda x: driven(x, ENDS)[-1])(x)
    np.testing.assert_allclose(slopes, jax.grad(lambda x: response(x[0], x[1], 1.5))(x), rtol=1e-5, atol=1e-6)


def test_a_signal_within_a_function_that_is_compiled_by_itself():
    inner = jax.jit(lambda u, t: u(t))
    field = lambda t, y, u: inner(u, t) - RATE * y
    last = lambda x: ds.integrate(field, jnp.array(0.0), ENDS, held(x[0], x[1]))[-1]
    slopes = jax.grad(last)(X)
    np.testing.assert_allclose(slopes, jax.grad(lambda x: response(x[0], x[1], 1.5))(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("period", "duty", "time"), [(1e-2, 0.37, 1.0), (1e-2, 1e-4, 1.0), (1e-7, 0.4, 1e-5)])
def test_the_mean_of_a_fast_clock(period, duty, time):
    def last(p):
        field = lambda t, y, u: (u(t) - y) / time
        ends = time * jnp.array([0.0, 1.0051])
        return ds.integrate(field, jnp.array(0.0), ends, ds.clock(*p), max_steps=4096)[-1]

    def right(p):
        low = jnp.clip((jnp.arange(120) + p[2]) * p[0], 0.0, 1.0051 * time)
        high = jnp.clip((jnp.arange(120) + p[2] + p[1]) * p[0], 0.0, 1.0051 * time)
        return jnp.sum(jnp.exp(high / time - 1.0051) - jnp.exp(low / time - 1.0051))

    p = jnp.array([period, duty, 0.2])
    value, slopes = jax.jit(jax.value_and_grad(last))(p)
    np.testing.assert_allclose(value, right(p), rtol=1e-6)
    np.testing.assert_allclose(slopes * p, jax.grad(right)(p) * p, rtol=1e-6, atol=1e-9)


def threshold_phase(*which):
    """A phase in which the state rises by 0.1 per second, and a threshold falls from 5 to -5 at a time of its own.

    Two events cross there; each counts in a component of its own, and so does an event at the time 1.
    """
    count = lambda i: lambda t, y, u: y.at[i].add(1.0)
    events = {
        "first": Event(lambda t, y, u: y[0] - u(t), "rising", count(1), to=0),
        "second": Event(lambda t, y, u: 2 * y[0] - u(t) - 0.5, "rising", count(2), to=0),
        "timed": ds.TimeEvent(1.0, count(3), to=0),
    }
    return Phase(lambda t, y, u: jnp.array([0.1, 0.0, 0.0, 0.0]), [events[name] for name in which])


@pytest.mark.parametrize(
    ("which", "counts"),
    [
        (("first",), (1, 0, 0)),
        (("first", "second"), (1, 1, 0)),
        (("timed", "first"), (1, 0, 1)),
        (("first", "timed", "second"), (1, 1, 1)),
    ],
    ids=["one", "two", "with_time_event", "all"],
)
def test_every_event_that_a_jump_brings_across_zero_happens(which, counts):
    threshold = ds.signal(np.array([0.0, 1.0]), np.array([5.0, -5.0]), kind="hold")
    end = ds.integrate_hybrid(threshold_phase(*which), jnp.zeros(4), threshold, t1=2.0)
    assert int(end.status) == Status.FINISHED
    np.testing.assert_allclose(end.y, [0.2, *counts], rtol=1e-9)
    np.testing.assert_allclose(end.event_t[: len(which)], 1.0, rtol=1e-12)


def test_an_event_at_a_jump_moves_with_the_jump_and_one_elsewhere_with_its_root():
    def time(p):
        threshold = held(p[:1], p[1:2])
        rising = Event(lambda t, y, u: y - 2.0 + u(t), "rising")
        return ds.integrate_phase(Phase(lambda t, y, u: jnp.ones(()), rising), 0.0, 0.0, threshold, t1=3.0).t

    np.testing.assert_allclose(jax.grad(time)(jnp.array([1.0, 1.5])), [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(jax.grad(time)(jnp.array([1.0, 0.5])), [0.0, -1.0], atol=1e-9)


def check(kind: str, seed: int, count: int) -> None:
    outcome = random_signals.outcome(kind, seed, count)
    assert not outcome.wrong.size, f"{kind}, seed {seed}: {outcome.wrong}, errors {outcome.slope[outcome.wrong]}"
    assert np.all(outcome.status == Status.FINISHED)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(6))
def test_many(seed):
    """360 systems with one to three inputs; `random_signals.py` searches any number."""
    check("driven", seed, 60)
