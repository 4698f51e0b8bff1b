"""Every public name has an example in its docstring, and the examples run."""

import doctest
import io
from pkgutil import resolve_name

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hooks import public_names

import diffsim as ds

pytestmark = pytest.mark.slow  # some 130 small programs to compile
NAMES = {"jax": jax, "jnp": jnp, "jr": jr, "np": np, "ds": ds, "eqx": eqx, "optax": optax, "diffrax": diffrax}
"""What an example need not import; the pages of the reference say so."""

EXEMPT = {
    "diffsim.experiments.petab.PetabProblem": "needs the files of a problem; tests/experiments/test_petab.py has one",
    "diffsim.experiments.petab.read_petab": "needs the files of a problem; tests/experiments/test_petab.py has one",
    "diffsim._types.Scalar": "an annotation, which has no docstring",
    "diffsim.image.demosaicing.bayer.PATTERNS": "a dictionary, which has no docstring",
    "diffsim.optimize.least_squares.LBFGS": "a solver of optimistix, whose docstring is its class's",
    "diffsim.optimize.least_squares.LEVENBERG_MARQUARDT": "a solver of optimistix, whose docstring is its class's",
}
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def cache_settings():
    """Restores the settings of the compilation cache, which one of the examples changes."""
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in settings.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_settings")
@pytest.mark.parametrize("name", [name for name in public_names() if name not in EXEMPT])
def test_the_examples_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder().find(resolve_name(name), name, module=False, globs=NAMES)
    assert any(example.examples for example in found), f"{name} has no example in its docstring"
    report = io.StringIO()
    for example in found:
        doctest.DocTestRunner().run(example, out=report.write)
    assert not report.getvalue(), report.getvalue()


def test_only_public_names_are_exempt():
    assert set(EXEMPT) <= set(public_names())
