"""Verdicts of the gradient check: clean functions pass, planted bugs are detected."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from diffsim.gradcheck.check import check_gradients


class Cart(eqx.Module):
    mass: jax.Array
    drag: jax.Array
    gears: jax.Array
    key: jax.Array
    name: str


def mlp_loss(activation=jnp.tanh):
    x = jr.normal(jr.key(1), (20, 3))
    return lambda model: jnp.mean((jax.vmap(model)(x) - jnp.sin(x[:, 0])) ** 2), (
        eqx.nn.MLP(3, "scalar", 8, 2, activation=activation, key=jr.key(0)),
    )


def decay(rate, y0):
    field = diffrax.ODETerm(lambda t, y, rate: -rate * y)
    control = diffrax.PIDController(rtol=1e-9, atol=1e-9)
    solution = diffrax.diffeqsolve(field, diffrax.Tsit5(), 0.0, 1.0, None, y0, rate, stepsize_controller=control)
    return jnp.sum(solution.ys**2)


MATRIX = jr.normal(jr.key(3), (4, 4)) + 4 * jnp.eye(4)
CLEAN = {
    "polynomial": (lambda x: x**5 - 3 * x**2 + 1, (jnp.array(1.3),)),
    "small exp": (lambda x: 1e-8 * jnp.exp(x), (jnp.array(0.3),)),
    "large log": (lambda x: 1e8 * jnp.log(x), (jnp.array(2e-5),)),
    "large offset": (lambda x: 1e8 + jnp.sum(jnp.sin(x)), (jnp.array([0.1, 20.0]),)),
    "mixed magnitudes": (lambda x: jnp.sum(x**2 * jnp.array([1e12, 1e-6])), (jnp.array([1e-6, 1e3]),)),
    "solve": (lambda a: jnp.sum(jnp.linalg.solve(a, jnp.ones(4))), (MATRIX,)),
    "logsumexp": (jax.nn.logsumexp, (jnp.array([1.0, -30.0, 0.0, 2.0]),)),
    "unused": (lambda x, y: x**2, (jnp.array(1.5), jnp.ones(3))),
    "zero but for rounding": (lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2, (jnp.array(1.1),)),
    "flat inflection": (lambda x: (x - 1) ** 3 + 1e3, (jnp.array(1.0),)),
    "saturated": (jnp.tanh, (jnp.array(20.0),)),
    "tanh network": mlp_loss(),
    "relu network": mlp_loss(jax.nn.relu),
    "ODE": (decay, (jnp.array(1.3), jnp.array([1.0, 2.0]))),
    "module": (
        lambda cart: jnp.sum(cart.drag**2) / cart.mass * cart.gears[2],
        (Cart(jnp.array(2.0), jnp.array([0.5, 0.1]), jnp.arange(3), jr.key(0), "cart"),),
    ),
    "float32": (
        lambda x: jnp.sum(jnp.exp(-(x**2))),
        (jnp.linspace(-2, 2, 5, dtype=jnp.float32),),
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_no_false_alarm(name):
    check = check_gradients(*CLEAN[name])
    assert check.ok, str(check)


PLANTED = {
    "stop_gradient": (lambda x: 2 * jax.lax.stop_gradient(x), 1.1, "zero?"),
    "stop_gradient of a factor": (lambda x: jax.lax.stop_gradient(x) * x, 1.1, "disagrees"),
    "event": (lambda x: jnp.where(x > 0, 1.0, 0.0), 0.3, "zero?"),
    "round": (jnp.round, 2.3, "zero?"),
    "round finely": (lambda x: jnp.round(x * 1e6) / 1e6, 2.3, "zero?"),
    "integer cast": (lambda x: 2.0 * x.astype(int), 3.4, "zero?"),
    "clip beyond the bound": (lambda x: jnp.clip(x, 0, 1), 1.2, "zero?"),
    "clamp at the bound": (lambda x: jax.lax.clamp(0.0, x, 1.0), 1.0, "zero?"),
    "clip at the bound": (lambda x: jnp.clip(x, 0, 1), 1.0, "inconclusive"),
    "abs at 0": (jnp.abs, 0.0, "inconclusive"),
    "relu at 0": (jax.nn.relu, 0.0, "zero?"),
    "unsafe where": (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), -1.0, "non-finite"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_found(name):
    f, x, verdict = PLANTED[name]
    check = check_gradients(f, (jnp.array(x),))
    assert not check.ok
    assert check.rows[0].verdict == verdict, str(check)


def test_planted_bug_is_found_in_float32():
    check = check_gradients(lambda x: jnp.sum(x**2) + jnp.round(x[0]), (jnp.array([2.3, 1.0], jnp.float32),))
    assert check.ok  # a step in one term, with a slope in another, is not seen
    half = lambda x: 0.5 * jnp.sum(x**2 + jax.lax.stop_gradient(x**2))
    assert check_gradients(half, (jnp.array([2.3, 1.0], jnp.float32),)).rows[0].verdict == "disagrees"


@pytest.mark.parametrize("seed", range(3))
def test_kinks_nearby_are_no_false_alarm(seed):
    """In float32 even the smallest step reaches over kinks of a relu network."""
    x = jr.normal(jr.key(1), (20, 3), jnp.float32)
    model = eqx.nn.MLP(3, "scalar", 16, 2, activation=jax.nn.relu, dtype=jnp.float32, key=jr.key(seed))
    check = check_gradients(lambda m: jnp.mean((jax.vmap(m)(x) - jnp.sin(x[:, 0])) ** 2), (model,), seed=seed)
    assert {row.verdict for row in check.rows} <= {"agrees", "inconclusive"}, str(check)


@pytest.mark.parametrize(("offset", "size"), [(0.505, 100), (0.303, 400), (2.004, 50)])
def test_a_right_derivative_that_misleads_over_larger_steps_is_remarked_on(offset, size):
    """As of a contact whose force begins with a jump: falling between the jumps, rising by each of them."""
    saw = lambda x: 2 * jnp.floor(size * x) / size - x
    (row,) = check_gradients(saw, (jnp.array(offset),)).rows
    assert row.verdict == "agrees"
    (note,) = row.notes
    assert "where the derivative is -1: between these steps the function jumps or oscillates" in note
    assert 0.7 < float(note.split()[1]) < 1.3


@pytest.mark.parametrize(
    "f",
    [jnp.sin, lambda x: x**5, lambda x: jnp.exp(-3 * x), lambda x: jnp.abs(x - 0.7001), lambda x: jax.nn.relu(x - 0.1)],
)
def test_smooth_functions_and_kinks_nearby_have_no_such_remark(f):
    (row,) = check_gradients(f, (jnp.array(0.7),)).rows
    assert not any("oscillates" in note for note in row.notes)
