"""The trebuchet against an independent simulator, its energy, and the Lagrangian form of its equations."""

import csv
from pathlib import Path

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import integrate, replace
from diffsim.systems import trebuchet as tb
from diffsim.systems.trebuchet import Direction, Swing, ThrowStatus, Trebuchet

DATA = Path(__file__).parent.parent / "data"
COLUMNS = (
    "l_short",
    "l_long",
    "l_sling",
    "l_weight",
    "h_pivot",
    "m_arm",
    "I_arm",
    "d_cg",
    "m_weight",
    "m_proj",
    "diameter",
    "Cd",
    "rho",
    "g",
    "wind",
)


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def column(table, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in table])


def machines(table) -> Trebuchet:
    """All machines of a table, stacked along a leading axis."""
    values = {name: column(table, name) for name in COLUMNS} | {"angle": np.radians(column(table, "angle_deg"))}
    return jax.vmap(lambda v: Trebuchet(**v))({k: jnp.asarray(v) for k, v in values.items()})


THROWS = rows("throws.csv")
GRADIENTS = rows("gradients.csv")
MOVED = ("angle_deg", "m_weight", "wind", "l_sling", "l_short", "l_long")


@pytest.fixture(scope="module")
def thrown():
    """The table's throws, and after them fifty random machines, many of them absurd, and three absurd ones."""
    absurd = [
        Trebuchet(h_pivot=2.5),
        Trebuchet(m_weight=0.5, m_arm=20.0),
        Trebuchet(m_weight=1e-3, m_arm=1e-6, I_arm=1e-6),
    ]
    random = jax.vmap(any_machine)(jax.random.split(jax.random.key(0), 50))
    stacked = jax.tree.map(
        lambda *x: jnp.concatenate([jnp.atleast_1d(i) for i in x]), machines(THROWS), random, *absurd
    )
    # A machine that only swings to and fro takes more steps than a throw does.
    return jax.jit(lambda ms: jax.lax.map(lambda m: tb.throw(m, mode="forward", max_steps=4096), ms))(stacked)


def any_machine(key) -> Trebuchet:
    """The default machine with every length and mass times 1/4 to 4."""
    default = Trebuchet()
    factors = 4 ** jax.random.uniform(key, (8,), minval=-1.0, maxval=1.0)
    names = ("l_short", "l_long", "l_sling", "l_weight", "h_pivot", "m_arm", "m_weight", "m_proj")
    return replace(default, {name: getattr(default, name) * f for name, f in zip(names, factors, strict=True)})


@pytest.mark.parametrize(
    ("name", "slack"), [(n, s) for n in ("range", "t_release", "v_release") for s in (False, True)]
)
def test_throws_agree_with_an_independent_simulator(thrown, name, slack):
    chosen = np.array([row["slack"] == "True" for row in THROWS]) == slack
    values = np.asarray(getattr(thrown, name))[: len(THROWS)]
    # rtol 1e-10 here and 1e-12 there; a slack throw is a rod under pressure, which amplifies errors.
    np.testing.assert_allclose(values[chosen], column(THROWS, name)[chosen], rtol=1e-5 if slack else 1e-8)


def test_slack_is_flagged_exactly(thrown):
    expected = [ThrowStatus.SLACK if row["slack"] == "True" else ThrowStatus.TAUT for row in THROWS]
    assert np.array_equal(thrown.status[: len(THROWS)], expected)
    assert np.all(np.asarray(thrown.tension[: len(THROWS)] < 0) == [row["slack"] == "True" for row in THROWS])


def test_random_machines_throw_or_say_why_not(thrown):
    status, distance = np.asarray(thrown.status)[len(THROWS) :], np.asarray(thrown.range)[len(THROWS) :]
    threw = status <= ThrowStatus.GROUNDED
    assert np.all(np.isfinite(distance[threw]))
    assert not np.any(np.isfinite(distance[status >= ThrowStatus.LIFTS_AT_START]))
    assert not np.any(status == ThrowStatus.FAILED)
    assert threw.sum() > 10


def test_absurd_machines_are_named(thrown):
    high, weak, light = (ThrowStatus(int(s)) for s in thrown.status[-3:])
    assert high == ThrowStatus.STARTS_TOO_HIGH
    assert weak == ThrowStatus.NEVER_LIFTS
    assert light == ThrowStatus.NEVER_LIFTS
    assert np.all(np.isnan(thrown.range[-3:]))


@pytest.mark.slow
def test_gradients_agree_with_an_independent_simulator():
    table = machines(GRADIENTS)

    def distance(x, machine):
        moved = dict(zip(MOVED, x, strict=True))
        moved["angle"] = jnp.radians(moved.pop("angle_deg"))
        return tb.throw(replace(machine, moved), check=False, mode="forward").range

    x = jnp.stack([jnp.asarray(column(GRADIENTS, name)) for name in MOVED], axis=1)
    values = jax.jit(lambda x, table: jax.lax.map(lambda xm: jax.jacfwd(distance)(*xm), (x, table)))(x, table)
    expected = np.stack([column(GRADIENTS, f"d_{name}") for name in MOVED], axis=1)
    # The wind may be zero: its scale is 1 m/s.
    scale = column(GRADIENTS, "range")[:, None] / np.maximum(np.abs(x), 1.0)
    # A derivative is about a hundred times less accurate than the range, 1e-8; the table's own errors are below that.
    assert np.max(np.abs(values - expected) / scale) <= 1e-6


