"""Random solvers, tolerances, number formats, trees and times: replayed gradients against diffrax's own."""

import diffrax as dfx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from diffsim import ReplayAdjoint, integrate

TIGHT = dfx.VeryChord(rtol=1e-10, atol=1e-10)
EXPLICIT = [dfx.Tsit5(), dfx.Dopri5(), dfx.Bosh3(), dfx.Heun(), dfx.Ralston(), dfx.Dopri8()]
IMPLICIT = [dfx.Kvaerno3(root_finder=TIGHT), dfx.Kvaerno5(root_finder=TIGHT)]
SHAPES = st.lists(st.sampled_from([(), (1,), (3,), (2, 2)]), min_size=1, max_size=3)
MEMORY = st.sampled_from(["auto", "states", "jacobians"])


def field(t, y, p):
    """Coupled, driven and damped, whatever the tree."""
    leaves, tree = jax.tree.flatten(y)
    mean = sum(jnp.sum(jnp.sin(x)) for x in leaves)
    slopes = [p[i % 3] * jnp.cos(x + t) - 0.5 * x + 0.2 * mean for i, x in enumerate(leaves)]
    return jax.tree.unflatten(tree, slopes)


def start(shapes, seed, dtype):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.uniform(-1.5, 1.5, shape), dtype)
    return {"a": [draw(shape) for shape in shapes], "b": draw(())}, draw((3,))


def total(ys):
    return sum(
        jnp.sum(jnp.sin(x) * jnp.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)) for x in jax.tree.leaves(ys)
    )


def close(own, theirs, precision):
    size = max(1.0, *(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(theirs)))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=precision * size)


@pytest.mark.exhaustive
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    solver=st.sampled_from(EXPLICIT + IMPLICIT),
    digits=st.floats(3.0, 8.0),
    single=st.booleans(),
    shapes=SHAPES,
    seed=st.integers(0, 10**6),
    times=st.lists(st.floats(0.05, 1.95), max_size=3),
    memory=MEMORY,
)
def test_gradients_are_those_of_diffrax(solver, digits, single, shapes, seed, times, memory):
    explicit = any(solver is s for s in EXPLICIT)
    dtype = jnp.float32 if single and explicit else jnp.float64
    digits = min(digits, 4.0) if dtype == jnp.float32 else digits
    y0, p = start(shapes, seed, dtype)
    controller = dfx.PIDController(rtol=10**-digits, atol=10**-digits)
    times = jnp.asarray(sorted(times), dtype)
    t0, t1 = jnp.asarray(0.0, dtype), jnp.asarray(2.0, dtype)
    # Long enough that no error estimate is mere rounding, on which later steps would depend.
    dt0 = 0.4 if isinstance(solver, dfx.Dopri8) else 0.05
    options = {"stepsize_controller": controller, "max_steps": 2048, "throw": False}

    def by_diffrax(x, adjoint):
        saveat = dfx.SaveAt(ts=jnp.append(times, t1))
        ys = dfx.diffeqsolve(
            dfx.ODETerm(field),
            solver,
            t0,
            t1,
            jnp.asarray(dt0, dtype),
            x[0],
            x[1],
            saveat=saveat,
            adjoint=adjoint,
            **options,
        ).ys
        return total(ys), ys

    run = lambda adjoint: jax.jit(jax.value_and_grad(lambda x: by_diffrax(x, adjoint), has_aux=True))((y0, p))
    (_, ys), theirs = run(dfx.RecursiveCheckpointAdjoint())
    # A method of low order may need more than the allowed steps at a tight tolerance.
    assume(all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(ys)))
    (_, own_ys), own = run(ReplayAdjoint(memory))
    precision = (1e-12 if explicit else 1e-8) if dtype == jnp.float64 else 1e-4
    close(own_ys, ys, precision)
    close(own, theirs, precision)

    def last(x):
        ends = {"solver": solver, "stepsize_controller": controller, "dt0": dt0, "max_steps": 2048}
        ys = integrate(field, x[0], jnp.stack([t0, t1]), x[1], adjoint=ReplayAdjoint(memory), **ends)
        return total(jax.tree.map(lambda rows: rows[-1], ys))

    once = lambda x: total(jax.tree.map(lambda rows: rows[-1], by_diffrax(x, dfx.RecursiveCheckpointAdjoint())[1]))
    close(jax.jit(jax.grad(last))((y0, p)), jax.jit(jax.grad(once))((y0, p)), precision)
