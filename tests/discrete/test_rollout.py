"""Rollouts: against their closed form, however their memory is chosen, with and without decay, and bad input."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from diffsim import InputError, rollout, testing, zero_order_hold
from diffsim.systems.cartpole import CartPole
from diffsim.systems.cartpole import State as CartState
from diffsim.systems.cartpole import step as step_cartpole


def step(factor):
    return lambda state, push: (factor * state[0] + push, state[1] + state[0])


def loss(factor, pushes, **options):
    (last, _), (x, total) = rollout(step(factor), (jnp.array(1.0), jnp.array(0.0)), pushes, **options)
    return last + 0.1 * jnp.sum(x) + total[-1]


def by_hand(factor, pushes, decay=1.0):
    x, total, every = jnp.array(1.0), jnp.array(0.0), []
    for push in pushes:
        held = lambda y: decay * y + jax.lax.stop_gradient((1 - decay) * y)
        x, total = factor * held(x) + push, held(total) + held(x)
        every.append(x)
    return x + 0.1 * sum(every) + total


PUSHES = jnp.cos(jnp.arange(23.0))


@pytest.mark.parametrize("options", [{}, {"stretch": 1}, {"stretch": 5}, {"stretch": 23}, {"decay": 0.9}], ids=str)
def test_value_and_derivatives_in_every_mode(options):
    own = lambda f: loss(f, PUSHES, **options)
    hand = lambda f: by_hand(f, PUSHES, options.get("decay", 1.0))
    f = jnp.array(0.97)
    for found, expected in (
        (own, hand),
        (jax.grad(own), jax.grad(hand)),
        (jax.jacfwd(own), jax.grad(hand)),
        (jax.hessian(own), jax.hessian(hand)),
    ):
        # The same operations in the same order: rounding.
        np.testing.assert_allclose(jax.jit(found)(f), expected(f), rtol=1e-12)
    many = jnp.array([0.9, 1.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(own)))(many)[1], jax.grad(hand)(many[1]), rtol=1e-12)


def test_long_rollouts_keep_the_square_root_of_their_states():
    def temporary(stretch):
        turn = lambda f: rollout(lambda x, _: jnp.sin(f * x), jnp.ones(64), length=10_000, **stretch)
        cost = jax.grad(lambda f: jnp.sum(turn(f)[0]))
        return jax.jit(cost).lower(jnp.array(0.9)).compile().memory_analysis().temp_size_in_bytes

    # 10,000 states of 512 bytes are 5 MB; this loss needs the last one only.
    assert temporary({"stretch": 1}) > 5e6
    assert temporary({}) < temporary({"stretch": 1}) / 10


def test_a_batch_of_episodes_needs_less_than_a_megabyte():
    """400 steps of 32 carts: what is kept are the states, 0.4 MB, where the cost is summed on the way."""

    def cost(gains, start):
        def move(carry, _):
            s, total = carry
            s = step_cartpole(CartPole(), s, jnp.dot(gains, jnp.stack(s)))
            return s, total + s.angle**2

        return rollout(move, (CartState(*start), jnp.array(0.0)), length=400)[0][1]

    mean = lambda gains, starts: jnp.mean(jax.vmap(lambda x: cost(gains, x))(starts))
    program = jax.jit(jax.value_and_grad(mean)).lower(jnp.ones(4), jnp.ones((32, 4))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 1e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(inputs=None), "needs length=, its number of steps"),
        (dict(inputs=jnp.ones(3), length=4), "length=4 of a rollout with 3 inputs"),
        (dict(inputs=jnp.ones(3), stretch=4), "stretch=4: give a number of steps from 1 to 3"),
    ],
    ids=["no length", "two lengths", "stretch"],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        rollout(lambda x, push: x, jnp.array(1.0), **arguments)


def test_a_step_returns_the_state_as_it_came():
    with pytest.raises(InputError, match=r"step returns .* for a state .*: return the structure, shapes and types"):
        rollout(lambda x, _: (x, x), jnp.array(1.0), length=3)


def driven(t, y, control):
    """A mass on a spring under a force: x'' = -k x + force."""
    k, force = control
    return y[1], -k * y[0] + force


def test_a_held_control_gives_the_closed_form_of_each_interval():
    x, force, dt = 0.4, 3.0, 0.1
    end = zero_order_hold(driven, (jnp.array(x), jnp.array(0.0)), (jnp.array(4.0), force), dt, steps=4)
    # About the displaced rest force / k, at the frequency 2; Tsit5 errs by some (2 h)^6 / 1e4 a step.
    np.testing.assert_allclose(end[0], force / 4 + (x - force / 4) * np.cos(2 * dt), rtol=1e-10)
    np.testing.assert_allclose(end[1], -2 * (x - force / 4) * np.sin(2 * dt), rtol=1e-9)


@pytest.mark.parametrize(("solver", "order"), [(dfx.Bosh3(), 3), (dfx.Heun(), 2)], ids=["Bosh3", "Heun"])
def test_a_hold_converges_with_the_order_of_its_solver(solver, order):
    start, control = (jnp.array(1.0), jnp.array(0.5)), (jnp.array(4.0), 1.0)
    end = lambda steps: np.array(zero_order_hold(driven, start, control, 1.0, steps=steps, solver=solver))
    cosine, sine = np.cos(2.0), np.sin(2.0)
    exact = 0.25 + 0.75 * cosine + 0.25 * sine, -1.5 * sine + 0.5 * cosine
    errors = [np.linalg.norm(end(steps) - exact) for steps in (8, 16, 32)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.35)


def test_time_reaches_the_field_of_a_hold():
    end = zero_order_hold(lambda t, y, control: 3 * t**2, jnp.array(0.0), None, 1.0, t=1.0)
    np.testing.assert_allclose(end, 2.0**3 - 1, rtol=1e-12)


def test_gradients_of_a_hold_in_every_mode():
    end = lambda y, control, dt: sum(zero_order_hold(driven, y, control, dt, steps=2))
    testing.assert_gradients(end, ((jnp.array(1.0), jnp.array(0.5)), (jnp.array(4.0), jnp.array(1.0)), jnp.array(0.1)))


def test_a_hold_without_steps_is_named():
    with pytest.raises(InputError, match="steps=0 of a zero-order hold"):
        zero_order_hold(driven, (1.0, 0.0), (4.0, 1.0), 0.1, steps=0)


def swing(t, y, push):
    """A pendulum with a frequency of 3.1 rad/s at small angles, and a cart that it does not move."""
    angle, rate, position = y
    return rate, -9.81 * jnp.sin(angle) + push, 1.0 + 0.0 * position


IMPLICIT = dfx.Kvaerno3(root_finder=dfx.VeryChord(rtol=1e-8, atol=1e-10))
STANDING = (jnp.array(2.0), jnp.array(1.0), jnp.array(300.0))


@pytest.mark.parametrize("solver", [dfx.Tsit5(), dfx.Bosh3(), dfx.Heun(), IMPLICIT], ids=lambda x: type(x).__name__)
def test_a_checked_hold_is_right_or_no_number(solver):
    """Whatever the length of the interval; a large component beside the angle hides nothing."""
    move = jax.jit(
        lambda dt, rtol: zero_order_hold(swing, STANDING, 0.5, dt, solver=solver, rtol=rtol), static_argnums=1
    )
    lengths = (0.01, 0.02, 0.1, 0.3, 0.7, 1.0, 2.0)
    exact = solve_ivp(lambda t, y: swing(t, y, 0.5), (0, 2), STANDING, t_eval=lengths, rtol=1e-10, atol=1e-10).y.T
    states = [(move(dt, 1e-3), move(dt, None), true) for dt, true in zip(lengths, exact, strict=True)]
    refused = [bool(np.isnan(checked[0])) for checked, *_ in states]
    # Short ones pass, long ones do not, and in between there is one change.
    assert (refused[0], refused[-1]) == (False, True)
    assert refused == sorted(refused)
    for no_number, (checked, unchecked, true) in zip(refused, states, strict=True):
        if no_number:
            assert np.isnan(np.stack(checked)).all()
        else:
            np.testing.assert_array_equal(checked, unchecked)
            # The least that counts is 1e-3 of 300 m, so that errors of 1e-3 (2 + 0.3) rad pass.
            np.testing.assert_allclose(checked[:2], true[:2], atol=3e-3)


def test_more_steps_make_a_checked_hold_right():
    coarse, fine = (zero_order_hold(swing, STANDING, 0.5, 1.0, steps=steps, rtol=1e-3) for steps in (1, 10))
    assert np.isnan(coarse[0])
    np.testing.assert_allclose(
        fine[0], solve_ivp(lambda t, y: swing(t, y, 0.5), (0, 1), STANDING, rtol=1e-10, atol=1e-10).y[0, -1], atol=1e-5
    )


def test_the_derivative_of_a_refused_hold_is_no_number_and_leaves_others_alone():
    last = lambda push, dt: zero_order_hold(driven, (jnp.array(1.0), jnp.array(0.5)), (4.0, push), dt, rtol=1e-3)[0]
    push, lengths = jnp.array(0.5), jnp.array([0.1, 2.0])
    slopes = lambda dt: (jax.grad(last)(push, dt), jax.jacfwd(last)(push, dt))
    short, long = np.stack(jax.jit(jax.vmap(slopes))(lengths), axis=1)
    # A force moves the mass by (1 - cos(2 dt)) / 4 per newton.
    np.testing.assert_allclose(short, (1 - np.cos(0.2)) / 4, rtol=1e-5)
    assert np.isnan(long).all()
    total = lambda push: jnp.nansum(jax.vmap(lambda dt: last(push, dt))(lengths))
    np.testing.assert_allclose(jax.jit(jax.grad(total))(push), short[0], rtol=1e-12)


def test_a_checked_hold_at_rest_passes():
    rest = (jnp.array(0.0), jnp.array(0.0), jnp.array(0.0))
    assert np.isfinite(
        zero_order_hold(lambda t, y, c: (y[1], -jnp.sin(y[0]), 0.0 * y[2]), rest, None, 0.1, rtol=1e-3)[0]
    )


@pytest.mark.parametrize("rtol", [0, -1.0, float("nan")])
def test_a_tolerance_of_a_hold_is_positive(rtol):
    with pytest.raises(InputError, match=r"rtol=.* of a zero-order hold: give a positive number"):
        zero_order_hold(driven, (1.0, 0.0), (4.0, 1.0), 0.1, rtol=rtol)
