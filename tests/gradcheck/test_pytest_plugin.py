"""The plugin of pytest in a folder of a user's tests: what passes, what fails and with which words."""

import os
import subprocess
import sys

import pytest

TESTS = """
import jax, jax.numpy as jnp, pytest

half = lambda x: jnp.sum(jax.lax.stop_gradient(x) * x)

def test_right(gradcheck):
    gradcheck(lambda x: jnp.sum(x**2), (jnp.ones(2),))

def test_wrong(gradcheck):
    gradcheck(half, (jnp.ones(2),))

@pytest.mark.gradcheck(rtol=0.6)
def test_loose(gradcheck):
    gradcheck(half, (jnp.ones(2),))

@pytest.mark.gradcheck(rtol=0.6)
class TestClass:
    @pytest.mark.gradcheck(rtol=1e-6)
    def test_the_closest_marker_counts(self, gradcheck):
        with pytest.raises(AssertionError):
            gradcheck(half, (jnp.ones(2),))
        gradcheck(half, (jnp.ones(2),), rtol=0.6)

@pytest.mark.gradcheck(tolerance=1)
def test_unknown_option(gradcheck):
    pass

def test_other():
    pass
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "test_simulation.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-p", "diffsim.pytest_plugin", "-m", "gradcheck", "-v", "--strict-markers"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([*words, str(folder)], capture_output=True, text=True, cwd=folder, env=environment)
    return done.stdout + done.stderr


def test_the_tests_that_use_it_are_marked(report):
    assert "5 selected" in report
    assert "1 deselected" in report


@pytest.mark.parametrize("name", ["test_right", "test_loose", "TestClass::test_the_closest_marker_counts"])
def test_what_passes(report, name):
    assert f"{name} PASSED" in report


def test_a_failure_is_a_table_without_the_librarys_own_lines(report):
    assert "test_wrong FAILED" in report
    assert "1 of 1 parameters fail; worst is args[0]" in report
    assert "suspect stop_gradient at test_simulation.py:4" in report
    assert "gradcheck/check.py" not in report


def test_an_unknown_option_is_named(report):
    assert "the marker gradcheck has no option tolerance: choose from ['atol'" in report
