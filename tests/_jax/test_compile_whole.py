"""Programs compiled whole: the same numbers, the compiler supports it, and its faults are avoided."""

import subprocess
import sys

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffsim import integrate
from diffsim._jax.compile_whole import compile_small
from diffsim.compilation import compile_whole


def loop(x, rows):
    """A loop whose state contains an array, like a record of steps."""
    put = lambda rows, value, i: lax.dynamic_update_index_in_dim(rows, value, i, 0)
    return lax.fori_loop(0, 100, lambda i, c: (c[0] + jnp.sin(c[1][i]), put(c[1], c[0], i)), (x, rows))


ARGS = jnp.array(1.0), jnp.linspace(0.0, 1.0, 4000)


def asks(lowered) -> int:
    """How many calls of a program XLA is asked to compile whole."""
    return sum(" call @" in line and "xla_cpu_small_call" in line for line in lowered.as_text().splitlines())


def test_the_numbers_are_the_same_with_derivatives():
    compiled = compile_whole(loop)
    for a, b in zip(jax.jit(compiled)(*ARGS), jax.jit(loop)(*ARGS), strict=True):
        # Another order of the compiler's operations: rounding.
        np.testing.assert_allclose(a, b, rtol=1e-13)
    slope = lambda f: jax.jit(jax.jacfwd(lambda x: f(x, ARGS[1])[0]))(ARGS[0])
    np.testing.assert_allclose(slope(compiled), slope(loop), rtol=1e-13)


def test_this_jaxlib_still_compiles_whole_what_is_asked_for():
    # If this fails, a new jaxlib ignores the request: single trajectories become up to 27 times slower on CPU.
    text = jax.jit(compile_whole(loop)).lower(*ARGS).compile().as_text()
    calls = [line for line in text.splitlines() if " call(" in line]
    assert any('inlineable="false",xla_cpu_small_call="true"' in line for line in calls), (
        "XLA inlined the call: compile_whole.py needs another way"
    )


@pytest.mark.parametrize("sizes", [(4, 2, 2), (7, 7, 7), (8, 2, 2), (2, 8, 2), (2, 2, 8), (32, 2, 2), (1, 40, 40)])
def test_products_of_matrices_compile_whole_or_as_usual(sizes):
    """From eight rows or columns on, the backend cannot compile a product of matrices whole."""
    m, k, n = sizes
    a, b = jnp.arange(m * k, dtype=float).reshape(m, k), jnp.cos(jnp.arange(k * n, dtype=float)).reshape(k, n)
    np.testing.assert_allclose(compile_whole(jnp.matmul)(a, b), np.asarray(a) @ np.asarray(b), rtol=1e-13, atol=1e-13)
    is_whole = bool(asks(jax.jit(compile_whole(jnp.matmul)).lower(a, b)))
    assert is_whole == (max(sizes) < 8 or 1 in sizes)


def test_under_vmap_a_small_batch_is_compiled_whole_and_a_large_one_is_not():
    small = compile_small(lambda x, n: lax.fori_loop(0, n, lambda i, x: x + jnp.sin(x) * i, x), 8)
    for count, compiled_whole in ((10, True), (10**6, False)):
        args = jnp.linspace(0.0, 1.0, count), 3
        both = jax.jit(jax.vmap(small, in_axes=(0, None)))
        assert bool(asks(both.lower(*args))) == compiled_whole
        total = np.linspace(0.0, 1.0, count)
        for i in range(3):
            total = total + np.sin(total) * i
        np.testing.assert_allclose(both(*args), total, rtol=1e-13)


def test_under_vmap_lookups_are_left_as_they_are():
    # Each member reads another row, which is a gather.
    alone = compile_small(loop, 64)
    assert asks(jax.jit(alone).lower(*ARGS))
    many = jnp.stack([ARGS[0], 2 * ARGS[0]]), ARGS[1]
    pick = compile_small(lambda x, rows: rows[jnp.argmin(jnp.abs(rows - x))], 8)
    both = jax.jit(jax.vmap(pick, in_axes=(0, None)))
    assert not asks(both.lower(*many))
    np.testing.assert_allclose(both(*many), [1.0, 1.0])


def test_the_gradient_of_a_batch_is_compiled_whole_both_ways():
    def chain(t, y, p):
        return jnp.concatenate([y[2:], -p[0] * y[:2] - p[1] * y[:2] ** 3])

    def end(p, y0):
        options = {"solver": dfx.Heun(), "stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.01, "max_steps": 101}
        return jnp.sum(integrate(chain, y0, jnp.array([0.0, 1.0]), p, **options)[-1] ** 2)

    mean = lambda p, starts: jnp.mean(jax.vmap(end, (None, 0))(p, starts))
    arrays = jnp.array([1.0, 0.3]), jnp.ones((8, 4))
    # Parameters in several entries of the state: their cotangents are added up, which must not call a library.
    lines = jax.jit(jax.grad(mean)).lower(*arrays).as_text().splitlines()
    assert sum("call @inner" in line and "xla_cpu_small_call" in line for line in lines) == 2


UNUSED = """
import jax, jax.numpy as jnp
from jax import lax
from diffsim import integrate
from diffsim.compilation import compile_whole

def f(x, rows):
    body = lambda i, c: c + jnp.sin(c) + (0 * rows[i, 0].astype(int)).astype(float)
    return lax.fori_loop(0, 100, body, x)

print(jax.jit(lambda x: compile_whole(f)(x, jnp.sin(x) * jnp.ones((1000, 2))))(1.0))
"""


def test_an_argument_that_turns_out_unused_does_not_abort_the_process():
    done = subprocess.run([sys.executable, "-c", UNUSED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


DISCARDED = """
import jax, jax.numpy as jnp
from jax import lax
from diffsim import integrate
from diffsim.compilation import compile_whole

def f(x, rows, times, count):
    def body(k, carry):
        x, lasting, total = carry
        i = count - 1 - k
        step = lambda t, x: (t + 0.1, jnp.sin(x) * rows[i, 0])
        _, pull = jax.vjp(step, times[i], rows[i, 1])
        lasting, more = pull((lasting, x))
        return more, lasting, total + more
    return lax.fori_loop(0, count, body, (x, 0.0, x))

args = jnp.array(1.0), jnp.ones((100, 2)), jnp.arange(100.0), jnp.array(100)
print(jax.jit(lambda *args: compile_whole(f)(*args)[2])(*args))
"""


def test_results_that_nobody_uses_do_not_abort_the_process():
    # Without them an argument may be unused, which has the same effect.
    done = subprocess.run([sys.executable, "-c", DISCARDED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_single_large_result_is_compiled_whole():
    def angles(shots):
        fall = lambda v: lax.while_loop(lambda c: c[0] < 1.0, lambda c: (c[0] + 0.3 + v**2, c[1] * jnp.cos(v)), (v, v))
        return lax.map(lambda v: fall(v)[1], shots)

    shots = jnp.linspace(0.1, 0.5, 512)
    directions = jnp.sin(jnp.arange(354 * 512.0)).reshape(354, 512)
    tangents = lambda f: jax.jit(jax.vmap(lambda v: jax.jvp(f, (shots,), (v,))[1]))(directions)
    np.testing.assert_allclose(tangents(compile_whole(angles)), tangents(angles), rtol=1e-13, atol=1e-13)
