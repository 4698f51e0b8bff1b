"""The certificate of functions that are not JAX's: their own derivatives, right and wrong, and what they may return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.gradcheck.check import check_gradients
from diffsim.testing import assert_gradients

MATRIX = np.array([[1.0, 2.0, -0.5], [0.3, -1.0, 4.0]])
X = np.array([0.4, -1.3, 2.1])


def energy(x):
    """One number."""
    return float(np.sum(np.cos(x) * x))


def energy_vjp(args, cotangent):
    (x,) = args
    return (cotangent * (np.cos(x) - x * np.sin(x)),)


def energy_jvp(args, tangents):
    (x,), (dx,) = args, tangents
    return np.sum((np.cos(x) - x * np.sin(x)) * dx)


def outputs(model, y):
    """A tree of arrays."""
    return {"state": np.tanh(MATRIX @ model["x"]) * y, "norm": model["gain"] * np.sum(y**2)}


def outputs_vjp(args, cotangent):
    model, y = args
    inner = np.tanh(MATRIX @ model["x"])
    x = MATRIX.T @ (cotangent["state"] * y * (1 - inner**2))
    gain = cotangent["norm"] * np.sum(y**2)
    return {"x": x, "gain": gain, "name": None}, cotangent["state"] * inner + cotangent["norm"] * model["gain"] * 2 * y


def outputs_jvp(args, tangents):
    (model, y), (dmodel, dy) = args, tangents
    inner = np.tanh(MATRIX @ model["x"])
    state = (1 - inner**2) * (MATRIX @ dmodel["x"]) * y + inner * dy
    return {"state": state, "norm": dmodel["gain"] * np.sum(y**2) + model["gain"] * 2 * np.sum(y * dy)}


MODEL = {"x": X, "gain": np.array(0.7), "name": "spring"}
Y = np.array([1.5, -0.2])


@pytest.mark.parametrize("products", [{"vjp": energy_vjp}, {"jvp": energy_jvp}, {"vjp": energy_vjp, "jvp": energy_jvp}])
def test_right_derivatives_of_one_number(products):
    check = check_gradients(energy, (X,), **products)
    assert check.ok, check
    assert (check.rows[0].reverse is None) == ("vjp" not in products)
    assert (check.rows[0].forward is None) == ("jvp" not in products)


def test_right_derivatives_of_a_tree():
    check = check_gradients(outputs, (MODEL, Y), vjp=outputs_vjp, jvp=outputs_jvp)
    assert check.ok, check
    assert [row.name for row in check.rows] == ["args[0].gain", "args[0].x", "args[1]"]


@pytest.mark.parametrize("wrong_by", [-1.0, 1.0 + 1e-4, 0.0])
def test_wrong_derivatives_are_found_in_either_product(wrong_by):
    vjp = lambda args, cotangent: (outputs_vjp(args, cotangent)[0], wrong_by * outputs_vjp(args, cotangent)[1])
    check = check_gradients(outputs, (MODEL, Y), vjp=vjp)
    verdicts = {row.name: row.verdict for row in check.rows}
    assert verdicts["args[0].x"] == verdicts["args[0].gain"] == "agrees"
    assert verdicts["args[1]"] == ("disagrees" if wrong_by else "zero?")
    assert "cause not located: its derivative is not JAX's" in check.rows[2].notes
    jvp = lambda args, tangents: wrong_by * energy_jvp(args, tangents)
    assert not check_gradients(energy, (X,), vjp=energy_vjp, jvp=jvp).ok


def test_the_precision_is_numpys_whatever_that_of_jax():
    with jax.enable_x64(False):
        check = check_gradients(energy, (X,), vjp=energy_vjp)
        assert jnp.asarray(1.0).dtype == jnp.float32
    assert check.rows[0].error < 1e-8
    vjp = lambda args, cotangent: (energy_vjp(args, cotangent)[0] * (1 + 1e-5),)
    assert not check_gradients(energy, (X,), vjp=vjp).ok


def test_functions_in_single_precision_are_judged_by_their_digits():
    single = lambda x: np.sum(np.cos(x.astype(np.float32)) * x.astype(np.float32))
    assert check_gradients(single, (X.astype(np.float32),), vjp=energy_vjp).ok


def test_a_product_that_raises_is_reported():
    def broken(args, cotangent):
        raise RuntimeError("no gradient today")

    (row,) = check_gradients(energy, (X,), vjp=broken).rows
    assert (row.verdict, row.reverse) == ("inconclusive", None)
    assert "reverse not available: vjp raised RuntimeError: no gradient today" in row.notes
    (row,) = check_gradients(energy, (X,), vjp=energy_vjp, jvp=broken).rows
    assert (row.verdict, row.forward) == ("agrees", None)


@pytest.mark.parametrize(
    ("f", "vjp", "message"),
    [
        (energy, lambda args, w: X, "vjp returned a ndarray: return a tuple"),
        (energy, lambda args, w: (X, X), "tuple of 2: return a tuple with a gradient for each of 1"),
        (energy, lambda args, w: (X[:2],), r"gradient of shape \(2,\) for args\[0\], which has \(3,\)"),
        (energy, lambda args, w: (None,), r"no gradient for args\[0\]: return zeros"),
        (lambda x: "text", energy_vjp, "return floating-point numbers"),
        (lambda x: np.array([1, 2]), energy_vjp, r"f returns int64\[2\]"),
        (lambda x: None, energy_vjp, "f returns nothing"),
    ],
)
def test_what_does_not_fit_is_named(f, vjp, message):
    with pytest.raises(InputError, match=message):
        check_gradients(f, (X,), vjp=vjp)


def test_in_tests():
    assert_gradients(energy, (X,), vjp=energy_vjp)
    with pytest.raises(AssertionError, match="1 of 1 parameters fail"):
        assert_gradients(energy, (X,), vjp=lambda args, w: (X,))


def test_pytorch():
    torch = pytest.importorskip("torch")

    def value(x):
        return float(torch.sum(torch.sin(torch.from_numpy(x)) ** 2))

    def vjp(args, cotangent):
        x = torch.from_numpy(args[0]).requires_grad_()
        return (torch.autograd.grad(torch.sum(torch.sin(x) ** 2), x)[0].numpy() * cotangent,)

    assert check_gradients(value, (X,), vjp=vjp).ok
