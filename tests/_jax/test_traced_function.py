"""Closures: new values are used, and functions that are defined again are recognised."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Event, Phase, integrate, integrate_hybrid, integrate_phase
from diffsim._jax.source_lines import source_of
from diffsim._jax.traced_function import Traced
from diffsim.compilation import count_compilations

TS = jnp.array([0.0, 1.0])
RATE = 1.0


class Plant:
    """A user's object with numbers that change between solves."""

    def __init__(self):
        self.k = 1.0

    def field(self, t, y, args):
        return -self.k * y


def ends(field):
    """y(1) from y(0) = 1 by each way to solve."""
    one = jnp.array(1.0)
    never = Event(lambda t, y, args: y + 1.0)
    return [
        integrate(field, one, TS)[-1],
        integrate_phase(Phase(field), 0.0, one, t1=1.0).y,
        integrate_hybrid([Phase(field, (never,))], one, t1=1.0, max_events=2).y,
        jax.jit(lambda: integrate(field, one, TS)[-1])(),
    ]


@pytest.mark.slow
def test_values_that_a_method_reads_may_change():
    plant = Plant()
    for plant.k in (1.0, 5.0, 0.5):
        np.testing.assert_allclose(ends(plant.field), np.exp(-plant.k), rtol=1e-5)  # of tolerance 1e-6


@pytest.mark.slow
def test_globals_and_closures_may_change(monkeypatch):
    by_global = lambda t, y, args: -RATE * y
    numbers = {"k": 1.0}
    by_closure = lambda t, y, args: -numbers["k"] * y
    for rate in (1.0, 3.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        numbers["k"] = 2 * rate
        np.testing.assert_allclose(ends(by_global), np.exp(-rate), rtol=1e-5)
        np.testing.assert_allclose(ends(by_closure), np.exp(-2 * rate), rtol=1e-5)


@pytest.mark.slow
def test_events_resets_and_limits_see_new_values():
    """A fall from a height to a moving floor, and a bounce with a fraction of the speed."""
    numbers = {"floor": 0.0, "keep": 0.5}
    floor = Event(
        lambda t, y, args: y[0] - numbers["floor"],
        "falling",
        lambda t, y, args: jnp.array([y[0], -numbers["keep"] * y[1]]),
    )
    for numbers["floor"], numbers["keep"] in ((0.0, 0.5), (1.0, 0.5), (1.0, 0.25)):
        phase = Phase(
            lambda t, y, args: jnp.array([y[1], -2.0]), (floor,), (lambda t, y, args: y[0] - numbers["floor"],)
        )
        end = integrate_phase(phase, 0.0, jnp.array([4.0, 0.0]), t1=10.0)
        fall = np.sqrt(4.0 - numbers["floor"])
        np.testing.assert_allclose([end.t, end.next_y[1]], [fall, 2 * fall * numbers["keep"]], rtol=1e-8)
        np.testing.assert_allclose(end.lowest, 0.0, atol=1e-8)


def test_functions_defined_again_do_not_compile_again():
    def solves(k):
        field = lambda t, y, args: -args * y
        floor = Event(lambda t, y, args: y - 0.5, "falling", lambda t, y, args: 2 * y, to=0)
        k = jnp.asarray(k)
        integrate(field, jnp.array(1.0), TS, k)
        integrate_phase(Phase(field, (floor,)), 0.0, jnp.array(1.0), k, t1=2.0)
        return integrate_hybrid([Phase(field, (floor,))], jnp.array(1.0), k, t1=2.0, max_events=4).y

    counted = count_compilations(solves)
    for k in (1.0, 1.5, 2.0):
        counted(k)
    assert counted.count == 1


def test_python_numbers_are_arguments_like_any_other():
    closed = lambda k: jnp.exp(-k)
    decay = lambda t, y, k: -k * y
    by_closure = lambda k: integrate(lambda t, y, args: -k * y, jnp.array(1.0), TS)[-1]
    by_args = lambda k: integrate(decay, jnp.array(1.0), TS, k)[-1]
    by_phase = lambda k: integrate_phase(Phase(decay), 0.0, jnp.array(1.0), {"k": k}["k"], t1=1.0).y
    for function in (by_closure, by_args, by_phase):
        for transform in (jax.value_and_grad, jax.jacfwd):
            np.testing.assert_allclose(transform(function)(2.0), transform(closed)(2.0), rtol=1e-5)


def test_a_python_number_may_decide_what_a_field_does():
    field = lambda t, y, on: -y if on > 0.5 else y
    np.testing.assert_allclose(integrate(field, jnp.array(1.0), TS, 1.0)[-1], np.exp(-1.0), rtol=1e-5)
    np.testing.assert_allclose(integrate(field, jnp.array(1.0), TS, 0.0)[-1], np.exp(1.0), rtol=1e-5)


def rule(factor):
    """A function whose derivative rule closes over a number."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda primals, tangents: (sine(primals[0]), factor * tangents[0] * jnp.cos(primals[0])))
    return sine


def counted(rounds):
    return lambda x: jax.lax.fori_loop(0, rounds, lambda i, x: x + i, x)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (lambda x: 2.0 * x, lambda x: x * 2.0, False),
        (lambda x: x * 2.0, lambda x: x * 2.0, True),
        (lambda x: x * 2.0, lambda x: x * 2.5, False),
        (lambda x: x * 0.0, lambda x: x * -0.0, False),
        (lambda x: rule(1.0)(x), lambda x: rule(1.0)(x), True),
        (lambda x: rule(1.0)(x), lambda x: rule(2.0)(x), False),
        (lambda x: jax.nn.relu(x), lambda x: jax.nn.relu(x), True),
        (lambda x: jnp.sum(x, axis=0), lambda x: jnp.sum(x, axis=1), False),
        (counted(3), counted(3), True),
        (counted(3), counted(4), False),
    ],
)
def test_equal_programs(one, other, same):
    x = jnp.ones((2, 2))
    first, second = Traced.of(one, x).program, Traced.of(other, x).program
    assert (first == second) is same
    if same:
        assert hash(first) == hash(second)


def test_the_same_operations_on_another_line_are_another_program():
    """A message that names the line of one function must not name that of the other."""
    one = lambda x: jnp.sin(x) * 2.0
    other = lambda x: jnp.sin(x) * 2.0
    assert Traced.of(one, jnp.ones(())).program != Traced.of(other, jnp.ones(())).program
    for field in (one, other):
        (call,) = jax.make_jaxpr(Traced.of(field, jnp.ones(())))(jnp.ones(())).eqns
        lines = {source_of(equation) for equation in call.params["jaxpr"].eqns}
        assert lines == {f"{Path(__file__).name}:{field.__code__.co_firstlineno}"}
