"""Special cases of solves: directions of time, jumps, failures, second derivatives, and invalid input."""

import subprocess
import sys

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds
from diffsim import Event, InputError, Phase, Status, integrate, integrate_hybrid, integrate_phase

TIGHT = dfx.PIDController(rtol=1e-10, atol=1e-12)
ONE, UNIT = jnp.array(1.0), jnp.array([0.0, 1.0])


def decay(t, y, k):
    return -k * y


@pytest.mark.slow
def test_backward_in_time_with_all_derivatives():
    ts = jnp.array([1.0, 0.6, 0.0])
    end = lambda k, t0: integrate(decay, jnp.exp(-1.0), ts.at[0].set(t0), k, stepsize_controller=TIGHT)
    exact = lambda k, t0: jnp.exp(-1.0) * jnp.exp(-k * (ts.at[0].set(t0) - t0))
    k, t0 = jnp.array(2.0), jnp.array(1.0)

    def all_of(f):
        slopes = jax.jacrev(f, (0, 1))(k, t0), jax.jacfwd(f, (0, 1))(k, t0), jax.hessian(f)(k, t0)
        return f(k, t0), slopes

    # Tolerance 1e-10 over a growth by e^2, and two derivatives.
    for own, right in zip(jax.tree.leaves(jax.jit(lambda: all_of(end))()), jax.tree.leaves(all_of(exact)), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-8, atol=1e-8)


def test_a_batch_may_run_in_both_directions():
    t1 = jnp.array([2.0, -1.0, 0.5])
    last = jax.jit(
        jax.vmap(lambda t1: integrate_phase(Phase(decay), 0.5, jnp.array(1.0), 1.5, t1=t1, stepsize_controller=TIGHT))
    )(t1)
    np.testing.assert_allclose(last.y, jnp.exp(-1.5 * (t1 - 0.5)), rtol=1e-8)
    np.testing.assert_array_equal(last.status, Status.FINISHED)


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_an_event_met_backward_in_time(mode):
    # Thrown up from the ground at t = 0; from its top at t = 1 back to the height h.
    g = 2.0
    fall = lambda t, y, h: jnp.stack([y[1], -g])
    phase = Phase(fall, (Event(lambda t, y, h: y[0] - h, "falling"),))
    time = lambda h: (
        integrate_phase(phase, 1.0, jnp.array([1.0, 0.0]), h, t1=-3.0, stepsize_controller=TIGHT, mode=mode).t
    )
    h = jnp.array(0.36)
    np.testing.assert_allclose(time(h), 1.0 - np.sqrt(0.64), rtol=1e-12)
    np.testing.assert_allclose([jax.grad(time)(h), jax.jacfwd(time)(h)], 0.5 / np.sqrt(0.64), rtol=1e-9)


@pytest.mark.parametrize("times", [[0.0, jnp.inf], [0.0, jnp.nan, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0], [3.0, 3.0, 4.0]])
def test_invalid_times(times):
    with pytest.raises(InputError, match="ts"):
        integrate(decay, jnp.array(1.0), jnp.array(times), 1.0)
    _, ys, status, *_ = jax.jit(lambda ts: ds.solve(decay, jnp.array(1.0), ts, 1.0))(jnp.array(times))
    assert int(status) == Status.INVALID_INPUT
    assert bool(jnp.all(jnp.isnan(ys[1:])))


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_steps": None}, "max_steps=None"),
        ({"max_steps": 1.5}, "max_steps=1.5"),
        ({"max_steps": True}, "max_steps=True"),
        ({"dt0": -0.1}, "dt0=-0.1"),
        ({"stepsize_controller": dfx.ConstantStepSize(), "dt0": 0.0}, "dt0=0.0"),
        ({"stepsize_controller": dfx.PIDController(rtol=-1e-6, atol=1e-9)}, "rtol=-1e-06"),
        ({"stepsize_controller": dfx.PIDController(rtol=1e-6, atol=-1e-9)}, "atol=-1e-09"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        integrate(decay, jnp.array(1.0), jnp.array([0.0, 1.0]), 1.0, **options)


@pytest.mark.parametrize("t1", [True, 1j, jnp.inf])
def test_an_invalid_final_time_is_refused(t1):
    with pytest.raises(InputError, match="t1"):
        integrate_phase(Phase(decay), 0.0, jnp.array(1.0), 1.0, t1=t1)


def test_clock_times_in_single_precision_are_refused():
    with pytest.raises(InputError, match=r"cannot be resolved in float32.*count the times from the first"):
        integrate(lambda t, y, a: -y, jnp.float32(1.0), 1.7e9 + np.arange(5.0))


def test_steps_in_single_precision_are_as_long_as_their_times_say():
    # At t = 3e5 the spacing of float32 is 1/32; steps of the controller's own choice are not multiples of it.
    ts = 3e5 + np.array([0.0, 2.0, 8.0])
    _, ys, status, *_ = ds.solve(lambda t, y, a: -0.25 * y, jnp.float32(1.0), ts)
    assert int(status) == Status.FINISHED
    np.testing.assert_allclose(ys, np.exp(-0.25 * (ts - ts[0])), rtol=1e-5)


def test_a_failed_solve_has_no_derivative_unless_it_is_left_out():
    end = lambda k, n: ds.solve(decay, jnp.array(1.0), jnp.array([0.0, 1.0]), k, max_steps=n)

    def loss(k):
        good, bad = end(k, 64), end(k, 2)
        return good.ys[-1] + jnp.where(bad.status == Status.FINISHED, bad.ys[-1], 0.0)

    k, failed = jnp.array(3.0), lambda k: end(k, 2).ys[-1]
    assert all(np.isnan(x) for x in (failed(k), jax.grad(failed)(k), jax.jacfwd(failed)(k), jax.hessian(failed)(k)))
    # The default tolerance of 1e-6.
    for slope in (jax.grad(loss)(k), jax.jacfwd(loss)(k)):
        np.testing.assert_allclose(slope, -np.exp(-3.0), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True], ids=["one jump", "two jumps, one outside"])
