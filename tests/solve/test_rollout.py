"""Rollouts: against their closed form, however their memory is chosen, with and without decay, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, rollout


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
    with pytest.raises(InputError, match=r"the step made of a state .* return it as it came"):
        rollout(lambda x, _: (x, x), jnp.array(1.0), length=3)
