"""Sensitivities: closed forms of powers, and of Ishigami's function."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffsim as ds
from diffsim import InputError, Scalar, param


class Powers(eqx.Module):
    a: Scalar = param(2.0, "m")
    b: Scalar = param(3.0, "s")
    c: Float[Array, " 2"] = param(np.array([0.5, 0.0]), "")


def test_relative_sensitivities_of_powers_are_their_exponents():
    outputs = lambda m: jnp.stack([m.a**2 / m.b, m.b**3 * m.c[0]]) * (1 + m.c[1])
    relative = ds.uncertainty.sensitivities(outputs, Powers())
    assert set(relative) == {"a", "b", "c[0]", "c[1]"}
    np.testing.assert_allclose(relative["a"], [2, 0], atol=1e-14)
    np.testing.assert_allclose(relative["b"], [-1, 3], atol=1e-14)
    np.testing.assert_allclose(relative["c[0]"], [0, 1], atol=1e-14)
    np.testing.assert_allclose(relative["c[1]"], [0, 0], atol=1e-14)
    absolute = ds.uncertainty.sensitivities(
        outputs, Powers(), relative=False, filter_spec=ds.trainable(Powers(), "a", "c")
    )
    assert "b" not in absolute
    np.testing.assert_allclose(absolute["a"], [4 / 3, 0], atol=1e-14)
    np.testing.assert_allclose(absolute["c[1]"], [4 / 3, 13.5], atol=1e-14)


class Three(eqx.Module):
    x: Scalar = param(1.0, "rad", bounds=(-np.pi, np.pi))
    y: Scalar = param(1.0, "rad", bounds=(-np.pi, np.pi))
    z: Scalar = param(1.0, "rad")


RANGES = {"z": (-np.pi, np.pi)}


def ishigami(p):
    return jnp.sin(p.x) + 7 * jnp.sin(p.y) ** 2 + 0.1 * p.z**4 * jnp.sin(p.x)


def test_sobol_indices_of_ishigamis_function():
    """Its closed form: T. Ishigami, T. Homma, ISUMA 1990, with a = 7, b = 0.1."""
    a, b = 7.0, 0.1
    x, y, xz = 0.5 * (1 + b * np.pi**4 / 5) ** 2, a**2 / 8, b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    total = x + y + xz
    indices = ds.uncertainty.sobol_indices(ishigami, Three(), count=4096, ranges=RANGES)
    for name, first, with_interactions in (("x", x, x + xz), ("y", y, y), ("z", 0.0, xz)):
        # Two to three standard errors of 4,096 points.
        assert float(indices.first[name]) == pytest.approx(first / total, abs=0.02)
        assert float(indices.total[name]) == pytest.approx(with_interactions / total, abs=0.02)


def test_several_outputs_have_indices_each():
    outputs = lambda p: jnp.stack([ishigami(p), p.x + 2 * p.y])
    indices = ds.uncertainty.sobol_indices(outputs, Three(), count=1024, ranges=RANGES)
    np.testing.assert_allclose([indices.first[n][1] for n in "xyz"], [0.2, 0.8, 0.0], atol=0.03)
    np.testing.assert_allclose([indices.total[n][1] for n in "xyz"], [0.2, 0.8, 0.0], atol=0.03)
    again = ds.uncertainty.sobol_indices(outputs, Three(), count=1024, ranges=RANGES)
    assert all(np.array_equal(again.first[n], indices.first[n]) for n in "xyz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"z has no range: give ranges=\{'z': \(low, high\)\}"),
        ({"ranges": {"w": (0, 1)}}, "unknown parameter 'w'; known: x, y, z"),
        ({"ranges": RANGES | {"x": (0, 4)}}, r"ranges\['x'\]=\(0, 4\): give two numbers that grow, within bounds"),
        ({"ranges": RANGES, "count": 1000}, "count=1000: give a power of 2"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        ds.uncertainty.sobol_indices(ishigami, Three(), **options)


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="an output is not finite for some models within the ranges: narrow them"):
        ds.uncertainty.sobol_indices(lambda p: jnp.sqrt(p.x), Three(), count=64, ranges=RANGES)
