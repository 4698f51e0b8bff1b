"""The certificate on gradient bugs planted in every construct of a simulation, and on the constructs without them.

A construct is a function of parameters `x` and of `at`, through which `x` enters; a bug is an `at` whose derivative is
wrong. With the identity in its place the construct is clean. Every bug is to be reported, and no clean one accused.
"""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from jax import lax

import diffsim as ds
from diffsim import safe
from diffsim.gradcheck.check import check_gradients
from diffsim.image import Chain

TIMES = jnp.array([0.0, 0.5])
X = jnp.array([0.7, 1.3])


def identity(x):
    return x


def _ruled(value, rule):
    """A function with a custom derivative rule, right or wrong."""
    f = jax.custom_jvp(value)
    f.defjvp(lambda primals, tangents: (value(*primals), rule(primals[0], tangents[0])))
    return f


stopped = lax.stop_gradient
percent = _ruled(identity, lambda x, dx: 1.01 * dx)
thousandth = _ruled(identity, lambda x, dx: 0.999 * dx)
infinite = lambda x: x + jnp.sqrt((x - 0.7) ** 2 * 0.0)
rounded = lambda x: jnp.round(x * 2.0**12) / 2.0**12
straight_through = lambda x: x + lax.stop_gradient(0.1 * jnp.sin(x))
single = lambda x: x.astype(jnp.float32).astype(x.dtype)
integer = lambda x: (x * 2.0**12).astype(int) / 2.0**12


@jax.custom_vjp
def negated(x):
    return x


negated.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))

BUGS = {
    "stopped": stopped,
    "percent": percent,
    "negated": negated,
    "infinite": infinite,
    "rounded": rounded,
    "straight_through": straight_through,
    "integer": integer,
    "thousandth": thousandth,
    "single": single,
}


def decay(at):
    return lambda t, y, x: -at(x[0]) * y + jnp.sin(x[1] * t)


# Solves.


def field(x, at):
    return ds.integrate(decay(at), jnp.array(1.0), TIMES, x)[-1]


def closure(x, at):
    return ds.integrate(lambda t, y, _: -at(x[0]) * y + x[1], jnp.array(1.0), TIMES)[-1]


def saved_states(x, at):
    return jnp.sum(ds.integrate(decay(at), jnp.array(1.0), jnp.linspace(0.0, 0.5, 4), x) ** 2)


def tree_state(x, at):
    swing = lambda t, y, x: {"angle": y["rate"], "rate": -at(x[0]) * jnp.sin(y["angle"])}
    end = ds.integrate(swing, {"angle": x[1], "rate": jnp.array(0.0)}, TIMES, x)
    return end["angle"][-1]


def initial_state(x, at):
    return ds.integrate(lambda t, y, x: -x[1] * y**2, at(x[0]), TIMES, x)[-1]


def final_time(x, at):
    return ds.integrate(lambda t, y, x: -x[1] * y, jnp.array(1.0), jnp.stack([0.0, at(x[0])]), x)[-1]


def stiff_field(x, at):
    return ds.integrate(decay(at), jnp.array(1.0), TIMES, x, solver=dfx.Kvaerno3())[-1]


def constant_steps(x, at):
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.1}
    return ds.integrate(decay(at), jnp.array(1.0), TIMES, x, **options)[-1]


def first_step(x, at):
    return ds.integrate(decay(at), jnp.array(1.0), TIMES, x, dt0=0.2 * x[1])[-1]


def tolerance(x, at):
    controller = dfx.PIDController(rtol=1e-6 * x[1], atol=1e-9)
    return ds.integrate(decay(at), jnp.array(1.0), TIMES, x, stepsize_controller=controller)[-1]


def jump_time(x, at):
    controller = dfx.ClipStepSizeController(dfx.PIDController(1e-6, 1e-9), jump_ts=at(x[:1] / 2))
    pulse = lambda t, y, x: jnp.where(t < x[0] / 2, x[1], -y)
    return ds.integrate(pulse, jnp.array(0.2), TIMES, x, stepsize_controller=controller)[-1]


