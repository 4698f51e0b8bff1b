"""Functions written out number by number, against the same functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._jax.plain_operations import operations
from diffsim._jax.scalarize import can_be_written_out, entries, written_out

A = jnp.array([[0.3, -1.2], [0.7, 0.4], [1.1, -0.2]])


def _unpacked(a, b, c, first, second):
    return jnp.stack([a * b - c, jnp.sin(a)]) * jnp.stack([first[0] + second[2], first[1]])


FUNCTIONS = {
    "components": lambda t, y, p: jnp.stack([p[0] * y[0] - y[1], jnp.sin(t) * y[1], p[1] ** 2]),
    "whole arrays": lambda t, y, p: jnp.concatenate([jnp.tanh(y)[::-1], p * 2.0]) - t,
    "a matrix by sums": lambda t, y, p: jnp.sum(A.T * y[None], axis=1) + p,
    "reductions": lambda t, y, p: jnp.stack([jnp.sum(y), jnp.max(p), jnp.prod(y), jnp.min(y), jnp.sum(A)]),
    "shapes": lambda t, y, p: jnp.swapaxes(jnp.reshape(jnp.concatenate([y, p, y[:1]]), (2, 3)), 0, 1)[:, None].ravel(),
    "choices": lambda t, y, p: jnp.where(y > 0, jnp.exp(y), jnp.clip(y, -0.5, 0.5)) * jnp.sign(t),
    "splits": lambda t, y, p: jnp.concatenate(jnp.split(y, [1])[::-1]) ** 3,
    "broadcasts": lambda t, y, p: (jnp.broadcast_to(y, (2, 3)) + p[:, None]).ravel(),
    "calls": lambda t, y, p: jax.jit(lambda y: jnp.arctan2(y, t))(y),
    "unpacking": lambda t, y, p: _unpacked(*y, *jnp.unstack(A, axis=1)) * p[0],
    "an argument itself": lambda t, y, p: y,
}
T, Y, P = jnp.array(0.4), jnp.array([0.3, -0.8, 1.5]), jnp.array([0.9, -0.6])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives_are_those_of_the_function(name):
    function = FUNCTIONS[name]
    assert can_be_written_out(operations(function, T, Y, P))

    def by_numbers(t, y, p):
        return jnp.stack(written_out(function, t, y, p)([t], entries(y), entries(p)))

    np.testing.assert_allclose(by_numbers(T, Y, P), function(T, Y, P), rtol=1e-15)
    for mode in (jax.jacrev, jax.jacfwd):
        actual, expected = (mode(f, argnums=(0, 1, 2))(T, Y, P) for f in (by_numbers, function))
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("function", [lambda y: A.T @ y, lambda y: y[jnp.argsort(y)], lambda y: jax.nn.relu(y)])
def test_what_is_more_than_arithmetic_is_left_alone(function):
    assert not can_be_written_out(operations(function, Y))
