"""The certificate finds the wrong gradients of diffrax in the suite, without being told the right ones.

A library's answers are asked as numbers, through the protocol for functions that are differentiated outside JAX. What
a certificate cannot see is a wrong value: it says whether a gradient is that of the numbers that are computed.
"""

import numpy as np
import pytest

from conformance.adapters import diffrax_adapter
from conformance.problems import by_name
from diffsim.gradcheck.check import check_gradients


def certificate(name):
    problem = by_name(name)
    solver = diffrax_adapter.prepare(problem)
    value = lambda p: float(solver.value(tuple(p.tolist())).value)
    vjp = lambda args, weight: (float(weight) * np.asarray(solver.gradient(tuple(args[0].tolist()))),)
    return check_gradients(value, (np.asarray(problem.parameters, float),), vjp=vjp)


def test_a_gradient_at_rest():
    check = certificate("mild_rest")
    assert check.rows[0].verdict == "disagrees"
    assert check.rows[0].difference == pytest.approx(1 - np.exp(-2.0), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oscillator_at_rest", "upright_pendulum"])
def test_wrong_gradients_are_found(name):
    check = certificate(name)
    assert check.rows[0].verdict == "disagrees", str(check)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decay", "one_bounce"])
def test_right_gradients_are_not_accused(name):
    check = certificate(name)
    assert check.ok, str(check)