def forward_only(x, at):
    fall = ds.Phase(decay(at))
    return ds.integrate_phase(fall, 0.0, jnp.array(1.0), x, t1=0.5, mode="forward").y


def _fall(t, y, x):
    return jnp.stack([y[1], -9.81 - 0.1 * x[1] * y[1]])


def event(x, at, mode="auto"):
    ground = ds.Event(lambda t, y, x: y[0] - at(x[0]), "falling")
    return ds.integrate_phase(ds.Phase(_fall, (ground,)), 0.0, jnp.array([2.0, 0.0]), x, t1=2.0, mode=mode).t


def replayed_event(x, at):
    return event(x, at, "replay")


def _bounces(x, at, reset):
    ground = ds.Event(lambda t, y, x: y[0], "falling", reset, to=0)
    return ds.integrate_hybrid([ds.Phase(_fall, (ground,))], jnp.array([1.0, 0.0]), x, t1=1.0, max_events=3).y[0]


def reset(x, at):
    return _bounces(x, at, lambda t, y, x: jnp.stack([0.0 * y[0], -at(x[0]) * y[1]]))


def field_between_events(x, at):
    ground = ds.Event(lambda t, y, x: y[0], "falling", lambda t, y, x: y * jnp.array([0.0, -x[0]]), to=0)
    fall = ds.Phase(lambda t, y, x: _fall(t, y, at(x)), (ground,))
    return ds.integrate_hybrid([fall], jnp.array([1.0, 0.0]), x, t1=1.0, max_events=3).y[0]


def forward_mode(x, at):
    return ds.forward_mode(lambda x: ds.integrate(decay(at), jnp.array(1.0), TIMES, x)[-1])(x)


def _diffrax(x, at, adjoint, tolerances=(1e-6, 1e-9)):
    solution = dfx.diffeqsolve(
        dfx.ODETerm(decay(at)),
        dfx.Tsit5(),
        0.0,
        0.5,
        None,
        jnp.array(1.0),
        x,
        stepsize_controller=dfx.PIDController(*tolerances),
        adjoint=adjoint,
    )
    return solution.ys[-1]


def checkpoint_adjoint(x, at):
    return _diffrax(x, at, dfx.RecursiveCheckpointAdjoint())


def direct_adjoint(x, at):
    return _diffrax(x, at, dfx.DirectAdjoint())


def forward_adjoint(x, at):
    return _diffrax(x, at, dfx.ForwardMode())


def replay_adjoint(x, at):
    return _diffrax(x, at, ds.ReplayAdjoint())


def backsolve_adjoint(x, at):
    return _diffrax(x, at, dfx.BacksolveAdjoint(), (1e-9, 1e-11))


# Discrete steps and stages.


def rollout(x, at):
    return ds.rollout(lambda s, _: s + 0.1 * (x[1] - at(x[0]) * s**2), jnp.array(0.5), length=6)[0]


def zero_order_hold(x, at):
    push = lambda t, y, u: -(y**2) + at(u)
    return ds.rollout(lambda s, _: ds.zero_order_hold(push, s, x[0] - x[1] * s, 0.1), jnp.array(0.5), length=3)[0]


def image_stage(x, at):
    chain = Chain(gain=lambda p: at(x[0]) * p, curve=lambda p: jnp.tanh(x[1] * p))
    return jnp.sum(chain(jnp.linspace(0.0, 1.0, 12).reshape(3, 2, 2)))


def optimizer_steps(x, at):
    optimizer = optax.adam(0.1)
    loss = lambda w: (w - at(x[0])) ** 2 + x[1] * w**4

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.array(0.3)
    return lax.scan(step, (start, optimizer.init(start)), length=4)[0][0]


def learning_rate(x, at):
    optimizer = optax.sgd(at(x[0]))
    step = lambda w, _: (w + optimizer.update(2 * (w - x[1]), optimizer.init(w))[0], None)
    return lax.scan(step, jnp.array(0.3), length=3)[0]


def least_squares(x, at):
    residuals = lambda w, x: jnp.stack([w - at(x[0]), 0.5 * w**2 - x[1]])
    return optx.least_squares(residuals, optx.LevenbergMarquardt(1e-10, 1e-12), jnp.array(1.0), x).value


