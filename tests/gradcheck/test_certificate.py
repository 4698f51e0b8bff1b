"""The certificate on planted bugs, each detected and located, and on clean models, without false alarms."""

import inspect
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.autodiff.legendre import legendre3
from diffsim.gradcheck.check import check_gradients
from diffsim.gradcheck.event_conditioning import crossing
from diffsim.systems.bouncing_ball import FALLING, BouncingBall, fall, start
from diffsim.systems.pendulum import Pendulum, State, pendulum
from diffsim.viz.report import Report

X = jnp.array([0.7, 1.3, 2.2])
stop = jax.lax.stop_gradient


def frozen_factor(x):
    return jnp.sum(stop(x) * x)  # bug


def missing_saltation(x):
    hit = stop(jnp.sqrt(2 * x[0] / 9.81))  # bug
    return 0.9 * 9.81 * hit * (2.0 - hit) - 4.9 * (2.0 - hit) ** 2 + x[1]


def boolean_event(x):
    return jnp.sum(jnp.where(x > 1.0, 2.0, 0.0))  # bug


def mask_as_number(x):
    return jnp.sum((x > 1.0).astype(float))  # bug


def integer_cast(x):
    return jnp.sum(2.0 * x.astype(int))  # bug


def rounded(x):
    return jnp.sum(jnp.round(x * 1e6) / 1e6)  # bug


def floored(x):
    return jnp.sum(jnp.floor(x * 101.0))  # bug


def sign_of(x):
    return jnp.sum(jnp.sign(x - 1.0))  # bug


def straight_through(x):
    return jnp.sum((x + stop(jnp.round(x) - x)) ** 2)  # bug


def hard_choice(x):
    return jnp.sum(jnp.arange(3.0)[jnp.argmax(-((x - 1.0) ** 2))])  # bug


def clip_at_bound(x):
    return jnp.sum(jnp.clip(x, 1.3, 5.0))  # bug


def float32_loss(x):
    return jnp.sum(jnp.sin(x).astype(jnp.float32)).astype(jnp.float64)  # bug


def root_behind_where(x):
    return jnp.sum(jnp.where(x > 1.0, jnp.sqrt(x - 1.0), 0.0))  # bug


def norm_of_nothing(x):
    return jnp.sqrt(jnp.sum((x - x) ** 2)) + jnp.sum(x)  # bug


def cut_in_a_loop(x):
    step = lambda y, _: (y + 0.1 * stop(jnp.sin(y)), None)  # bug
    return jnp.sum(jax.lax.scan(step, x, None, length=5)[0])


def counted_turns(x):
    turns = jax.lax.fori_loop(0, 5, lambda k, n: n + (x[0] * k > 1.5), 0)  # bug
    return 0.1 * turns


def ruled(value, rule):
    """A function with a custom derivative rule, right or wrong."""
    f = jax.custom_jvp(value)
    f.defjvp(lambda primals, tangents: (value(*primals), rule(primals[0], tangents[0])))
    return f


wrong_sign = ruled(jnp.cos, lambda x, dx: jnp.sin(x) * dx)
lost_factor = ruled(lambda x: x**3, lambda x, dx: x**2 * dx)
grid = np.linspace(0.0, 3.0, 7)
wrong_cell = ruled(lambda x: jnp.interp(x, grid, grid**2), lambda x, dx: (jnp.floor(2 * x) + 1.5) * dx)


def rule_with_wrong_sign(x):
    return jnp.sum(wrong_sign(x))  # bug


def rule_without_factor(x):
    return jnp.sum(lost_factor(x))  # bug


def derivative_of_interpolant(x):
    return jnp.sum(wrong_cell(x) * x)  # bug


@jax.custom_vjp
def scaled(x):
    return 3.0 * x


scaled.defvjp(lambda x: (scaled(x), None), lambda _, cotangent: (0.3 * cotangent,))


def wrong_custom_vjp(x):
    return jnp.sum(scaled(x) ** 2)  # bug


BUGS = {
    frozen_factor: ("disagrees", "stop_gradient"),
    missing_saltation: ("zero?", "stop_gradient"),
    boolean_event: ("zero?", "gt"),
    mask_as_number: ("zero?", "gt"),
    integer_cast: ("zero?", "convert_element_type"),
    rounded: ("zero?", "round"),
    floored: ("zero?", "floor"),
    sign_of: ("zero?", "sign"),
    straight_through: ("disagrees", "stop_gradient"),
    hard_choice: ("zero?", "argmax"),
    clip_at_bound: ("inconclusive", "max"),
    float32_loss: ("inconclusive", "convert_element_type"),
    root_behind_where: ("non-finite", "sqrt"),
    norm_of_nothing: ("non-finite", "sqrt"),
    cut_in_a_loop: ("disagrees", "stop_gradient"),
    counted_turns: ("zero?", "gt"),
    rule_with_wrong_sign: ("disagrees", "cos"),
    rule_without_factor: ("disagrees", "<lambda>"),
    derivative_of_interpolant: ("disagrees", "<lambda>"),
    wrong_custom_vjp: ("disagrees", "scaled"),
}


