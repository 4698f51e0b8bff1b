"""Equations of motion from energies, against equations written out by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.mechanics import acceleration, energy, solve_arrow
from diffsim.testing import assert_gradients

G = 9.81
EXACT = 1e-12  # float64 after a few tens of operations and a well-conditioned 2 by 2 solve


class Angles(NamedTuple):
    upper: jax.Array
    lower: jax.Array


def pendulum(q, v, length):
    return 0.5 * (length * v) ** 2 + G * length * jnp.cos(q)


def double_pendulum(q, v, m1=1.3, m2=0.7, l1=0.9, l2=1.1):
    kinetic = 0.5 * (m1 + m2) * (l1 * v.upper) ** 2 + 0.5 * m2 * (l2 * v.lower) ** 2
    coupling = m2 * l1 * l2 * v.upper * v.lower * jnp.cos(q.upper - q.lower)
    potential = -(m1 + m2) * G * l1 * jnp.cos(q.upper) - m2 * G * l2 * jnp.cos(q.lower)
    return kinetic + coupling - potential


def double_pendulum_by_hand(q, v, m1=1.3, m2=0.7, l1=0.9, l2=1.1):
    """The textbook accelerations of two point masses on massless rods, angles from the vertical."""
    delta = q.upper - q.lower
    below = 2 * m1 + m2 - m2 * jnp.cos(2 * delta)
    spin = v.lower**2 * l2 + v.upper**2 * l1 * jnp.cos(delta)
    upper = -G * (2 * m1 + m2) * jnp.sin(q.upper) - m2 * G * jnp.sin(q.upper - 2 * q.lower)
    upper = (upper - 2 * jnp.sin(delta) * m2 * spin) / (l1 * below)
    pull = v.upper**2 * l1 * (m1 + m2) + G * (m1 + m2) * jnp.cos(q.upper)
    pull = pull + v.lower**2 * l2 * m2 * jnp.cos(delta)
    return Angles(upper, 2 * jnp.sin(delta) * pull / (l2 * below))


def spring(q, v, mass, stiffness):
    return 0.5 * jnp.sum(mass * v["x"] ** 2) - 0.5 * jnp.sum(stiffness * q["x"] ** 2)


def draw(seed, scale):
    return Angles(*(scale * jr.normal(jr.key(seed), (2,))))


def test_pendulum():
    a = acceleration(pendulum, jnp.array(0.7), jnp.array(-1.2), args=(2.0,))
    np.testing.assert_allclose(a, -G / 2.0 * np.sin(0.7), rtol=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_double_pendulum(seed):
    q, v = draw(seed, 1.5), draw(seed + 100, 3.0)
    a, expected = acceleration(double_pendulum, q, v), double_pendulum_by_hand(q, v)
    assert isinstance(a, Angles)
    np.testing.assert_allclose(jnp.stack(a), jnp.stack(expected), rtol=EXACT, atol=EXACT * G)


def test_springs_in_an_array():
    mass, stiffness = jnp.array([1.0, 2.0, 5.0]), jnp.array([3.0, 4.0, 1.0])
    x = jnp.array([0.1, -0.4, 2.0])
    a = acceleration(spring, {"x": x}, {"x": jnp.ones(3)}, args=(mass, stiffness))
    np.testing.assert_allclose(a["x"], -stiffness * x / mass, rtol=EXACT)


def test_force_and_position_dependent_mass():
    """A bead on the parabola y = x^2 / 2 with a force along x: (1 + x^2) a = Q - x v^2 - G x."""
    bead = lambda q, v: 0.5 * (1 + q**2) * v**2 - G * q**2 / 2
    x, v, push = 0.6, 1.7, 2.5
    a = acceleration(bead, jnp.array(x), jnp.array(v), force=jnp.array(push))
    np.testing.assert_allclose(a, (push - x * v**2 - G * x) / (1 + x**2), rtol=EXACT)


def test_a_force_is_the_fourth_argument():
    """The force must not be taken for an argument of the Lagrangian, which may have defaults: here the mass `m1`."""
    q, v, torque = draw(3, 1.5), draw(103, 3.0), Angles(jnp.array(0.4), jnp.array(-0.2))
    by_position = acceleration(double_pendulum, q, v, torque)
    by_name = acceleration(double_pendulum, q, v, force=torque, args=(1.3, 0.7))
    np.testing.assert_array_equal(jnp.stack(by_position), jnp.stack(by_name))
    # The change is M^-1 Q, with the textbook's mass matrix.
    m1, m2, l1, l2 = 1.3, 0.7, 0.9, 1.1
    coupling = m2 * l1 * l2 * np.cos(q.upper - q.lower)
    mass = np.array([[(m1 + m2) * l1**2, coupling], [coupling, m2 * l2**2]])
    change = jnp.stack(by_position) - jnp.stack(double_pendulum_by_hand(q, v))
    np.testing.assert_allclose(mass @ change, jnp.stack(torque), rtol=1e-10)  # of differences of some 10 rad/s^2


@pytest.mark.usefixtures("wrong_types")
def test_what_is_neither_a_force_nor_arguments_is_named():
    for call in (acceleration, energy):
        with pytest.raises(InputError, match=r"args=2.0: give a tuple .* args=\(...,\)"):
            call(pendulum, jnp.array(0.7), jnp.array(-1.2), args=2.0)
    with pytest.raises(InputError, match=r"force is .* but q is"):
        acceleration(double_pendulum, draw(0, 1.0), draw(1, 1.0), jnp.ones(2))
    with pytest.raises(TypeError, match="positional"):
        acceleration(pendulum, jnp.array(0.7), jnp.array(-1.2), jnp.array(0.1), 2.0)


def test_energy():
    np.testing.assert_allclose(
        energy(pendulum, jnp.array(0.7), jnp.array(-1.2), args=(2.0,)), 0.5 * 2.4**2 - 2 * G * np.cos(0.7), rtol=EXACT
    )


@pytest.mark.parametrize("seed", range(3))
def test_motion_keeps_the_energy(seed):
    q, v = draw(seed, 1.5), draw(seed + 100, 3.0)
    a = acceleration(double_pendulum, q, v)
    rate = jax.jvp(lambda q, v: energy(double_pendulum, q, v), (q, v), (v, a))[1]
    assert abs(rate) < 1e-10  # W, out of some 1e2 W that flow to and fro, to EXACT


def test_jit_vmap_and_jacobian():
    q, v = (jax.tree.map(lambda *x: jnp.stack(x), *(draw(s + n, 1.0) for s in range(4))) for n in (0, 100))
    batch = jax.jit(jax.vmap(lambda q, v: acceleration(double_pendulum, q, v)))(q, v)
    np.testing.assert_allclose(batch.upper, double_pendulum_by_hand(q, v).upper, rtol=EXACT, atol=EXACT * G)
    slope = jax.jacfwd(lambda q: acceleration(pendulum, q, jnp.array(0.0), args=(2.0,)))(jnp.array(0.7))
    np.testing.assert_allclose(slope, -G / 2.0 * np.cos(0.7), rtol=EXACT)


def test_gradients():
    def loss(q, v, lengths):
        model = lambda q, v: double_pendulum(q, v, l1=lengths[0], l2=lengths[1])
        a = acceleration(model, q, v)
        return a.upper**2 + jnp.sin(a.lower) + energy(model, q, v)

    assert_gradients(loss, (draw(0, 1.0), draw(1, 1.0), jnp.array([0.9, 1.1])))


def test_coordinate_without_inertia_gives_no_number():
    massless = lambda q, v: 0.5 * v[0] ** 2 - jnp.sum(q**2)
    assert not np.all(np.isfinite(acceleration(massless, jnp.ones(2), jnp.ones(2))))


def test_shapes_that_differ():
    with pytest.raises(InputError, match=r"v has shapes \[\(3,\)\] but q has \[\(2,\)\]"):
        acceleration(pendulum, jnp.ones(2), jnp.ones(3), args=(1.0,))
    with pytest.raises(InputError, match="the same structure"):
        energy(spring, {"x": jnp.ones(2)}, jnp.ones(2), args=(1.0, 1.0))
    with pytest.raises(InputError, match=r"force has shapes \[\(2,\)\]"):
        acceleration(pendulum, jnp.array(1.0), jnp.array(1.0), jnp.ones(2), args=(2.0,))


def test_an_arrow_matrix_is_solved_with_all_derivatives():
    """Against LAPACK, for three coordinates, in every mode and in single precision."""
    draw = np.random.default_rng(0)
    x = jnp.asarray([6.0, *draw.normal(size=2), *draw.uniform(1, 2, 2), *draw.normal(size=3)])

    def ours(x):
        return jnp.stack(solve_arrow(x[0], [x[1], x[2]], [x[3], x[4]], [x[5], x[6], x[7]]))

    def dense(x):
        matrix = jnp.diag(jnp.stack([x[0], x[3], x[4]])).at[0, 1:].set(x[1:3]).at[1:, 0].set(x[1:3])
        return jnp.linalg.solve(matrix, x[5:])

    every = lambda f: jax.jit(lambda x: (f(x), jax.jacfwd(f)(x), jax.jacrev(f)(x), jax.hessian(f)(x)))(x)
    for a, b in zip(every(ours), every(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    many = jnp.stack([x, 1.1 * x])
    np.testing.assert_allclose(jax.vmap(ours)(many), jax.vmap(dense)(many), rtol=1e-12)
    single = ours(x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, ours(x), rtol=1e-5)