def test_jump_times_of_diffrax_are_stepped_to_and_differentiated(reverse):
    # y' = b - y with b = 1 before tau and -40 from there on.
    field = lambda t, y, tau: jnp.where(t < tau, 1.0, -40.0) - y

    def states(tau):
        jumps = jnp.stack([tau + 5.0, tau]) if reverse else tau[None]
        controller = dfx.ClipStepSizeController(TIGHT, jump_ts=jumps)
        return integrate(field, jnp.array(0.0), jnp.array([0.0, 1.0, 2.0, 3.0]), tau, stepsize_controller=controller)

    def exact(tau):
        at = lambda t: jnp.where(t < tau, 1 - jnp.exp(-t), -40 + (41 - jnp.exp(-tau)) * jnp.exp(tau - t))
        return at(jnp.array([0.0, 1.0, 2.0, 3.0]))

    def all_of(f):
        return f(tau), jax.jacrev(f)(tau), jax.jacfwd(f)(tau), jax.hessian(f)(tau)

    tau = jnp.array(1.3)
    for own, right in zip(jax.jit(lambda: all_of(states))(), all_of(exact), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("mode", ["auto", pytest.param("replay", marks=pytest.mark.slow)])
def test_heights_that_fall_to_the_floor_together_are_all_reset(mode):
    floor = lambda i: Event(lambda t, y, v: y[i], "falling", lambda t, y, v: y.at[i].set(1.0), to=0)
    both = Phase(lambda t, y, v: -v, (floor(0), floor(1)))

    def end(v):
        out = integrate_hybrid([both], jnp.array([1.0, 1.0]), v, t1=2.5, mode=mode)
        return out.y, (out.event_t[:5], out.event_index[:5], out.status)

    v = jnp.ones(2)
    (y, (times, events, status)), slope = jax.jit(lambda v: (end(v), jax.jacrev(end, has_aux=True)(v)[0]))(v)
    np.testing.assert_allclose(y, 0.5, rtol=1e-12)
    np.testing.assert_allclose(times[:4], [1.0, 1.0, 2.0, 2.0], rtol=1e-12)
    np.testing.assert_array_equal(events, [0, 1, 0, 1, -1])
    assert int(status) == Status.FINISHED
    # y = 1 - v (t - 2 / v) = 3 - v t.
    np.testing.assert_allclose(slope, -2.5 * np.eye(2), rtol=1e-10, atol=1e-10)


def test_a_ball_in_a_corner_stays_within_its_walls():
    # Both walls at once, at the start too, forth and back: a billiard of unit length, folded.
    def wall(i, side):
        function = (lambda t, s, a: 1.0 - s[i]) if side else (lambda t, s, a: s[i])
        return Event(function, "falling", lambda t, s, a: s.at[i + 2].multiply(-1.0), to=0)

    phase = Phase(
        lambda t, s, a: jnp.concatenate([s[2:], jnp.zeros(2)]), tuple(wall(i, k) for i in (0, 1) for k in (0, 1))
    )
    start = jnp.array([0.0, 0.0, -1.0, -1.0])
    run = jax.jit(jax.vmap(lambda v: integrate_hybrid([phase], start.at[2:].multiply(v), t1=3.3, max_events=16)))
    speeds = jnp.array([[1.0, 1.0], [1.0, 2.0], [0.5, 1.5]])
    out = run(speeds)
    folded = np.abs((3.3 * np.asarray(speeds) + 1) % 2 - 1)
    np.testing.assert_allclose(out.y[:, :2], folded, atol=1e-9)
    np.testing.assert_array_equal(out.status, Status.FINISHED)


def test_an_array_without_entries_may_be_part_of_a_state():
    field = lambda t, s, k: {"x": -k * s["x"], "none": s["none"]}
    states = lambda k: integrate(field, {"x": jnp.array(1.0), "none": jnp.zeros((0, 2))}, jnp.array([0.0, 0.5, 1.0]), k)
    out = states(jnp.array(2.0))
    assert out["none"].shape == (3, 0, 2)
    np.testing.assert_allclose(out["x"], np.exp([0.0, -1.0, -2.0]), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda k: states(k)["x"][-1])(jnp.array(2.0)), -np.exp(-2.0), rtol=1e-5)