@pytest.mark.parametrize("f", BUGS, ids=lambda f: f.__name__)
def test_planted_bug_is_found_and_located(f):
    """The bug is in parameter "p", while "q" is clean. It is located if operation and line of a suspect are right."""
    verdict, operation = BUGS[f]
    check = check_gradients(lambda m: f(m["p"]) + jnp.sum(jnp.sin(m["q"])), ({"p": X, "q": 1.0 + X},))
    rows = {row.name: row for row in check.rows}
    # A NaN times the tangent 0 is NaN: forward mode has it for every parameter, reverse mode only for its own.
    assert np.isfinite(rows["q"].reverse) if verdict == "non-finite" else rows["q"].verdict == "agrees", str(check)
    assert rows["p"].verdict == verdict, str(check)
    lines, first = inspect.getsourcelines(f)
    line = first + next(number for number, text in enumerate(lines) if "# bug" in text)
    at = f"test_certificate.py:{line}"
    named = [s.removeprefix("first non-finite adjoint: ") for s in rows["p"].suspects]
    assert any(at in suspect and suspect.startswith(operation) for suspect in named), str(check)


def network(activation, **options):
    x = jr.normal(jr.key(1), (12, 3))
    model = eqx.nn.MLP(3, "scalar", 6, 2, activation=activation, key=jr.key(0), **options)
    return lambda m: jnp.mean((jax.vmap(m)(x) - jnp.sin(x[:, 0])) ** 2), (model,)


def recurrent(model):
    step = lambda h, x: (model(x, h), None)
    return jnp.sum(jax.lax.scan(step, jnp.zeros(4), jr.normal(jr.key(2), (6, 3)))[0] ** 2)


def swing(p):
    field = lambda t, y, p: pendulum(p, y)
    path = ds.integrate(field, State(jnp.array(0.5), jnp.array(0.0)), jnp.linspace(0.0, 1.0, 5), p)
    return jnp.sum(path.angle**2)


def third_bounce(p):
    return ds.integrate_hybrid([FALLING], start(p), p, t1=10.0, max_events=3).event_t[2]


