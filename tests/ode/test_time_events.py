"""Events at known times against closed forms: values, derivatives, coincidences, ends, batches, and invalid input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_signals

import diffsim as ds
from diffsim import Event, Phase, Status, TimeEvent, integrate_hybrid, integrate_phase

RATE, END = 0.5, 5.0
DOSE = TimeEvent(lambda x: x[0], reset=lambda t, y, x: y + x[1, 0], to=0)
DRUG = Phase(lambda t, y, x: -RATE * y, DOSE)
X = jnp.array([[3.0, 1.0, 1.5], [10.0, 0.0, 0.0]])  # times in any order, and the dose


def level(x, **options):
    """What is left at the end of doses at the times x[0]."""
    return integrate_hybrid(DRUG, jnp.zeros((), x.dtype), x, t1=END, max_events=6, **options).y


def left(x):
    """The same in closed form."""
    return x[1, 0] * jnp.sum(jnp.exp(-RATE * (END - x[0])))


@pytest.mark.parametrize("options", [{}, {"mode": "replay"}, {"memory": "states"}], ids=["auto", "replay", "states"])
def test_doses_and_their_derivatives(options):
    value, slopes = jax.jit(jax.value_and_grad(lambda x: level(x, **options)))(X)
    np.testing.assert_allclose(value, left(X), rtol=1e-7)
    np.testing.assert_allclose(slopes, jax.grad(left)(X), rtol=1e-6, atol=1e-8)


def test_a_batch_in_forward_mode():
    rows = jnp.stack([X, X.at[0, 2].set(6.0)])  # a dose after the end does not happen
    forward = jax.jit(jax.vmap(jax.jacfwd(lambda x: level(x, mode="forward"))))(rows)
    right = jax.vmap(jax.grad(left))(rows)
    right = right.at[1, 0, 2].set(0.0).at[1, 1, 0].add(-np.exp(RATE))
    np.testing.assert_allclose(forward, right, rtol=1e-6, atol=1e-8)


def test_the_hessian_is_that_of_the_closed_form():
    two = X[:, :2]
    hessian = jax.jit(jax.hessian(lambda x: integrate_hybrid(DRUG, 0.0, x, t1=END, max_events=3).y))(two)
    np.testing.assert_allclose(hessian, jax.hessian(left)(two), rtol=1e-5, atol=1e-6)


def test_single_precision():
    value, slopes = jax.value_and_grad(level)(X.astype(jnp.float32))
    np.testing.assert_allclose(value, left(X), rtol=1e-5)
    np.testing.assert_allclose(slopes, jax.grad(left)(X), rtol=1e-4, atol=1e-5)


def test_events_at_one_time_happen_in_the_order_of_the_list():
    add = TimeEvent(lambda x: x[0], lambda t, y, x: y + 1.0, to=0)
    double = TimeEvent(lambda x: x[1], lambda t, y, x: 2.0 * y, to=0)
    last = lambda events: lambda x: integrate_hybrid(Phase(lambda t, y, x: y, events), 0.0, x, t1=2.0).y
    x = jnp.array([0.1 + 0.2, 0.3])  # one time up to rounding
    for events, right in (((add, double), 2.0), ((double, add), 1.0)):
        value, slopes = jax.value_and_grad(last(events))(x)
        np.testing.assert_allclose(value, right * np.exp(1.7), rtol=1e-7)
        # y grows between the first event and the second, whichever parameter moves.
        np.testing.assert_allclose(slopes, [-right * np.exp(1.7), 0.0], atol=1e-6)


@pytest.mark.parametrize("backward", [False, True])
def test_events_at_both_ends_count_and_those_beyond_do_not(backward):
    t0, t1 = (2.0, 0.0) if backward else (0.0, 2.0)
    count = TimeEvent(jnp.array([-0.5, 0.0, 0.7, 0.7, 2.0, 2.5]), lambda t, y, x: y + 1.0, to=0)
    end = integrate_hybrid(Phase(lambda t, y, x: 0 * y, count), 0.0, t0=t0, t1=t1, ts=jnp.array([0.0, 0.7, 1.0, 2.0]))
    assert int(end.status) == Status.FINISHED
    assert float(end.y) == 3.0  # a time that is given twice counts once
    np.testing.assert_allclose(end.event_t[:3], [2.0, 0.7, 0.0] if backward else [0.0, 0.7, 2.0], rtol=1e-14)
    np.testing.assert_array_equal(end.ys, [3, 2, 1, 1] if backward else [1, 2, 2, 3])


def test_edges_of_a_clock_switch_phases():
    on = Phase(lambda t, y, c: jnp.ones(()), TimeEvent(lambda c: c.falling, to=1))
    off = Phase(lambda t, y, c: jnp.zeros(()), TimeEvent(lambda c: c.rising, to=0))
    last = lambda p: integrate_hybrid((on, off), 0.0, ds.clock(*p), t1=1.0, initial_phase=1).y
    p = jnp.array([0.3, 0.4, 0.1])  # on from 0.03 to 0.15, and so on, and from 0.93 to the end
    value, slopes = jax.jit(jax.value_and_grad(last))(p)
    np.testing.assert_allclose(value, 3 * 0.12 + 0.07, rtol=1e-9)
    np.testing.assert_allclose(slopes, [3 * 0.4 - 3.1, 3 * 0.3, -0.3], rtol=1e-7)


def test_an_event_at_the_time_of_a_jump_sees_the_field_before_and_behind_it():
    def last(p):
        u = ds.signal(jnp.stack([jnp.array(-1.0), p[1]]), jnp.array([1.0, 3.0]), kind="hold")
        double = TimeEvent(lambda x: x[0], lambda t, y, x: 2.0 * y, to=0)
        phase = Phase(lambda t, y, x: x[1](t), double)
        end = integrate_hybrid(phase, 0.0, (p[0], u), t1=2.0, ts=jnp.array([0.5, 1.0]))
        return end.y, (end.ys, end.event_t[0])

    (value, (states, time)), slopes = jax.value_and_grad(last, has_aux=True)(jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(value, 2.0 + 3.0, rtol=1e-9)
    np.testing.assert_allclose(slopes, [1.0, -2.0], rtol=1e-9)
    np.testing.assert_allclose(states, [0.5, 2.0], rtol=1e-9)
    assert time == 1.0


def test_a_state_event_at_the_time_of_a_time_event():
    dose = TimeEvent(1.0, lambda t, y, x: y + jnp.array([0.0, 1.0]), to=0)
    wrap = Event(lambda t, y, x: y[0] - 1.0, "rising", lambda t, y, x: y - jnp.array([1.0, 0.0]), to=0)
    for events in ((dose, wrap), (wrap, dose)):
        phase = Phase(lambda t, y, x: jnp.stack([x, 0 * x]), events)
        end = integrate_hybrid(phase, jnp.zeros(2), jnp.array(1.0), t1=1.5)
        np.testing.assert_allclose(end.y, [0.5, 1.0], rtol=1e-9)
        assert int(end.num_events) == 2


def test_without_a_next_phase_the_trajectory_ends():
    end = integrate_phase(Phase(lambda t, y, x: -y, TimeEvent(0.7)), 0.0, 1.0, t1=9.0)
    assert int(end.event) == 0
    np.testing.assert_allclose([end.t, end.y], [0.7, np.exp(-0.7)], rtol=1e-7)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (jnp.array([0.0, jnp.nan]), "finite times; leave out"),
        (jnp.inf, "finite times; leave out"),
        (jnp.zeros(0), "give a time, an array of times, or clock.rising"),
        (jnp.array([1j]), "give a time, an array of times, or clock.rising"),
        (None, "give a time, an array of times, or clock.rising"),
    ],
)
def test_invalid_times_are_refused(wrong_types, times, words):
    with pytest.raises(ds.InputError, match=words):
        integrate_phase(Phase(lambda t, y, x: -y, TimeEvent(lambda x: times)), 0.0, 1.0, t1=9.0)


def test_times_that_are_not_finite_when_compiled_are_a_status():
    run = jax.jit(
        lambda time: integrate_phase(Phase(lambda t, y, x: -y, TimeEvent(lambda x: x)), 0.0, 1.0, time, t1=9.0)
    )
    assert int(run(jnp.array(jnp.nan)).status) == Status.INVALID_INPUT
    assert int(run(jnp.array(2.0)).status) == Status.FINISHED


def check(kind: str, seed: int, count: int) -> None:
    outcome = random_signals.outcome(kind, seed, count)
    assert not outcome.wrong.size, f"{kind}, seed {seed}: {outcome.wrong}, errors {outcome.slope[outcome.wrong]}"
    assert np.all(outcome.status == Status.FINISHED)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "seed"), [("dosed", 0), ("dosed", 1), ("dosed", 3), ("thermostat", 0), ("thermostat", 1)]
)
def test_many(kind, seed):
    """300 systems; `random_signals.py` searches any number."""
    check(kind, seed, 60)
