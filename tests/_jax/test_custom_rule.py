"""Derivative rules apply in loops: Hessians of `lax.map` and `lax.scan` equal those of the unrolled loop.

jax 0.10 differentiates the function instead of its rule where a loop is differentiated twice. A rule is therefore
either a primitive (`custom_rule.custom_jvp`), or it agrees with the derivative of its function.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._jax.custom_rule import custom_jvp
from diffsim.autodiff.legendre import legendre3
from diffsim.control import straight_through_clip
from diffsim.image.ops.correlate_channels_last import relu, stencil_last
from diffsim.image.stages.variance_stabilization import stabilize_variance, unstabilize_variance

STENCIL = jnp.arange(9.0).reshape(1, 1, 3, 3) / 9
PICTURE = jnp.linspace(-1.0, 1.0, 25).reshape(5, 5, 1) ** 2


@custom_jvp
def cube(x, scale):
    """x^3, whose rule says that its derivative is 5 x: no derivative of the function gives that."""
    return scale * x**3


@cube.defjvp
def _(primals, tangents):
    x, scale = primals
    return cube(x, scale), 5.0 * scale * x * tangents[0]


FUNCTIONS = {
    "rule that differs": lambda k: jnp.sum(cube(k, 2.0)) * k[0],
    "relu at 0": lambda k: relu(k[0] - 0.7) * k[1] ** 2,
    "variance": lambda k: jnp.sum(stabilize_variance(k) * unstabilize_variance(k)),
    "stencil": lambda k: jnp.sum(stencil_last(STENCIL * k[0], PICTURE * k[1]) ** 2),
    "polynomial": lambda k: jnp.sum(legendre3(k) ** 2),
}
LOOPS = {
    "map": lambda f: lambda rows: jnp.sum(jax.lax.map(f, rows)),
    "scan": lambda f: lambda rows: jax.lax.scan(lambda total, row: (total + f(row), None), 0.0, rows)[0],
}


def hessians(hessian, f, loop):
    rows = lambda k: k[None] * jnp.array([[1.0], [1.1]])
    in_loop, written_out = lambda k: loop(f)(rows(k)), lambda k: sum(f(row) for row in rows(k))
    return jax.jit(lambda k: (hessian(in_loop)(k), hessian(written_out)(k)))(jnp.array([0.7, -0.3]))


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS.keys())
def test_hessian_in_a_loop(f, loop):
    np.testing.assert_allclose(*hessians(jax.hessian, f, loop), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS.keys())
def test_hessian_of_a_reverse_rule_in_a_loop(loop):
    f = lambda k: jnp.sum(straight_through_clip(3 * k, -1.0, 1.0) ** 2 * k)
    np.testing.assert_allclose(*hessians(lambda g: jax.jacrev(jax.jacrev(g)), f, loop), rtol=1e-12, atol=1e-12)


def test_rule_in_batches_and_both_modes():
    x = jnp.array([1.0, 2.0, 3.0])
    for derivative in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.vmap(derivative(cube), (0, None))(x, 2.0), 10 * x)
        np.testing.assert_allclose(jax.vmap(derivative(derivative(cube)), (0, None))(x, 2.0), np.full(3, 10.0))
    np.testing.assert_allclose(cube(x, 2.0), 2 * x**3)


def test_second_derivatives_of_relu_at_zero():
    """The derivatives of a function whose derivative is 0 there, along every line."""
    hessian = jax.hessian(lambda k: relu(k[0]) * k[1] ** 2)(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(hessian, np.zeros((2, 2)))


def test_relu_keeps_nan():
    np.testing.assert_array_equal(relu(jnp.array([jnp.nan, -1.0, 0.0, 2.0])), [jnp.nan, 0.0, 0.0, 2.0])
