"""Checkpoints: every kind of leaf is restored to the bit, and what does not fit is named."""

import os
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim.io.checkpoint import read


class Run(NamedTuple):
    model: eqx.Module
    memory: tuple
    key: jax.Array
    numbers: dict


def state(seed: int = 0) -> Run:
    model = ds.BoundedMLP(2, -1.0, 1.0, width=5, key=jr.key(seed))
    memory = optax.adam(1e-2).init(eqx.filter(model, eqx.is_inexact_array))
    numbers = {
        "odd values": np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324]),
        "half": jnp.linspace(0, 1, 7, dtype=jnp.bfloat16),
        "flags": jnp.array([[True], [False]]),
        "complex": jnp.array([1 + 2j], jnp.complex64),
        "empty": np.zeros((0, 3), np.int8),
        "strided": np.arange(12.0).reshape(3, 4).T[::2],
        "count": 7,
        "rate": 0.1,
        "done": True,
        "big": np.float32(3.0),
        "fast keys": jr.split(jr.key(3, impl="rbg"), 2),
    }
    return Run(model, memory, jr.key(seed), numbers)


def bits(leaf):
    """What a leaf is to the last bit, and of which kind."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", str(jr.key_impl(leaf)), np.asarray(jr.key_data(leaf)).tobytes()
    weak = getattr(leaf, "weak_type", None)
    kind = jax.Array if isinstance(leaf, jax.Array) else type(leaf)
    return kind, np.shape(leaf), np.asarray(leaf).dtype, weak, np.ascontiguousarray(leaf).tobytes()


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a is b if callable(b) else bits(a) == bits(b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.npz"


def test_every_leaf_comes_back_to_the_bit(path):
    saved = state(seed=1)
    ds.save(path, saved)
    assert_same(ds.load(path, state(seed=0))._replace(model=None), saved._replace(model=None))
    # Another seed: all differences come from the file.
    loaded = ds.load(path, state(seed=0)).model
    assert_same(eqx.filter(loaded, eqx.is_array), eqx.filter(saved.model, eqx.is_array))
    assert os.listdir(path.parent) == [path.name]


def test_arrays_stay_of_a_weak_type(path):
    saved = {"weak": jnp.asarray(2.0), "matrix": jnp.broadcast_to(jnp.asarray(2.0), (2, 2)), "strong": jnp.ones(())}
    ds.save(path, saved)
    assert_same(ds.load(path, jax.tree.map(lambda x: x * 0, saved)), saved)


def test_a_tree_may_be_described_instead_of_built(path):
    saved = {"a": jnp.arange(3.0), "key": jr.key(5)}
    ds.save(path, saved)
    assert_same(ds.load(path, jax.eval_shape(lambda: {"a": jnp.zeros(3), "key": jr.key(0)})), saved)
    ds.save(path, jnp.arange(4))
    assert_same(ds.load(path, jnp.zeros(4, int)), jnp.arange(4))
    ds.save(path, ())
    assert ds.load(path, ()) == ()


def test_a_file_can_be_read_without_a_tree(path):
    ds.save(path, {"a": jnp.arange(3.0), "key": jr.key(5)})
    contents = read(path)
    assert set(contents.versions) == {"format", "diffsim", "jax", "optax"}
    assert contents.versions["jax"] == jax.__version__
    assert np.array_equal(contents.leaves["a"].value, np.arange(3.0))
    assert contents.leaves["key"].key == "threefry2x32"


MISFITS = {
    "missing": ({"a": 1.0}, {"a": 1.0, "b": 2.0}, "b is missing"),
    "unknown": ({"a": 1.0, "b": {"c": 2}}, {"a": 1.0}, r"b\.c is unknown"),
    "shape": ({"a": np.ones(3)}, {"a": np.ones((3, 1))}, r"a has shape \(3,\), expected \(3, 1\)"),
    "dtype": ({"a": np.ones(3)}, {"a": np.ones(3, np.float32)}, "a has dtype float64, expected float32"),
    "number": ({"a": 1}, {"a": 1.0}, "a has dtype int64, expected float64"),
    "key": ({"a": jr.key(0, impl="rbg")}, {"a": jr.key(0)}, "a has key rbg, expected threefry2x32"),
    "no key": ({"a": jr.key_data(jr.key(0))}, {"a": jr.key(0)}, "a has key None, expected threefry2x32"),
    "all": ({"a": 1.0, "b": 1}, {"b": 1.0, "c": 1}, "c is missing; a is unknown; b has dtype int64"),
    "many": ({}, [0.0] * 20, "and 12 more"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named(path, case):
    saved, like, message = MISFITS[case]
    ds.save(path, saved)
    with pytest.raises(ds.InputError, match=rf"is of another state: .*{message}.*Build the tree that was saved"):
        ds.load(path, like)


def test_what_cannot_be_saved_is_named(path, tmp_path):
    with pytest.raises(ds.InputError, match=r"the folder .*absent does not exist; make it first"):
        ds.save(tmp_path / "absent" / "state.npz", {"a": 1})
    with pytest.raises(ds.InputError, match="is a folder; give the name of a file"):
        ds.save(tmp_path, {"a": 1})
    for array in (np.array(["a"]), np.array([None]), np.zeros(2, [("x", float)])):
        with pytest.raises(ds.InputError, match=r"words has dtype .*: only numbers of a fixed size can be saved"):
            ds.save(path, {"words": array})
    with pytest.raises(ds.InputError, match=r"two leaves are called a\.b: give names that differ"):
        ds.save(path, {"a.b": 1.0, "a": {"b": 2.0}})
    assert not path.exists()


def test_a_link_is_followed(path, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(path)
    ds.save(link, {"a": 1.0})
    assert link.is_symlink()
    assert ds.load(path, {"a": 0.0}) == {"a": 1.0}
