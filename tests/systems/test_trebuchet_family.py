"""Random trebuchets, the numbers without dimension that describe them, and the networks that aim them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems import trebuchet
from diffsim.systems.trebuchet import Aimer, Answer, Trebuchet, balance, groups, loaded, random_machine, throw
from diffsim.systems.trebuchet.family import GROUPS

MACHINES = jax.vmap(random_machine)(jr.split(jr.key(0), 500))


def one(number):
    return jax.tree.map(lambda x: x[number], MACHINES)


def test_random_machines_are_within_the_limits_and_fill_them():
    x = np.asarray(jax.vmap(groups)(MACHINES))
    assert x.shape == (500, len(GROUPS))
    assert np.abs(x).max() <= 1.0 + 1e-9
    assert (x.max(axis=0) > 0.7).all()
    assert (x.min(axis=0) < -0.7).all()
    ratio = np.asarray(MACHINES.m_weight / jax.vmap(balance)(MACHINES))
    assert 3.0 <= ratio.min() < 3.5
    assert 11.0 < ratio.max() <= 12.0
    trebuchet.check_in_family(one(0))
    trebuchet.check_in_family(Trebuchet())


@pytest.mark.parametrize("number", range(3))
def test_machines_with_the_same_groups_throw_alike(number):
    """Neither units nor the arm's mass, centre and inertia nor the ball's size and drag matter by themselves."""
    p = one(number)
    length, mass, time, split = 3.7, 0.2, 1.9, 0.8
    inertia = p.m_arm * p.d_cg**2 + p.I_arm
    m_arm = mass * p.m_arm / split
    d_cg = length * p.d_cg * split
    other = ds.replace(
        p,
        {
            **{name: length * getattr(p, name) for name in ("l_short", "l_long", "l_sling", "l_weight", "h_pivot")},
            **{"m_arm": m_arm, "d_cg": d_cg, "I_arm": mass * length**2 * inertia - m_arm * d_cg**2},
            **{"m_weight": mass * p.m_weight, "m_proj": mass * p.m_proj, "I_weight": mass * length**2 * p.I_weight},
            **{"Cd": 0.5, "rho": 3.0, "diameter": p.diameter * jnp.sqrt(mass / length / 1.5)},
            **{"g": p.g * length / time**2, "wind": p.wind * length / time},
        },
    )
    np.testing.assert_allclose(groups(other), groups(p), atol=1e-12)
    np.testing.assert_allclose(balance(other) / other.m_weight, balance(p) / p.m_weight, rtol=1e-12)
    ranges = [float(jax.jit(throw)(x).range / x.l_long) for x in (p, other)]
    np.testing.assert_allclose(ranges[1], ranges[0], rtol=1e-8)


def test_each_group_matters():
    """No group is idle: a change of any one, with the others as they are, changes the throw."""
    p = one(1)
    names = list(ds.parameters(p))
    vector = lambda p: jnp.stack([getattr(p, name) for name in names])
    machine = lambda values: ds.replace(p, dict(zip(names, values, strict=True)))
    numbers = lambda values: jnp.append(groups(machine(values)), machine(values).m_weight / balance(machine(values)))
    jacobian = jax.jacfwd(numbers)(vector(p))
    slope = jax.jacfwd(
        lambda values: jnp.log(throw(machine(values), check=False, mode="forward").range / machine(values).l_long)
    )
    gradient = jax.jit(slope)(vector(p))
    angle = names.index("angle")
    kept = [n for n in range(len(names)) if n != angle]
    by_group, _, rank, _ = np.linalg.lstsq(np.asarray(jacobian)[:, kept].T, np.asarray(gradient)[kept], rcond=None)
    assert rank == len(GROUPS) + 1
    np.testing.assert_allclose(np.asarray(jacobian)[:, kept].T @ by_group, np.asarray(gradient)[kept], atol=1e-6)
    assert (np.abs(by_group) > 1e-3).all()


def test_a_lighter_weight_has_less_inertia_of_its_own():
    p = one(2)
    lighter = loaded(p, 0.5 * p.m_weight)
    np.testing.assert_allclose(lighter.I_weight, 0.5 * p.I_weight)
    np.testing.assert_allclose(groups(lighter), groups(p), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l_sling": 4.0}, "l_sling / l_long is 1.93: the networks know machines with 0.8 to 1.2"),
        ({"wind": 40.0}, r"wind / sqrt\(g l_long\) is 8.88"),
        ({"m_weight": 500.0}, "m_weight is 500 kg, 66.3 times the weight that balances"),
        ({"m_weight": 8.0}, "m_weight is 8 kg, 1.06 times"),
    ],
)
def test_machines_outside_the_family_are_refused(changes, message):
    with pytest.raises(ds.InputError, match=message):
        trebuchet.check_in_family(ds.replace(Trebuchet(), changes))


@pytest.fixture(scope="module")
def refined():
    """The weight of the default machine at 32 degrees after a step of Newton's method, by target and weight."""
    answer = lambda mass: Answer(jnp.deg2rad(32.0), mass, jnp.array(0.0), jnp.array(5.0))
    return jax.jit(lambda target, mass: trebuchet.refine(Trebuchet(), target, answer(mass)).mass)


def test_newtons_method_squares_the_miss(refined):
    p = ds.replace(Trebuchet(), {"angle": jnp.deg2rad(32.0)})
    wanted = trebuchet.aim(p, jnp.array(55.0), 10.0, 44.0).mass
    masses = [1.03 * wanted]
    for _ in range(2):
        masses.append(refined(55.0, masses[-1]))
    first, second, third = (abs(float(mass / wanted - 1)) for mass in masses)
    assert second < 2 * first**2
    assert third < 1e-6


def test_newtons_method_stays_below_the_heaviest_weight(refined):
    heaviest = Trebuchet().m_weight
    np.testing.assert_allclose(refined(500.0, 0.99 * heaviest), heaviest)


def test_the_shipped_networks_aim_the_default_machine():
    aimer, p = trebuchet.pretrained_aimer(), Trebuchet()
    answer = aimer(p, 55.0)
    result = jax.jit(throw)(ds.replace(loaded(p, answer.mass), {"angle": answer.angle}))
    assert abs(float(result.range) / 55.0 - 1) < 0.01
    assert float(answer.excess) < 0.0 < float(aimer(p, 80.0).excess)
    for far in (75.0, 200.0, 1e4):
        np.testing.assert_allclose(aimer(p, far).mass, p.m_weight)
    nearest = float(aimer(p, 55.0).nearest)
    assert 0.5 * float(p.l_long) < nearest < 0.1 * 55.0
    assert np.isnan(aimer(p, 0.99 * nearest).mass)
    assert np.isfinite(aimer(p, 1.01 * nearest).mass)


def test_answers_can_be_batched_compiled_and_differentiated():
    aimer = trebuchet.pretrained_aimer()
    targets = 15 * MACHINES.l_long
    answers = eqx.filter_jit(lambda aimer: jax.vmap(aimer)(MACHINES, targets))(aimer)
    alone = aimer(one(3), targets[3])
    np.testing.assert_allclose(answers.mass[3], alone.mass, rtol=1e-5)
    slope = jax.grad(lambda target: aimer(one(3), target).angle)(targets[3])
    step = 1e-2 * targets[3]
    difference = (aimer(one(3), targets[3] + step).angle - aimer(one(3), targets[3] - step).angle) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=2e-2, atol=1e-5)


def test_single_precision_stays_single():
    p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), one(4))
    answer = Aimer(key=jr.key(0))(p, 15 * p.l_long)
    assert {x.dtype for x in answer} == {jnp.dtype(jnp.float32)}
