"""The gradient check: clean functions pass, planted bugs are found and located."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.derivatives.check import check_gradients


class Cart(eqx.Module):
    mass: jax.Array
    drag: jax.Array
    gears: jax.Array
    key: jax.Array
    name: str


def cart():
    return Cart(jnp.array(2.0), jnp.array([0.5, 0.1]), jnp.arange(3), jr.key(0), "cart")


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


@jax.custom_vjp
def wrong_sign(x):
    return jnp.sum(x**2)


wrong_sign.defvjp(lambda x: (wrong_sign(x), x), lambda x, g: (-2 * x * g,))

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
    "module": (lambda cart: jnp.sum(cart.drag**2) / cart.mass * cart.gears[2], (cart(),)),
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
    "guard": (lambda x: jnp.where(x > 0, 1.0, 0.0), 0.3, "zero?"),
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


def test_wrong_rule():
    check = check_gradients(wrong_sign, (jnp.array([1.0, -2.0]),))
    (row,) = check.rows
    assert row.verdict == "disagrees"
    assert row.forward is None
    assert any(note.startswith("forward not available: can't apply forward-mode") for note in row.notes)
    assert abs(row.reverse + row.difference) < 1e-10  # equal but for the sign, to rounding over the step
    assert row.disagreement == pytest.approx(2.0)


def test_no_reverse_through_while():
    power = lambda x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[1]
    (row,) = check_gradients(power, (jnp.array(1.2),)).rows
    assert row.verdict == "agrees"
    assert row.reverse is None
    assert row.notes[0].startswith("reverse not available: Reverse-mode differentiation does not work")
    with pytest.raises(InputError, match="no derivative by any of the modes"):
        check_gradients(power, (jnp.array(1.2),), modes=("reverse",))


def test_worst_entry_is_named():
    def f(cart):
        drag = cart.drag.at[1].set(jax.lax.stop_gradient(cart.drag[1]))
        return jnp.sum(drag**2) / cart.mass

    check = check_gradients(f, (cart(),))
    assert [(row.name, row.verdict) for row in check.rows] == [("mass", "agrees"), ("drag", "zero?")]
    assert check.worst == ("drag", (1,), 1.0)
    assert check.rows[1].value == 0.1


def test_nan_is_located_among_many():
    x = jnp.ones((20, 30)).at[7, 11].set(-1.0)
    (row,) = check_gradients(lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0)), (x,)).rows
    assert (row.verdict, row.index, row.forward) == ("non-finite", (7, 11), 0.0)
    assert row.notes == ("reverse is nan at [7, 11]",)


def test_bug_outside_the_entries_tried_shows_in_the_direction():
    x = jnp.linspace(1.0, 2.0, 400)
    f = lambda x: jnp.sum(x[:300] ** 2) + jnp.sum(jax.lax.stop_gradient(x[300:]) ** 2)
    (row,) = check_gradients(f, (x,), max_coordinates=1, seed=1).rows
    assert (row.verdict, row.index) == ("disagrees", "direction")
    (row,) = check_gradients(f, (x,), max_coordinates=40).rows
    assert row.verdict == "zero?"
    assert row.index[0] >= 300


def test_value_that_is_not_finite():
    rows = check_gradients(lambda x, y: jnp.sum(x) * y, (jnp.array([1.0, jnp.nan]), jnp.array(2.0))).rows
    assert [(row.verdict, row.index) for row in rows] == [("non-finite", (1,)), ("non-finite", None)]
    assert rows[0].notes == ("the parameter itself is nan at [1]", "the value of the function is nan")


def test_names():
    model = eqx.nn.MLP(2, "scalar", 3, 1, key=jr.key(0))
    f = lambda model, x: model(x)
    names = [row.name for row in check_gradients(f, (model, jnp.ones(2))).rows]
    assert names[0] == "args[0].layers.0.weight"
    assert names[-1] == "args[1]"


def test_python_function():
    f = lambda x: x**2 if x > 0 else -x
    with pytest.raises(InputError, match="vmap=False"):
        check_gradients(f, (jnp.array(1.5),))
    assert check_gradients(f, (jnp.array(1.5),), vmap=False).ok


def test_few_traces_whatever_the_number_of_entries():
    traces = []

    def f(x, y):
        traces.append(1)
        return jnp.sum(x**2) * jnp.sum(y)

    check_gradients(f, (jnp.ones(30), jnp.ones(20)), max_coordinates=20)
    assert len(traces) <= 6  # value, reverse and forward twice each, differences


def test_noise_widens_the_bar_and_not_the_verdict():
    @jax.custom_jvp
    def rounded(x):
        return jnp.round(x * 1e9) / 1e9

    rounded.defjvp(lambda x, dx: (rounded(*x), dx[0]))
    (row,) = check_gradients(lambda x: rounded(jnp.exp(x)), (jnp.array(0.7),)).rows
    assert row.verdict == "agrees"
    assert 1e-10 < row.error < 1e-6  # 1e-9 over steps between 0.5 and 1e-3


def test_table_and_json():
    check = check_gradients(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), (jnp.array(-1.0),))
    lines = str(check).splitlines()
    assert lines[0].index("verdict") == lines[1].index("non-finite")
    assert lines[2] == "args[0]: reverse is nan"
    data = json.loads(json.dumps(check.to_dict(), allow_nan=False))
    assert data["rows"][0]["reverse"] == "nan"
    assert data["worst"]["path"] == "args[0]"
    assert not data["ok"]


@pytest.mark.parametrize(
    ("f", "args", "message"),
    [
        (lambda x: x, (jnp.ones(3),), r"shape \(3,\): return one number, for example its sum"),
        (lambda x: (x, x), (jnp.array(1.0),), "f returns .*return one number"),
        (lambda x: x.astype(int), (jnp.array(1.0),), "f returns int64"),
        (lambda x: None, (jnp.array(1.0),), "f returns None"),
        (lambda x: x * 1.0, (jnp.array(2),), r"args\[0\] is int64\[\]: pass floating-point"),
        (lambda x: x.real, (jnp.array(2j),), "real and imaginary parts"),
        (lambda x: x, (2.0,), "no floating-point array .found float."),
        (lambda x: x, jnp.array(2.0), "pass a tuple"),
    ],
)
def test_bad_requests(f, args, message):
    with pytest.raises(InputError, match=message):
        check_gradients(f, args)


def test_unknown_mode():
    with pytest.raises(InputError, match="modes has 'backward'"):
        check_gradients(jnp.sin, (jnp.array(1.0),), modes=("backward",))


def test_seed_decides():
    f, args = CLEAN["tanh network"]
    one, same, other = (check_gradients(f, args, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert np.any([a.index != b.index for a, b in zip(one.rows, other.rows, strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_kinks_nearby_are_no_accusation(seed):
    """In float32 even the smallest step reaches over kinks of a relu network."""
    x = jr.normal(jr.key(1), (20, 3), jnp.float32)
    model = eqx.nn.MLP(3, "scalar", 16, 2, activation=jax.nn.relu, dtype=jnp.float32, key=jr.key(seed))
    check = check_gradients(lambda m: jnp.mean((jax.vmap(m)(x) - jnp.sin(x[:, 0])) ** 2), (model,), seed=seed)
    assert {row.verdict for row in check.rows} <= {"agrees", "inconclusive"}, str(check)