MATRIX = jr.normal(jr.key(3), (4, 4)) + 4 * jnp.eye(4)
IMAGE = jr.uniform(jr.key(4), (8, 8))
CLEAN = {
    "polynomial": (lambda x: x**5 - 3 * x**2 + 1, (jnp.array(1.3),)),
    "product and quotient": (lambda x, y: x * y / (1 + x**2), (jnp.array(0.4), jnp.array(-2.0))),
    "trigonometry": (lambda x: jnp.sum(jnp.sin(x) * jnp.tan(x / 3)), (X,)),
    "tiny": (lambda x: 1e-20 * jnp.exp(x), (jnp.array(0.3),)),
    "huge": (lambda x: 1e20 * jnp.log(x), (jnp.array(2e-5),)),
    "offset": (lambda x: 1e8 + jnp.sum(jnp.sin(x)), (X,)),
    "unused parameter": (lambda x, y: x**2, (jnp.array(1.5), X)),
    "saturated": (jnp.tanh, (jnp.array(20.0),)),
    "flat inflection": (lambda x: (x - 1) ** 3 + 1e3, (jnp.array(1.0),)),
    "inner minimum": (lambda x: jnp.sum((x - X) ** 2), (X,)),
    "stop_gradient of a constant": (lambda x: jnp.sum(x * stop(jnp.array(3.0))), (X,)),
    "away from the kink": (lambda x: jnp.sum(jax.nn.relu(x - 1.0)), (X,)),
    "inside the bounds": (lambda x: jnp.sum(jnp.clip(x, 0.0, 5.0) ** 2), (X,)),
    "double where": (lambda x: jnp.sum(jnp.where(x > 1, jnp.sqrt(jnp.where(x > 1, x - 1, 1.0)), 0.0)), (X,)),
    "softmax": (lambda x: jnp.sum(jax.nn.softmax(x) * X), (X,)),
    "logsumexp": (jax.nn.logsumexp, (jnp.array([1.0, -30.0, 0.0, 2.0]),)),
    "linear solve": (lambda a: jnp.sum(jnp.linalg.solve(a, jnp.ones(4))), (MATRIX,)),
    "log determinant": (lambda a: jnp.linalg.slogdet(a @ a.T)[1], (MATRIX,)),
    "eigenvalues": (lambda a: jnp.sum(jnp.linalg.eigvalsh(a + a.T) ** 3), (MATRIX,)),
    "custom rule": (lambda x: jnp.sum(legendre3(x)), (X,)),
    "checkpointed": (jax.checkpoint(lambda x: jnp.sum(jnp.exp(jnp.sin(x)))), (X,)),
    "convolution": (lambda k: jnp.sum(jax.scipy.signal.convolve2d(IMAGE, k) ** 2), (jr.normal(jr.key(5), (3, 3)),)),
    "scan": (lambda x: jax.lax.scan(lambda c, v: (jnp.sin(c) + v, c), x[0], x)[1].sum(), (X,)),
    "branch": (lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), (jnp.array(0.4),)),
    "tanh network": network(jnp.tanh),
    "relu network": network(jax.nn.relu),
    "float32 network": network(jax.nn.softplus, dtype=jnp.float32),
    "recurrent network": (recurrent, (eqx.nn.GRUCell(3, 4, key=jr.key(0)),)),
    "pendulum": (swing, (Pendulum(friction=jnp.array(0.1)),)),
    "bouncing ball": (third_bounce, (BouncingBall(),)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_model_causes_no_false_alarm(name):
    check = check_gradients(*CLEAN[name], thorough=name not in ("pendulum", "bouncing ball"))
    assert check.ok, str(check)
    assert not any(row.suspects for row in check.rows)


def test_there_are_as_many_as_promised():
    assert (len(BUGS), len(CLEAN)) == (20, 30)


def test_thorough_evidence():
    check = check_gradients(*network(jnp.tanh), thorough=True)
    assert check.dot_product < 1e-13
    assert all(row.imaginary < 1e-13 for row in check.rows)
    # float32 has seven digits for a number, and fewer for a gradient.
    assert all(1e-9 < row.precision < 1e-4 for row in check.rows)
    assert "complex steps: reverse mode differs by at most" in str(check)
    saved = json.loads(json.dumps(check.to_dict()))
    assert saved["rows"][0]["imaginary"] == check.rows[0].imaginary
    refused = check_gradients(lambda x: jnp.sum(jnp.abs(x) * x), (X,), thorough=True)
    assert refused.ok
    assert any(hint.startswith("no complex steps: f has abs at test_certificate.py") for hint in refused.hints)


def test_a_complex_step_sees_what_differences_cannot():
    """An error of 1e-8 is smaller than the error bar of a function with so large an offset."""
    almost = ruled(jnp.sin, lambda x, dx: jnp.cos(x) * (1 + 1e-8) * dx)
    f = lambda x: 1e6 + jnp.sum(almost(x))
    assert check_gradients(f, (X,)).ok
    # The rule is jax's for complex numbers too, but the step along the imaginary axis does not use it.
    check = check_gradients(f, (X,), thorough=True)
    assert check.rows[0].verdict == "disagrees"
    assert 1e-9 < check.rows[0].imaginary < 1e-8  # of the slope, in part cancelled along the direction


def test_float32_that_loses_a_gradient():
    f = lambda x: jnp.sum((1 - jnp.cos(1e-3 * x)) ** 2)
    check = check_gradients(f, (X.astype(jnp.float32),), thorough=True)
    assert check.rows[0].precision > 1e-3
    assert any(hint.startswith("with parameters in float64") for hint in check.hints)


def test_conditioning_of_an_event():
    """A ball thrown up, seen by an event at a height just below its apex: the flatter, the longer the delay."""
    ball, height = BouncingBall(), lambda t, s, p: s.height - 1.0
    through, apex = (crossing(fall, height, 0.0, type(start(ball))(jnp.array(1.0), v), ball) for v in (-4.0, -1e-3))
    np.testing.assert_allclose([through.rate, through.delay], [-4.0, 0.25])
    np.testing.assert_allclose(through.sine, 4 / np.hypot(4, 9.80665))
    assert apex.grazing
    assert not through.grazing
    check = check_gradients(lambda x: jnp.sum(x**2), (X,), events={"apex": apex})
    assert any("event apex: crosses at" in hint and "not to be trusted" in hint for hint in check.hints)


def test_report_section_and_table_name_the_suspect():
    check = check_gradients(frozen_factor, (X,))
    page = Report("A run")
    page.certificate(check)
    html = page.html()
    assert "<td>disagrees</td>" in html
    assert "suspect stop_gradient at test_certificate.py" in html
    assert "suspect stop_gradient at test_certificate.py" in str(check)