def root(x, at):
    return optx.root_find(lambda w, x: w**3 + at(x[0]) * w - x[1], optx.Newton(1e-10, 1e-12), jnp.array(0.8), x).value


# Rules, and what jax wraps around a function.


def custom_root(x, at):
    solve = lambda f, w: lax.fori_loop(0, 30, lambda _, w: w - f(w) / jax.grad(f)(w), w)
    return lax.custom_root(lambda w: w**3 + at(x[0]) * w - x[1], 0.8, solve, lambda g, y: y / g(1.0))


def inside_a_rule(x, at):
    f = _ruled(lambda x: x[0] ** 3 * x[1], lambda x, dx: at(3 * x[0] ** 2 * x[1]) * dx[0] + x[0] ** 3 * dx[1])
    return f(at(x))


def batching_rule(x, at):
    f = jax.custom_batching.custom_vmap(lambda x: at(x) ** 2)
    f.def_vmap(lambda size, batched, x: (at(x) ** 2, batched[0]))
    return jnp.sum(jax.vmap(f)(x))


def scan(x, at):
    return lax.scan(lambda c, v: (jnp.sin(c) + at(v), c), x[0], x)[0]


def associative_scan(x, at):
    return jnp.sum(lax.associative_scan(jnp.multiply, at(x)))


def while_loop(x, at):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(at(x[0]) * c[1])), (0, x[1]))[1]


def fori_loop(x, at):
    return lax.fori_loop(0, 3, lambda k, y: y * at(x[0]) + x[1], 1.0)


def condition(x, at):
    return lax.cond(x[0] > 0.5, lambda x: at(x[0]) * x[1], lambda x: x[0], x)


def switch(x, at):
    return lax.switch(1, [lambda x: x[0], lambda x: at(x[0]) ** 2 * x[1]], x)


def jitted(x, at):
    return jax.jit(lambda x: jnp.exp(at(x[0])) * x[1])(x)


def checkpointed(x, at):
    return jax.checkpoint(lambda x: jnp.sin(jnp.sin(at(x[0]))) * x[1])(x)


def vmapped(x, at):
    return jnp.sum(jax.vmap(lambda v: at(v) ** 3)(x))


def mapped(x, at):
    return jnp.sum(lax.map(lambda v: at(v) ** 3, x))


def barrier(x, at):
    return jnp.prod(lax.optimization_barrier(at(x)))


def callback(x, at):
    outside = lambda v: jax.pure_callback(lambda v: np.exp(v), jax.ShapeDtypeStruct((), v.dtype), v)
    return _ruled(outside, lambda v, dv: outside(v) * dv)(at(x[0])) * x[1]


def linear_solve(x, at):
    return jnp.sum(jnp.linalg.solve(jnp.array([[2.0, 1.0], [0.0, 1.0]]) * at(x[0]), x))


def fft(x, at):
    return jnp.sum(jnp.abs(jnp.fft.rfft(at(x)) * jnp.array([1.0, 2.0])) ** 2)


def network(x, at):
    return jnp.sum(jax.nn.softplus(jnp.array([[0.3, -0.2], [0.1, 0.9]]) @ at(x)) ** 2)


CONSTRUCTS = [
    *(field, closure, saved_states, tree_state, initial_state, final_time, stiff_field, constant_steps),
    *(first_step, tolerance, jump_time),
    *(forward_only, event, replayed_event, reset, field_between_events, forward_mode),
    *(checkpoint_adjoint, direct_adjoint, forward_adjoint, replay_adjoint, backsolve_adjoint),
    *(rollout, zero_order_hold, image_stage, optimizer_steps, learning_rate, least_squares, root),
    *(custom_root, inside_a_rule, batching_rule, scan, associative_scan, while_loop, fori_loop, condition, switch),
    *(jitted, checkpointed, vmapped, mapped, barrier, callback, linear_solve, fft, network),
]


# Other bugs: (wrong, right) at a point.


