"""CMA-ES: minima without derivatives, within bounds, and its messages for failures."""

import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim import InputError, Scalar, param

pytest.importorskip("cmaes")


class Point(eqx.Module):
    x: Scalar = param(-1.2, "m", bounds=(-2.0, 2.0))
    y: Scalar = param(0.5, "m")
    z: Scalar = param(3.0, "m")


def stairs(point, _):
    """Rosenbrock's function in steps of 1e-9: its derivative is zero everywhere."""
    value = 100 * (point.y - point.x**2) ** 2 + (1 - point.x) ** 2
    return jnp.round(value * 1e9) / 1e9 + 0 * point.z


def test_a_loss_without_slopes_is_minimized():
    """3 of 3 seeds; the steps of the loss leave the minimum known to some 1e-4."""
    for seed in range(3):
        train = ds.trainable(Point(), "x", "y")
        fitted, history = ds.optimize.fit_cma_es(
            stairs, Point(), generations=300, seed=seed, filter_spec=train, progress=False
        )
        np.testing.assert_allclose((fitted.x, fitted.y), (1.0, 1.0), atol=1e-3)
        assert fitted.z == 3.0
        assert np.min(history.loss) < 1e-8
        assert float(stairs(fitted, None)) == np.min(history.loss)


def test_the_same_seed_gives_the_same_fit():
    fits = [ds.optimize.fit_cma_es(stairs, Point(), generations=5, seed=1, progress=False) for _ in range(2)]
    assert np.array_equal(fits[0][1].loss, fits[1][1].loss)
    assert eqx.tree_equal(fits[0][0], fits[1][0])


def test_losses_that_are_not_finite_count_as_the_greatest():
    partly = lambda point, data: jnp.where(point.x < 0, jnp.nan, stairs(point, data))
    fitted, _ = ds.optimize.fit_cma_es(partly, Point(x=0.1), generations=200, progress=False)
    np.testing.assert_allclose((fitted.x, fitted.y), (1.0, 1.0), atol=1e-2)
    with pytest.raises(ds.FitError, match="no model of the first generation has a finite loss: start elsewhere"):
        ds.optimize.fit_cma_es(lambda point, _: point.x * jnp.nan, Point(), progress=False)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError, match=r"cmaes is not installed: pip install 'diffsim\[cmaes\]'"):
        ds.optimize.fit_cma_es(stairs, Point())


def test_bad_numbers_are_named():
    with pytest.raises(InputError, match=r"generations=0, sigma=0\.5: give at least 1"):
        ds.optimize.fit_cma_es(stairs, Point(), generations=0)
    with pytest.raises(InputError, match="nothing to train"):
        ds.optimize.fit_cma_es(stairs, Point(), filter_spec=ds.frozen(Point(), "*"))
