"""Parameters: declaration, checks, paths, filters and the transform that removes bounds."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffsim as ds
from diffsim import InputError, Scalar, param
from diffsim.parameters import parameters, partition


class Cart(eqx.Module):
    mass: Scalar = param(2.0, "kg", bounds=(0.1, 10.0))
    friction: Scalar = param(0.5, "N s/m", bounds=(0.0, np.inf))
    slope: Scalar = param(-1.0, "rad", bounds=(-np.inf, 0.0))
    gains: Float[Array, " 3"] = param(np.array([0.2, 0.5, 0.8]), "", bounds=(0.0, 1.0))
    offset: Scalar = param(0.0, "m")


class Plant(eqx.Module):
    cart: Cart
    spares: dict[str, Cart]
    network: list[eqx.nn.Linear]
    count: int = eqx.field(static=True, default=3)
    activation: Any = jnp.tanh


def plant() -> Plant:
    return Plant(Cart(), {"left": Cart(mass=3.0)}, [eqx.nn.Linear(2, 2, key=jax.random.key(0))])


def test_a_declaration_becomes_strong_floating_arrays():
    cart = Cart(mass=3)
    assert cart.mass.dtype == jnp.float64
    assert not cart.mass.weak_type
    assert cart.mass == 3.0
    assert cart.friction == 0.5
    assert cart.gains.shape == (3,)


def test_a_declaration_holds_numbers_so_that_import_makes_no_array():
    declarations = [field.metadata["declaration"] for field in Cart.__dataclass_fields__.values()]
    assert not any(isinstance(d.default, jax.Array) for d in declarations)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mass": 20.0}, r"mass=20 kg is not allowed; give from 0\.1 to 10"),
        ({"mass": 0.0}, r"mass=0 kg is not allowed; give from 0\.1 to 10"),
        ({"mass": np.nan}, r"mass=nan kg is not allowed; give from 0\.1 to 10"),
        ({"offset": np.inf}, r"offset=inf m is not allowed; give any finite number"),
        ({"gains": [0.1, 0.2, 7.0]}, r"gains=7 is not allowed; give from 0 to 1"),
        ({"mass": [1.0, 2.0]}, r"mass has shape \(2,\), expected \(\); use vmap for batches"),
        ({"gains": 0.5}, r"gains has shape \(\), expected \(3,\)"),
        ({"mass": "heavy"}, r"mass='heavy': expected a number"),
        ({"mass": None}, r"mass=None: expected a number"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_the_remedy(values, message):
    with pytest.raises(InputError, match=message):
        Cart(**values)


def test_bounds_belong_to_the_allowed_values():
    assert Cart(mass=0.1).mass == 0.1
    assert Cart(mass=10.0).mass == 10.0


def test_bounds_in_the_wrong_order():
    with pytest.raises(InputError, match=r"bounds=\(2\.0, 1\.0\): the first must be smaller"):
        param(1.0, "m", bounds=(2.0, 1.0))


def test_paths_lead_through_modules_dictionaries_and_lists():
    entries = ds.parameters(plant())
    names = {"mass", "friction", "slope", "gains", "offset"}
    expected = {f"cart.{n}" for n in names} | {f"spares.left.{n}" for n in names}
    assert set(entries) == expected | {"network.0.weight", "network.0.bias"}
    assert entries["spares.left.mass"].value == 3.0
    assert entries["spares.left.mass"].unit == "kg"
    assert entries["spares.left.mass"].bounds == (0.1, 10.0)
    assert entries["network.0.bias"].unit == ""
    assert entries["network.0.bias"].bounds == (-np.inf, np.inf)


def chosen(filter_) -> set[str]:
    leaves = jax.tree_util.tree_leaves_with_path(filter_)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, leaf in leaves if leaf is True}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("cart.mass",), {"cart.mass"}),
        (("network",), {"network.0.weight", "network.0.bias"}),
        (("*.mass",), {"cart.mass", "spares.left.mass"}),
        (("cart.mass", "*.bias"), {"cart.mass", "network.0.bias"}),
    ],
    ids=["path", "prefix", "glob", "several"],
)
def test_trainable_and_frozen_are_counterparts(paths, expected):
    model = plant()
    everything = set(ds.parameters(model))
    assert chosen(ds.trainable(model, *paths)) == expected
    assert chosen(ds.frozen(model, *paths)) == everything - expected
    trained, fixed = eqx.partition(model, ds.trainable(model, *paths))
    assert set(ds.parameters(trained)) == expected
    assert set(ds.parameters(fixed)) == everything - expected


def test_without_paths_everything_trains():
    model = plant()
    assert chosen(ds.trainable(model)) == set(ds.parameters(model)) == chosen(ds.frozen(model))


@pytest.mark.parametrize(
    "use", [ds.trainable, ds.frozen, lambda m, p: ds.replace(m, {p: 1.0})], ids=["trainable", "frozen", "replace"]
)
def test_an_unknown_path_suggests_the_closest(use):
    with pytest.raises(InputError, match=r"unknown parameter 'cart\.mas'; did you mean 'cart\.mass'\?"):
        use(plant(), "cart.mas")
    with pytest.raises(InputError, match=r"unknown parameter 'qqq'; known: cart\.mass, "):
        use(plant(), "qqq")


def test_a_partition_and_its_counterpart_combine_to_the_model():
    model = plant()
    for spec in (None, ds.trainable(model, "cart.mass", "network.0.weight")):
        trained, rest = partition(model, spec)
        assert list(parameters(trained)) == (
            list(parameters(model)) if spec is None else ["cart.mass", "network.0.weight"]
        )
        assert eqx.tree_equal(eqx.combine(trained, rest), model)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        ({"a": 0.5}, None, r"a=0\.5 is a Python number, which does not train: make it an array, as jnp\.array\(0\.5\)"),
        (Cart(), ds.frozen(Cart(), "*"), "nothing to train: .* `filter_spec` chooses none"),
    ],
    ids=["number", "nothing"],
)
def test_a_partition_without_anything_to_train_is_refused(model, spec, message):
    with pytest.raises(InputError, match=message):
        partition(model, spec)


def test_replace_sets_and_checks():
    new = ds.replace(plant(), {"cart.mass": 4.0, "spares.left.gains": [0.3, 0.3, 0.3]})
    assert new.cart.mass == 4.0
    assert new.cart.mass.dtype == jnp.float64
    assert np.array_equal(new.spares["left"].gains, [0.3, 0.3, 0.3])
    assert new.spares["left"].mass == 3.0
    with pytest.raises(InputError, match=r"cart\.mass=40 kg is not allowed; give from 0\.1 to 10"):
        ds.replace(plant(), {"cart.mass": 40.0})
    with pytest.raises(InputError, match=r"cart\.mass has shape \(2,\), expected \(\)"):
        ds.replace(plant(), {"cart.mass": [1.0, 2.0]})


def test_free_numbers_lead_back_to_the_same_parameters():
    cart = Cart(mass=0.2, friction=3.0, slope=-0.7, offset=5.0)
    free = ds.unconstrain(cart)
    assert free.mass == pytest.approx(np.log(0.1) - np.log(9.8), rel=1e-12)
    assert free.friction == pytest.approx(np.log(3.0), rel=1e-12)
    assert free.offset == 5.0
    for back, value in zip(jax.tree.leaves(ds.constrain(free)), jax.tree.leaves(cart), strict=True):
        # A logarithm and an exponential of numbers of order one: a few roundings.
        np.testing.assert_allclose(back, value, rtol=1e-14)


@pytest.mark.parametrize("z", [-50.0, -1.0, 1.0, 50.0])
def test_any_free_number_is_within_bounds(z):
    cart = ds.constrain(jax.tree.map(lambda x: jnp.full_like(x, z), Cart()))
    for entry in ds.parameters(cart).values():
        low, high = entry.bounds
        assert np.all((entry.value >= low) & (entry.value <= high))


def test_free_numbers_grow_with_the_parameter():
    slope = jax.grad(lambda z: sum(jnp.sum(x) for x in jax.tree.leaves(ds.constrain(z))))(ds.unconstrain(Cart()))
    assert all(bool(jnp.all(x > 0)) for x in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("cart", "message"),
    [
        ({"mass": 10.0}, r"mass starts at or beyond its bound \(10\.0 kg\): start it between 0\.1 and 10"),
        ({"friction": 0.0}, r"friction starts at or beyond its bound \(0\.0 N s/m\): start it between 0 and inf"),
        ({"slope": 0.0}, r"slope starts at or beyond its bound"),
        ({"gains": [0.5, 1.0, 0.5]}, r"gains starts at or beyond its bound"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_a_start_on_the_bound_cannot_move(cart, message):
    with pytest.raises(InputError, match=message):
        ds.unconstrain(Cart(**cart))


def test_at_bound_names_what_is_stuck():
    assert ds.at_bound(Cart()) == []
    assert ds.at_bound(Cart(mass=9.995, gains=[0.5, 0.5, 0.9999])) == ["mass", "gains"]
    assert ds.at_bound(Cart(mass=9.9), width=0.02) == ["mass"]


def test_at_bound_of_a_parameter_with_one_bound():
    assert ds.at_bound(Cart(friction=0.0)) == ["friction"]
    assert ds.at_bound(Cart(slope=0.0)) == ["slope"]


def test_modules_are_built_in_jit_and_vmap():
    masses = jnp.array([1.0, 2.0, 3.0])

    @jax.jit
    def doubled(mass):
        cart = Cart(mass=mass)
        return 2 * ds.constrain(ds.unconstrain(cart)).mass

    # The same two transcendental functions as in the round trip: a few roundings.
    np.testing.assert_allclose(jax.vmap(doubled)(masses), 2 * masses, rtol=1e-14)
    carts = jax.vmap(lambda m: Cart(mass=m))(masses)
    assert carts.gains.shape == (3, 3)


def test_other_values_do_not_compile_again():
    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def weight(cart):
        return 9.81 * cart.mass

    for cart in (Cart(), Cart(mass=1), Cart(mass=np.float64(2.0)), ds.replace(Cart(), {"mass": 5})):
        weight(cart)
