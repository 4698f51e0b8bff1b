"""`find_non_finite` on planted patterns: the operation, line, stage and step of each; and the safe functions."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import safe
from diffsim._errors import InputError
from diffsim.graph.computational_graph import computational_graph
from diffsim.graph.find_non_finite import find_non_finite

ZERO = jnp.zeros(3)


def masked_root(x):
    with jax.named_scope("sensor"):
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))  # bug


def norm_at_zero(x):
    return jnp.sqrt(jnp.sum(x**2))  # bug


def angle_at_origin(x):
    return jnp.arctan2(x[0], x[1])  # bug


def logarithm_of_zero(x):
    probability = jax.nn.relu(x)
    return -jnp.sum(jnp.log(probability))  # bug


def quotient_of_zeros(x):
    y = jnp.sum(x)
    return jnp.where(y == 0, 1.0, jnp.sin(y) / y)  # bug


def root_as_power(x):
    return jnp.sum((x + 1e-3) * x**0.5)  # bug


def arc_cosine_at_one(x):
    return jnp.sum(jnp.arccos(1.0 - x))  # bug


def softmax_by_hand(x):
    weights = jnp.exp(x * 1e3 + 800.0)  # bug
    return jnp.sum(weights / jnp.sum(weights) * jnp.arange(3.0))


def rollout_that_overflows(x):
    def step(state, force):
        with jax.named_scope("dynamics"):
            return jnp.exp(state) + force, state  # bug

    return jax.lax.scan(step, x[0], jnp.arange(8.0))[0]


def rollout_through_a_rest(x):
    def step(state, gain):
        speed = jnp.sqrt(state)  # bug
        return (0.5 * state + 1.0) * (gain != 4), speed

    return jnp.sum(jax.lax.scan(step, x[0] + 2.0, jnp.arange(8))[1])


def branch_that_divides(x):
    safe_branch, bad = (lambda v: v), (lambda v: v / (v - v))  # bug
    return jax.lax.cond(x[0] >= 0, bad, safe_branch, x[0] + 1.0)


def loop_that_goes_negative(x):
    body = lambda c: (c[0] + 1, jnp.log(c[1]) + 0.1 * x[0])  # bug
    return jax.lax.while_loop(lambda c: c[0] < 9, body, (0, jnp.array(3.0)))[1]


PATTERNS = {
    masked_root: ("adjoint", "sqrt", "sensor", ()),
    norm_at_zero: ("adjoint", "sqrt", "", ()),
    angle_at_origin: ("adjoint", "atan2", "", ()),
    logarithm_of_zero: ("value", "log", "", ()),
    quotient_of_zeros: ("adjoint", "div", "", ()),
    root_as_power: ("adjoint", "pow", "", ()),
    arc_cosine_at_one: ("adjoint", "acos", "", ()),
    softmax_by_hand: ("value", "exp", "", ()),
    rollout_that_overflows: ("value", "exp", "dynamics", (4,)),
    rollout_through_a_rest: ("adjoint", "sqrt", "", (5,)),
    branch_that_divides: ("value", "div", "", ()),
    loop_that_goes_negative: ("value", "log", "", (3,)),
}


@pytest.mark.parametrize("f", PATTERNS, ids=lambda f: f.__name__)
def test_planted_pattern_is_located(f):
    kind, operation, stage, steps = PATTERNS[f]
    finding = find_non_finite(f, ZERO)
    lines, first = inspect.getsourcelines(f)
    line = first + next(number for number, text in enumerate(lines) if "# bug" in text)
    actual = (finding.kind, finding.operation, finding.steps, finding.source)
    assert actual == (kind, operation, steps, f"test_find_non_finite.py:{line}"), str(finding)
    assert finding.stage.startswith(stage)


def test_healthy_functions_and_handled_infinities():
    assert find_non_finite(lambda x: jnp.sum(jnp.sin(x)), ZERO) is None
    assert find_non_finite(lambda x: jax.nn.logsumexp(jnp.where(x > 1, x, -jnp.inf).at[0].set(x[0])), ZERO) is None
    assert find_non_finite(lambda x: jnp.max(x) + jnp.exp(-jnp.inf) * x[0], ZERO) is None
    finding = find_non_finite(lambda p: jnp.sum(p["a"]) + p["b"], {"a": ZERO, "b": jnp.array(jnp.nan)})
    assert (finding.kind, finding.operation) == ("input", "b")


def test_loops_without_reverse_mode():
    loop = lambda x: jax.lax.while_loop(lambda v: v < 9, lambda v: v * v, x)
    with pytest.raises(
        InputError, match=r"while at test_find_non_finite.py:\d+ has no reverse mode .*: the value is finite"
    ):
        find_non_finite(loop, jnp.array(2.0))
    searched = lambda x: x * jax.lax.stop_gradient(loop(x))
    assert find_non_finite(searched, jnp.array(2.0)) is None
    assert computational_graph(searched, jnp.array(2.0))["x"].adjoint == jax.grad(searched)(2.0)


def test_the_message_says_where_and_what_to_do():
    text = str(find_non_finite(masked_root, ZERO))
    assert text.startswith("first non-finite adjoint: sqrt([3: 0 to 0]) at test_find_non_finite.py:")
    assert "in sensor: its derivative is infinite at 0: use diffsim.safe.sqrt" in text


SAFE = {
    "sqrt": (safe.sqrt, jnp.sqrt, (2.0,), (0.0,), 0.0),
    "norm": (lambda x: safe.norm(jnp.stack([x, 2 * x])), lambda x: jnp.sqrt(5.0) * jnp.abs(x), (2.0,), (0.0,), 0.0),
    "atan2": (safe.atan2, jnp.arctan2, (1.0, -2.0), (0.0, 0.0), 0.0),
    "power": (safe.power, jnp.power, (2.0, 0.3), (0.0, 0.5), 0.0),
    "log": (safe.log, jnp.log, (2.0,), (0.0,), np.log(1e-30)),
    "divide": (safe.divide, jnp.divide, (3.0, 2.0), (3.0, 0.0), 0.0),
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_functions_keep_values_and_their_convention(name):
    function, plain, usual, singular, value = SAFE[name]
    numbers = tuple(range(len(usual)))
    for derivative in (lambda f: f, lambda f: jax.grad(f, numbers), lambda f: jax.hessian(f)):
        np.testing.assert_allclose(derivative(function)(*usual), derivative(plain)(*usual), rtol=1e-14, atol=1e-15)
    assert float(function(*singular)) == value
    np.testing.assert_array_equal(jax.grad(function, numbers)(*singular), np.zeros(len(numbers)))
    assert find_non_finite(function, *map(jnp.asarray, singular)) is None