def test_events_where_the_state_is_zero_are_all_found():
    # y = (t - a)(t - b)(t - c): each event is a restart from y = 0.
    roots = jnp.array([[-6.0, -2.0, 2.0], [-1.0, 0.0, 1.0], [0.1, 0.2, 3.0], [-7.9, 1.0, 3.9]])

    def find(r):
        slope = lambda t, y, a: (t - r[1]) * (t - r[2]) + (t - r[0]) * (t - r[2]) + (t - r[0]) * (t - r[1])
        phase = Phase(slope, (Event(lambda t, y, a: y, to=0),))
        return integrate_hybrid([phase], jnp.prod(-8.0 - r), t0=-8.0, t1=4.0, max_events=5).event_t

    event_times = jax.jit(jax.vmap(find))(roots)
    np.testing.assert_allclose(event_times[:, :3], roots, atol=1e-7)
    assert bool(jnp.all(jnp.isnan(event_times[:, 3:])))


SECOND = """
import jax, jax.numpy as jnp, diffsim as ds
jax.config.update("jax_enable_x64", {x64})
ts, one = jnp.linspace(0.0, 1.0, 5), jnp.array(1.0)
g = lambda y: ds.integrate(lambda t, y, args: -(y**2), y, ts)[-1]
tangent = lambda f: lambda y: jax.jvp(f, (y,), (one,))[1]
ways = [tangent(jax.grad(g)), tangent(tangent(g)), jax.hessian(g), jax.jacfwd(jax.jacfwd(g))]
for way in ways + [jax.jit(way) for way in ways]:
    assert abs(float(way(one)) + 0.25) < 1e-3
for way in (jax.grad(jax.grad(g)), jax.jacrev(jax.jacfwd(g))):
    try:
        way(one)
    except ds.InputError as error:
        assert "use jax.hessian" in str(error)
    else:
        raise AssertionError("not refused")
"""

