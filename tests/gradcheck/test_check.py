"""The report of the gradient check: what it names and locates, what it says if it cannot, and its format."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

import diffsim as ds
from diffsim._errors import InputError
from diffsim.gradcheck.check import check_gradients


class Cart(eqx.Module):
    mass: jax.Array
    drag: jax.Array


@jax.custom_vjp
def wrong_sign(x):
    return jnp.sum(x**2)


wrong_sign.defvjp(lambda x: (wrong_sign(x), x), lambda x, g: (-2 * x * g,))


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
    (row,) = check_gradients(power, (jnp.array(1.2),), modes=("reverse",)).rows
    assert (row.verdict, row.reverse, row.forward) == ("inconclusive", None, None)
    assert row.difference == pytest.approx(4 * 1.2**3)
    assert row.notes[0].startswith("reverse not available: Reverse-mode differentiation does not work")


def test_worst_entry_is_named():
    def f(cart):
        drag = cart.drag.at[1].set(jax.lax.stop_gradient(cart.drag[1]))
        return jnp.sum(drag**2) / cart.mass

    check = check_gradients(f, (Cart(jnp.array(2.0), jnp.array([0.5, 0.1])),))
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
    f = lambda x: jnp.sum(x[:300] ** 2) + jnp.sum(jax.lax.stop_gradient(x[300:]) * x[300:])
    (row,) = check_gradients(f, (x,), max_coordinates=1, seed=1).rows
    assert (row.verdict, row.index) == ("disagrees", "direction")
    (row,) = check_gradients(f, (x,), max_coordinates=40).rows
    assert row.verdict == "disagrees"
    assert row.index[0] >= 300


def test_an_entry_without_a_derivative_is_always_tried():
    x = jnp.linspace(1.0, 2.0, 400)
    f = lambda x: jnp.sum(x[:300] ** 2) + jnp.sum(jax.lax.stop_gradient(x[300:]) ** 2)
    (row,) = check_gradients(f, (x,), max_coordinates=1, seed=1).rows
    assert (row.verdict, row.index) == ("zero?", (300,))


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_jump_in_one_entry_among_slopes_elsewhere_is_found(size):
    x = jnp.array([0.3, 1.2, 0.7])
    (row,) = check_gradients(lambda x: x[0] ** 2 + size * jnp.floor(x[1]) + jnp.sin(x[2]), (x,)).rows
    assert (row.verdict, row.index) == ("zero?", (1,))
    assert f"flat to a step of 0.2, jumps by {size:.3g}" in row.notes


@pytest.mark.parametrize("sleeping", [jnp.maximum, lambda x, y: jnp.maximum(x, y) ** 2, lambda x, y: safe_root(x)])
def test_an_inactive_entry_among_slopes_elsewhere_is_no_alarm(sleeping):
    x = jnp.array([0.3, -0.4, 0.7])
    assert check_gradients(lambda x: x[0] ** 2 + sleeping(x[1], 0.0) + jnp.sin(x[2]), (x,)).ok


def safe_root(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


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
    with pytest.raises(InputError, match="jit=False"):
        check_gradients(f, (jnp.array(1.5),))
    assert check_gradients(f, (jnp.array(1.5),), jit=False).ok


def test_few_traces_whatever_the_number_of_entries():
    traces = []

    def f(x, y):
        traces.append(1)
        return jnp.sum(x**2) * jnp.sum(y)

    check_gradients(f, (jnp.ones(30), jnp.ones(20)), max_coordinates=20)
    assert len(traces) <= 6  # value, reverse and forward twice each, differences


def test_noise_widens_the_error_bar_and_does_not_change_the_verdict():
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
    assert data["rows"][0]["reverse"] is None
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
        (lambda x: x, ("two",), "no floating-point numbers .found str."),
    ],
)
def test_bad_requests(f, args, message):
    with pytest.raises(InputError, match=message):
        check_gradients(f, args)


@pytest.mark.usefixtures("wrong_types")
def test_arguments_that_are_no_tuple_are_refused():
    with pytest.raises(InputError, match="pass a tuple"):
        check_gradients(lambda x: x, jnp.array(2.0))


def test_unknown_mode():
    with pytest.raises(InputError, match="modes has 'backward'"):
        check_gradients(jnp.sin, (jnp.array(1.0),), modes=("backward",))


def test_seed_decides():
    f, x = lambda x: jnp.sum(jnp.sin(x)), jr.normal(jr.key(0), (50,))
    one, same, other = (check_gradients(f, (x,), seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.rows[0].index != other.rows[0].index


def test_an_error_inside_the_function_is_its_own():
    """The error is not reported as one of the function's return value."""
    with pytest.raises(InputError, match="f must return one number"):
        check_gradients(lambda x: "text", (jnp.array(1.0),))
    with pytest.raises(TypeError, match="unexpected keyword"):
        check_gradients(lambda x: jnp.sin(x, wrong=1), (jnp.array(1.0),))


def test_constants_of_a_model_are_not_parameters():
    """The limits of a bounded network stop the gradient on purpose."""
    policy = ds.BoundedMLP(2, -3.0, 3.0, width=3, depth=1, key=jr.key(0))
    check = check_gradients(lambda policy, x: policy(x) ** 2, (policy, jnp.array([0.3, -0.2])), max_coordinates=2)
    assert check.ok, check
    layers = {f"args[0].layers.layers.{number}" for number in (0, 1)}
    assert {row.name.rpartition(".")[0] for row in check.rows} == {"", *layers}