def test_the_swing_keeps_its_energy():
    machine = Trebuchet(I_weight=1.5)
    angle = lambda x: Direction(jnp.cos(x), jnp.sin(x))
    start = Swing(angle(0.6), angle(-1.4), angle(-0.2), *jnp.array([1.0, -0.5, 2.0]))
    controller = dfx.PIDController(rtol=1e-12, atol=1e-13)
    ts = jnp.linspace(0.0, 1.0, 11)
    total = lambda s: jnp.stack(tb.energy(0.0, s, machine))

    @jax.jit
    def energies(start):
        ys = integrate(
            tb.swing, start, ts, machine, solver=dfx.Dopri8(), stepsize_controller=controller, max_steps=1024
        )
        return jax.vmap(total)(ys)

    energy = np.asarray(energies(start))
    # rtol 1e-12 per step over some hundred steps.
    assert np.ptp(energy.sum(axis=1)) <= 1e-10 * np.max(np.abs(energy))


def test_the_written_out_equations_are_those_of_the_lagrangian():
    def state(q, v):
        return Swing(*(Direction(jnp.cos(a), jnp.sin(a)) for a in q), *v)

    def lagrangian(q, v, machine):
        kinetic, potential = tb.energy(0.0, state(q, v), machine)
        return kinetic - potential

    def acceleration(q, v, machine):
        force = jax.grad(lagrangian)(q, v, machine)
        mass = jax.hessian(lagrangian, argnums=1)(q, v, machine)
        drift = jax.jacfwd(jax.grad(lagrangian, argnums=1))(q, v, machine) @ v
        return jnp.linalg.solve(mass, force - drift)

    @jax.jit
    @jax.vmap
    def both(key):
        q, v, m = jax.random.split(key, 3)
        q, v = jax.random.uniform(q, (3,), minval=-np.pi, maxval=np.pi), 5 * jax.random.normal(v, (3,))
        machine = any_machine(m)
        slope = tb.swing(0.0, state(q, v), machine)
        return jnp.stack([slope.arm_rate, slope.hanger_rate, slope.sling_rate]), acceleration(q, v, machine)

    written, derived = both(jax.random.split(jax.random.key(1), 100))
    # Rounding, times the condition of the mass matrix.
    scale = np.max(np.abs(derived), axis=1, keepdims=True)
    assert np.max(np.abs(written - derived) / scale) <= 1e-10


def test_energy_agrees_with_the_positions_and_speeds_of_the_parts():
    """The kinetic energy from differentiated positions, which shares nothing with the written-out inertias."""
    machine = Trebuchet()

    def positions(q):
        along = lambda a: jnp.stack([jnp.cos(a), jnp.sin(a)])
        pivot = jnp.stack([jnp.zeros_like(machine.h_pivot), machine.h_pivot])
        weight = pivot + machine.l_short * along(q[0]) + machine.l_weight * along(q[1])
        ball = pivot - machine.l_long * along(q[0]) + machine.l_sling * along(q[2])
        return jnp.stack([weight, ball, pivot - machine.d_cg * along(q[0])])

    q, v = jnp.array([0.6, -1.4, -0.2]), jnp.array([1.0, -0.5, 2.0])
    where, speed = jax.jvp(positions, (q,), (v,))
    masses = jnp.stack([machine.m_weight, machine.m_proj, machine.m_arm])
    kinetic = 0.5 * masses @ jnp.sum(speed**2, axis=1) + 0.5 * machine.I_arm * v[0] ** 2
    potential = machine.g * masses @ (where[:, 1] - machine.h_pivot)
    values = tb.energy(0.0, Swing(*(Direction(jnp.cos(a), jnp.sin(a)) for a in q), *v), machine)
    # The same sums in another order.
    np.testing.assert_allclose(values, (kinetic, potential), rtol=1e-13)


@pytest.mark.slow
def test_a_drawing_follows_the_throw():
    """The frames at the events are where the throw, which is solved to 1e-10, has them."""

    @jax.jit
    def frames(mass):
        p = replace(Trebuchet(), {"m_weight": mass})
        result = tb.throw(p, mode="forward")
        return p, result, tb.drawing(p, result, 40)

    p, result, drawing = frames(44.0)
    assert drawing.t.shape == (121,)
    events = [0.0, result.t_liftoff, result.t_release, result.t_impact]
    np.testing.assert_allclose(drawing.t[::40], events, rtol=1e-12)
    lying = jnp.array([-p.l_long * jnp.sqrt(1 - (p.h_pivot / p.l_long) ** 2) + p.l_sling, 0.0])
    np.testing.assert_allclose(drawing.ball[0], lying, atol=1e-12)
    np.testing.assert_allclose(drawing.ball[40, 1], 0.0, atol=1e-9)  # lifts off the ground
    np.testing.assert_allclose(drawing.ball[80], result.release[:2], atol=1e-5)
    np.testing.assert_allclose(drawing.ball[120], jnp.stack([result.range, 0.0]), atol=1e-5)
    length = lambda a, b: jnp.linalg.norm(a - b, axis=1)
    np.testing.assert_allclose(length(drawing.tip, drawing.hinge), p.l_long + p.l_short, rtol=1e-5)
    np.testing.assert_allclose(length(drawing.tip, drawing.ball)[:81], p.l_sling, rtol=1e-5)
    np.testing.assert_allclose(drawing.tip[80:], jnp.broadcast_to(drawing.tip[80], (41, 2)))  # rests


@pytest.mark.slow
def test_a_parameter_that_is_no_number_is_a_failure():
    """And not said to be a machine that never lifts its ball."""
    throw = jax.jit(lambda p: tb.throw(p, mode="forward"))
    for name in ("l_long", "h_pivot", "m_weight", "Cd"):
        result = throw(eqx.tree_at(lambda p, name=name: getattr(p, name), Trebuchet(), jnp.array(jnp.nan)))
        assert result.status == ThrowStatus.FAILED
        assert np.isnan(result.range)