TWO_PHASES = """
import jax, jax.numpy as jnp, diffsim as ds
jax.config.update("jax_enable_x64", True)
on = ds.Phase(lambda t, u, a: jnp.stack([-a, jnp.ones_like(a)]), (ds.Event(lambda t, u, a: u[0], to=1),))
off = ds.Phase(lambda t, u, a: jnp.stack([-a, 0 * a]))
for mode in ("auto", "replay"):
    end = lambda a: ds.integrate_hybrid([on, off], jnp.array([1.0, 0.0]), a, t1=1.0, max_events=2, mode=mode).y[1]
    assert abs(float(jax.hessian(end)(jnp.array(2.0))) - 0.25) < 1e-8
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [SECOND.format(x64=True), SECOND.format(x64=False), TWO_PHASES])
def test_second_derivatives_do_not_end_the_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("loop", ["map", "scan"])
@pytest.mark.parametrize("kind", ["integrate", "event"])
def test_second_derivatives_of_loops_over_solves(kind, loop):
    """jax 0.10 drops the rules of the solves inside the loop."""
    half = Phase(lambda t, y, k: -k[0] * y, Event(lambda t, y, k: y - k[1]))
    solve, exact = {
        "integrate": (
            lambda k: integrate(lambda t, y, k: -k[0] * y + k[1], ONE, UNIT, k, stepsize_controller=TIGHT)[-1],
            lambda k: jnp.exp(-k[0]) + k[1] / k[0] * (1 - jnp.exp(-k[0])),
        ),
        "event": (
            lambda k: integrate_phase(half, 0.0, ONE, k, t1=9.0, stepsize_controller=TIGHT, mode="replay").t,
            lambda k: -jnp.log(k[1]) / k[0],
        ),
    }[kind]
    rows = lambda k: k[None] * jnp.array([[1.0], [1.1]])
    total = {
        "map": lambda f: lambda k: jnp.sum(jax.lax.map(f, rows(k))),
        "scan": lambda f: lambda k: jax.lax.scan(lambda c, row: (c + f(row), None), 0.0, rows(k))[0],
    }[loop]
    k = jnp.array([0.7, 0.3])
    own, right = (jax.jit(jax.hessian(total(f)))(k) for f in (solve, exact))
    # Tolerance 1e-10, and two derivatives.
    np.testing.assert_allclose(own, right, rtol=1e-6, atol=1e-6)


def test_a_batch_of_none():
    """An empty batch has no values and no derivatives, and is not an error."""
    half = Event(lambda t, y, k: y - 0.5)
    solves = (
        lambda k: integrate(decay, jnp.array(1.0), jnp.array([0.0, 1.0]), k)[-1],
        lambda k: integrate_phase(Phase(decay, half), 0.0, jnp.array(1.0), k, t1=2.0, mode="replay").t,
    )
    none = jnp.zeros(0)
    for solve in solves:
        assert jax.vmap(solve)(none).shape == (0,)
        assert jax.jit(jax.grad(lambda k, solve=solve: jnp.sum(jax.vmap(solve)(k))))(none).shape == (0,)


def test_reverse_mode_of_forward_mode_is_refused_with_a_message():
    half = Event(lambda t, y, k: y - 0.5)
    at = lambda k: integrate_phase(Phase(decay, half), 0.0, jnp.array(1.0), k, t1=2.0, mode="forward").t
    last = lambda k: integrate_hybrid(Phase(decay, half), jnp.array(1.0), k, t1=2.0, max_events=2, mode="forward").y
    for way in (jax.grad(at), jax.grad(last), jax.hessian(last)):
        with pytest.raises(InputError, match='mode="forward" has no derivative in reverse mode: use mode="auto"'):
            way(jnp.array(1.0))


def fall(t, y, args):
    return -y


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: integrate(fall, ONE, UNIT, solver="dopri5"), r"solver='dopri5'.*diffrax.Dopri5\(\)"),
        (lambda: integrate(fall, ONE, UNIT, solver=dfx.Tsit5), r"solver=Tsit5 is not.*diffrax.Tsit5\(\)"),
        (lambda: integrate(fall, ONE, UNIT, stepsize_controller=1e-6), "stepsize_controller=1e-06 is not"),
        (
            lambda: integrate(fall, ONE, UNIT, stepsize_controller=TIGHT, rtol=1e-3),
            "both stepsize_controller= and rtol=",
        ),
        (lambda: integrate(fall, ONE, UNIT, rtol=-1e-3), "rtol=-0.001: a tolerance"),
        (lambda: integrate_phase(fall, 0.0, ONE, t1=1.0), "a phase is a function: give diffsim.Phase"),
        (lambda: integrate_hybrid([fall], ONE, t1=1.0), "a phase is a function: give diffsim.Phase"),
        (lambda: Phase(fall, (lambda t, y, args: y,)), "events has a function: give diffsim.Event"),
    ],
)
def test_what_people_pass_by_mistake_is_refused_with_the_remedy(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_short_forms():
    """Tolerances without a controller, one phase and one event without a tuple."""
    half = Event(lambda t, y, args: y - 0.5)
    for end in (
        integrate_hybrid(Phase(fall, half, lambda t, y, args: y), ONE, t1=2.0, rtol=1e-10),
        integrate_phase(Phase(fall, half), 0.0, ONE, t1=2.0, rtol=1e-10, atol=1e-12),
    ):
        np.testing.assert_allclose(end.t, np.log(2.0), rtol=1e-9)
    errors = [abs(float(integrate(fall, ONE, UNIT, rtol=rtol)[-1]) - np.exp(-1.0)) for rtol in (1e-3, 1e-6, 1e-10)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10


def test_a_tolerance_that_single_precision_does_not_resolve_is_warned_of():
    one = jnp.float32(1.0)
    decay = lambda rtol: integrate(lambda t, y, a: -y, one, jnp.array([0.0, 1.0], jnp.float32), rtol=rtol)[-1]
    with pytest.warns(UserWarning, match=r"rtol=1e-08 is less than float32 resolves.*give 1e-06, or compute"):
        decay(1e-8)
    np.testing.assert_allclose(decay(1e-6), np.exp(-1.0), rtol=3e-6)
    integrate(lambda t, y, a: -y, jnp.array(1.0), jnp.array([0.0, 1.0]), rtol=1e-8)


def test_default_tolerances_suit_the_number_format():
    fall = Phase(lambda t, y, a: -y, Event(lambda t, y, a: y - 0.5, "falling"))
    single, double = (integrate_phase(fall, 0.0, one, t1=2.0) for one in (jnp.float32(1.0), jnp.array(1.0)))
    # Those of double precision would take twice as many.
    assert single.steps < double.steps
    np.testing.assert_allclose([single.t, double.t], np.log(2.0), rtol=1e-6)
    assert single.t.dtype == jnp.float32
