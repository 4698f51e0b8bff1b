"""The measured comparison of modes: its rows agree, report what does not work, and recommend a mode."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import diffsim as ds


def decay(rate):
    ys = ds.integrate(lambda t, y, rate: -rate[0] * y + rate[1], jnp.array(1.0), jnp.array([0.0, 1.0]), rate)
    return ys[-1] ** 2


@pytest.mark.slow
def test_all_modes_of_a_solve_agree():
    comparison = ds.compare_modes(decay, jnp.array([0.7, 0.2]), rounds=3)
    modes = {mode.name: mode for mode in comparison.modes}
    assert {"reverse", "reverse, checkpointed", "forward"} <= set(modes)
    # The same steps: rounding.
    assert all(mode.error < 1e-12 and mode.seconds > 0 and mode.compile_seconds > 0 for mode in comparison.modes)
    assert comparison.recommended in modes
    assert modes[comparison.recommended].seconds == min(mode.seconds for mode in comparison.modes)
    assert f"take: {comparison.recommended}" in str(comparison)


def test_a_mode_that_does_not_work_says_why():
    endless = lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]
    comparison = ds.compare_modes(lambda x: endless(x), jnp.array(0.3), rounds=2)
    modes = {mode.name: mode for mode in comparison.modes}
    assert "Reverse-mode differentiation does not work" in modes["reverse"].reason
    assert modes["forward"].error == 0.0
    assert comparison.recommended.startswith("forward")


def test_trees_and_further_arguments():
    comparison = ds.compare_modes(
        lambda p, k: k * p["a"] * jnp.sum(p["b"]), {"a": jnp.array(2.0), "b": jnp.ones(3)}, 3.0, rounds=2
    )
    assert comparison.inputs == 4


def test_bad_input_is_named():
    with pytest.raises(ds.InputError, match="one real number as its result"):
        ds.compare_modes(jnp.sin, jnp.ones(2))
    assert ds.compare_modes(lambda x: x**3, 2.0, rounds=1).inputs == 1
    with pytest.raises(ds.InputError, match="nothing in x is a real array"):
        ds.compare_modes(lambda n: 1.0 * n, 3)
    with pytest.raises(ds.InputError, match="no mode differentiates"):
        ds.compare_modes(lambda x: jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct((), x.dtype), x), jnp.array(1.0))
