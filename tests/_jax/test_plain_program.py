"""Plain programs: the values of the function, and none of the package's own operations, in loops and branches too."""

import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax import lax

import diffsim as ds
from diffsim import image
from diffsim._jax.barrier import barrier
from diffsim._jax.new_primitive import DEFINITIONS
from diffsim._jax.plain_operations import operations
from diffsim._jax.plain_program import plain_program

OWN = {primitive.name for primitive in DEFINITIONS}
CALLS = {"jit", "pjit", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
CHAIN = image.Chain(balance=image.WhiteBalance(), demosaic=image.bilinear, gamma=image.Gamma())


def looped(x):
    """Barriers within a scan, a branch, and a loop without a known end."""
    inside = lambda y: barrier(jnp.sin(y))[0]
    y, _ = lax.scan(lambda y, _: (inside(y), None), x, length=3)
    y = lax.cond(y[0] > 0, inside, lambda y: -y, y)
    return lax.while_loop(lambda y: jnp.sum(y) > 0.5, lambda y: 0.5 * inside(y), y)


CASES = {
    "loops": (looped, (3,)),
    "policy": (jax.vmap(ds.BoundedMLP(4, -1.0, 1.0, key=jr.key(0))), (5, 4)),
    "gradient": (jax.vmap(jax.grad(ds.BoundedMLP(4, -1.0, 1.0, key=jr.key(0)))), (5, 4)),
    "chain": (lambda x: CHAIN(x), (8, 8)),
    "adjoint": (jax.grad(lambda x: CHAIN(x).sum()), (8, 8)),
    "solve": (lambda y: ds.integrate(lambda t, y, a: -y, y, jnp.array([0.0, 1.0])), (2,)),
}

SLOW = ("adjoint", "solve")


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def test_values_are_the_same_and_operations_are_of_jax(case):
    function, shape = CASES[case]
    x = jnp.asarray(np.random.default_rng(0).uniform(size=shape))
    program = plain_program(function, jax.ShapeDtypeStruct(shape, x.dtype))
    names = set(operations(program, x))
    assert not names & OWN
    assert not names & CALLS or case == "solve"  # in which equinox has calls of its own
    np.testing.assert_allclose(program(x)[0], function(x), rtol=1e-12, atol=1e-14)


def test_a_size_may_be_open():
    program = plain_program(jnp.sin, jax.ShapeDtypeStruct(jax.export.symbolic_shape("n"), jnp.float64))
    assert jax.export.export(jax.jit(program))(jnp.ones(3)).out_avals[0].shape == (3,)