def clock(duty):
    """A switch at a given time within the field: no step ends where it switches."""
    on = lambda t: jnp.where(jnp.mod(t, 0.1) < 0.1 * duty, 10.0, 0.0)
    return ds.integrate(lambda t, y, duty: on(t) + 0 * y, jnp.array(0.0), TIMES, duty)[-1]


def told_clock(duty):
    """The same with the switching times given to the controller, each with a derivative."""
    on = lambda t: jnp.where(jnp.mod(t, 0.1) < 0.1 * duty, 10.0, 0.0)
    starts = 0.1 * jnp.arange(5)
    jumps = jnp.ravel(jnp.stack([starts, starts + 0.1 * duty], 1))[1:]
    controller = dfx.ClipStepSizeController(dfx.PIDController(1e-6, 1e-9), jump_ts=jumps)
    return ds.integrate(lambda t, y, duty: on(t) + 0 * y, jnp.array(0.0), TIMES, duty, stepsize_controller=controller)[
        -1
    ]


def threshold(level):
    """A force that sets in where the state passes a level, without an event there."""
    push = lambda t, y, level: jnp.where(y < level, 1.0, 0.0)
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.125}
    return ds.integrate(push, jnp.array(0.0), TIMES, level, **options)[-1]


def smooth_threshold(level):
    push = lambda t, y, level: jax.nn.sigmoid((level - y) / 0.1)
    options = {"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.125}
    return ds.integrate(push, jnp.array(0.0), TIMES, level, **options)[-1]


def least_of_limits(x):
    """The least value of a limit is a constant for differentiation."""
    rope = ds.Phase(lambda t, y, x: -x * y, (), (lambda t, y, x: y,))
    return ds.integrate_phase(rope, 0.0, jnp.array(1.0), x, t1=0.5).lowest[0]


def last_value(x):
    return ds.integrate_phase(ds.Phase(lambda t, y, x: -x * y), 0.0, jnp.array(1.0), x, t1=0.5).y


def at_rest(rate):
    """A speed, whose square root is infinitely steep at rest."""
    speed = lambda t, y, k: jnp.stack([y[1], -k * y[0] * jnp.linalg.norm(y)])
    return jnp.sum(ds.integrate(speed, jnp.zeros(2), TIMES, rate)[-1]) + rate


def at_rest_safely(rate):
    speed = lambda t, y, k: jnp.stack([y[1], -k * y[0] * safe.norm(y)])
    return jnp.sum(ds.integrate(speed, jnp.zeros(2), TIMES, rate)[-1]) + rate


def _fixed_point(transpose):
    """w = a tanh(w) + b by iteration, with the adjoint of the fixed point by hand."""
    a = jnp.array([[0.3, 0.4], [-0.1, 0.2]])
    step = lambda w, b: a @ jnp.tanh(w) + b

    @jax.custom_vjp
    def solved(b):
        return lax.fori_loop(0, 60, lambda _, w: step(w, b), b)

    def back(w, cotangent):
        jacobian = a * (1 - jnp.tanh(w) ** 2)[None]
        return (jnp.linalg.solve(transpose(jnp.eye(2) - jacobian), cotangent),)

    solved.defvjp(lambda b: (solved(b),) * 2, back)
    return lambda b: solved(b) @ jnp.array([1.0, 2.0])


def _linear(transpose):
    a = jnp.array([[2.0, 1.0], [0.5, 1.5]])

    @jax.custom_vjp
    def solved(b):
        return jnp.linalg.solve(a, b)

    solved.defvjp(lambda b: (solved(b), None), lambda _, c: (jnp.linalg.solve(transpose(a), c),))
    return lambda b: jnp.sum(solved(b) ** 2)


def _raising(message):
    """A rule that raises where it is used."""
    f = jax.custom_vjp(lambda x: x**2)

    def back(x, cotangent):
        if message:
            raise KeyError(message)
        return (2 * x * cotangent,)

    f.defvjp(lambda x: (x**2, x), back)
    return lambda x: f(x) + x


POINT, ZERO, PAIR = jnp.array(0.37), jnp.array(0.0), jnp.zeros(2)
PAIRS = {
    "clock in a field": (clock, told_clock, POINT),
    "threshold in a field": (threshold, smooth_threshold, POINT),
    "least of limits": (least_of_limits, last_value, POINT),
    "norm in a field at rest": (at_rest, at_rest_safely, POINT),
    "transpose of a fixed point": (_fixed_point(lambda a: a), _fixed_point(jnp.transpose), X),
    "transpose of a linear solve": (_linear(lambda a: a), _linear(jnp.transpose), X),
    "sqrt at zero": (lambda x: jnp.sqrt(x**4) + x, lambda x: safe.sqrt(x**4) + x, ZERO),
    "norm at zero": (lambda x: jnp.linalg.norm(x) ** 2 + x[0], lambda x: jnp.sum(x**2) + x[0], PAIR),
    "angle at zero": (
        lambda x: jnp.sum(x**2) * jnp.arctan2(x[0], x[1]) + x[0],
        lambda x: jnp.sum(x**2) * jnp.arctan2(x[0], x[1] + 3) + x[0],
        PAIR,
    ),
    "power at zero": (lambda x: (x**2) ** 1.5 * x**0.5 + x, lambda x: x**3 + x, ZERO),
    "log behind where": (
        lambda x: jnp.sum(jnp.where(x > 1, (x - 1) ** 2 * jnp.log(x - 1), 0.0)),
        lambda x: jnp.sum(jnp.where(x > 1, (x - 1) ** 2 * jnp.log(jnp.where(x > 1, x - 1, 1.0)), 0.0)),
        X,
    ),
    "cancellation in float32": (
        lambda x: (((1e4 + x.astype(jnp.float32)) ** 2 - 1e8) / 2e4).astype(x.dtype),
        lambda x: ((1e4 + x) ** 2 - 1e8) / 2e4,
        POINT,
    ),
    "floor": (lambda x: jnp.floor(300 * x) / 300, lambda x: 300 * x / 300, POINT),
    "choice by argmax": (
        lambda x: jnp.array([1.0, 2.0])[jnp.argmax(x * jnp.array([1.9, 1.0]))],
        lambda x: jax.nn.softmax(x) @ jnp.array([1.0, 2.0]),
        X,
    ),
    "rule that raises": (_raising("back"), _raising(""), POINT),
}


# Determined by trying every bug in every construct.
ONCE_MISSED = {"checkpoint_adjoint": ("single",), "custom_root": ("single",)}
FAST = ("rollout", "batching_rule", "while_loop", "custom_root")
FAST_PAIRS = ("transpose of a fixed point", "norm at zero", "rule that raises")


def _table():
    """The cases as (function, point, whether it is a bug).

    Those that compile slowly are marked: every third `slow`, the others `exhaustive`.
    """
    marks_of = lambda fast, number: [] if fast else [pytest.mark.exhaustive if number % 3 else pytest.mark.slow]
    bugs = list(BUGS.items())
    for number, construct in enumerate(CONSTRUCTS):
        marks = marks_of(construct.__name__ in FAST, number)
        planted = [bugs[number % len(bugs)], *((name, BUGS[name]) for name in ONCE_MISSED.get(construct.__name__, ()))]
        for kind, at in (*planted, ("clean", identity)):
            f = lambda x, construct=construct, at=at: construct(x, at)
            yield pytest.param(f, X, kind != "clean", id=f"{construct.__name__}-{kind}", marks=marks)
    for number, (name, (wrong, right, point)) in enumerate(PAIRS.items()):
        marks = marks_of(name in FAST_PAIRS, number)
        yield pytest.param(wrong, point, True, id=f"{name}-bug", marks=marks)
        yield pytest.param(right, point, False, id=f"{name}-clean", marks=marks)


@pytest.mark.parametrize(("f", "point", "is_bug"), list(_table()))
def test_a_bug_is_reported_and_the_version_without_it_is_not(f, point, is_bug):
    check = check_gradients(f, (point,))
    assert check.ok != is_bug, str(check)
    assert "the search ended with" not in str(check)


def test_there_are_as_many_as_promised():
    assert len(CONSTRUCTS) + len(PAIRS) >= 60
