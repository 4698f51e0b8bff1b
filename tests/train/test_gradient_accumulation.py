"""Mean losses in blocks: value and gradient against the plain mean, for any blocks, order and padding."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds

ITEMS = jr.normal(jr.key(1), (23, 2))


def loss(model, item):
    return jnp.sum((model(item) - jnp.sin(item[0])) ** 2)


@pytest.fixture(scope="module")
def model():
    return ds.BoundedMLP(2, -1.0, 1.0, key=jr.key(0))


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_value_and_gradient_are_those_of_the_plain_mean(model, size):
    plain = ds.trainable(model, "layers")
    trained, fixed = eqx.partition(model, plain)
    combine = eqx.combine
    mean = ds.train.batched_mean(loss, batch_size=size)
    blocked = jax.jit(jax.value_and_grad(lambda t: mean(combine(t, fixed), ITEMS)))
    simple = jax.jit(jax.value_and_grad(lambda t: jnp.mean(jax.vmap(lambda x: loss(combine(t, fixed), x))(ITEMS))))
    for actual, expected in zip(jax.tree.leaves(blocked(trained)), jax.tree.leaves(simple(trained)), strict=True):
        # Another order of summation of 23 numbers: rounding.
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def test_cost_changes_the_order_alone(model):
    mean = ds.train.batched_mean(loss, batch_size=4)
    cost = jnp.abs(ITEMS[:, 0])
    np.testing.assert_allclose(mean(model, ITEMS, cost), mean(model, ITEMS), rtol=1e-13)


def test_padding_that_is_not_finite_does_not_count():
    # The first item pads the last block; its loss counts once, and the gradient is finite.
    mean = ds.train.batched_mean(lambda p, x: jnp.log(p * x), batch_size=2)
    value, slope = jax.value_and_grad(mean)(jnp.array(2.0), jnp.array([1.0, 2.0, 3.0]))
    assert value == pytest.approx(np.mean(np.log([2.0, 4.0, 6.0])), rel=1e-14)
    assert slope == pytest.approx(0.5, rel=1e-14)


def test_solves_with_adaptive_steps_in_blocks():
    def end(rate, y0):
        ys = ds.integrate(lambda t, y, rate: -rate * y, y0, jnp.array([0.0, 1.0]), rate, max_steps=64)
        return ys[-1] ** 2

    starts = jnp.linspace(0.5, 2.0, 7)
    value, slope = jax.jit(jax.value_and_grad(ds.train.batched_mean(end, batch_size=3)))(jnp.array(1.3), starts)
    exact = np.mean(np.asarray(starts) ** 2) * np.exp(-2.6)
    # rtol 1e-6 over some steps.
    assert value == pytest.approx(exact, rel=1e-5)
    assert slope == pytest.approx(-2 * exact, rel=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ds.InputError, match="batch_size=0: give at least one item"):
        ds.train.batched_mean(loss, batch_size=0)
    mean = ds.train.batched_mean(lambda p, x: p, batch_size=2)
    for items in (jnp.zeros((0, 2)), (jnp.ones(2), jnp.ones(3)), jnp.array(1.0), ()):
        with pytest.raises(ds.InputError, match=r"items (must have one leading axis of the same length|is empty)"):
            mean(jnp.array(1.0), items)


DEVICES = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 3)
import jax.numpy as jnp
import numpy as np
import diffsim as ds

def end(rate, y0):
    return ds.integrate(lambda t, y, rate: -rate * y**2, y0, jnp.array([0.0, 1.0]), rate, max_steps=64)[-1]

starts, rate = jnp.linspace(0.5, 2.0, 23), jnp.array(1.3)
for cost in (None, starts):
    mean = lambda **options: jax.jit(jax.value_and_grad(ds.train.batched_mean(end, batch_size=4, **options)))
    one = mean()(rate, starts, cost)
    three = mean(devices=jax.devices())(rate, starts, cost)
    # Another order of summation.
    np.testing.assert_allclose(three, one, rtol=1e-13)
"""


@pytest.mark.slow
def test_several_devices_give_the_same():
    # The number of devices is fixed when a process starts to use them.
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_empty_list_of_devices_is_named():
    with pytest.raises(ds.InputError, match="devices is empty"):
        ds.train.batched_mean(loss, devices=[])
