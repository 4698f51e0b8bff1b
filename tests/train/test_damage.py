"""Damaged checkpoints and disks that fail: every flipped bit and every cut is found and named, nothing is lost."""

import json
import os
import random
import resource
import struct
import zlib

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.train.checkpoint import MAGIC, read

STATE = {
    "model": {"weight": np.random.default_rng(0).normal(size=(8, 8)), "bias": jnp.zeros(8, jnp.bfloat16)},
    "key": jr.key(0),
    "keys": jr.split(jr.key(3, impl="rbg"), 4),
    "flags": jnp.ones(16, bool),
    "empty": np.zeros((0, 3)),
    "step": 7,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.ckpt"


def extents(data: bytes) -> dict[str, range]:
    """Where each leaf lies in the bytes of a file, which must be whole, in order."""
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    start, found = len(MAGIC) + 8 + length, {}
    for entry in json.loads(data[start - length : start])["leaves"]:
        size = np.dtype(entry["dtype"]).itemsize * int(np.prod(entry["shape"]))
        found[entry["name"]] = range(start, start + size)
        start += size
    assert start == len(data)
    return found


def complaint(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ds.InputError) as error:
        read(path)
    return str(error.value)


def test_every_flipped_bit_is_found_and_its_leaf_named(path):
    ds.save(path, STATE)
    whole = path.read_bytes()
    where = extents(whole)
    body = min(extent.start for extent in where.values())
    draw, named = random.Random(0), 0
    # Half of them anywhere, half in the leaves.
    for first in [0] * 500 + [body] * 500:
        bit = draw.randrange(8 * first, 8 * len(whole))
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        message = complaint(path, bytes(data))
        assert "damaged" in message
        hit = [name for name, extent in where.items() if bit // 8 in extent]
        assert not hit or f"is damaged: {hit[0]} is not what was saved" in message
        named += bool(hit)
    assert named > 500


def test_every_truncation_is_found_and_its_leaf_named(path):
    ds.save(path, {"a": jnp.arange(5.0), "b": {"key": jr.key(0)}, "c": 3})
    whole = path.read_bytes()
    where = extents(whole)
    for length in range(len(whole)):
        message = complaint(path, whole[:length])
        assert "cut short" in message or (length == 0 and "no checkpoint" in message), length
        hit = [name for name, extent in where.items() if length in extent]
        assert not hit or f"is cut short: {hit[0]} is not all there" in message
    assert "1 bytes follow the last leaf" in complaint(path, whole + b"\0")


def test_files_of_another_kind_are_refused(path):
    ds.save(path, {"a": 1.0})
    whole = path.read_bytes()
    assert "no checkpoint of diffsim" in complaint(path, b"PK\3\4 something else")
    changed = whole.replace(b'"format": 1', b'"format": 2')
    start = len(MAGIC)
    (length,) = struct.unpack_from("<I", changed, start)
    crc = zlib.crc32(changed[start : start + 4] + changed[start + 8 : start + 8 + length])
    newer = changed[: start + 4] + struct.pack("<I", crc) + changed[start + 8 :]
    assert "has format 2, this diffsim reads 1" in complaint(path, newer)
    with pytest.raises(ds.InputError, match=r"nothing\.ckpt cannot be read: No such file"):
        read(path.with_name("nothing.ckpt"))


def test_a_full_disk_leaves_the_old_file(path):
    small, large = {"a": jnp.arange(3.0)}, {"a": jnp.zeros(100_000)}
    ds.save(path, small)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ds.WorkFailed, match=r"state\.ckpt was not saved: .*What was there before is as it was"):
            ds.save(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert np.array_equal(ds.load(path, {"a": jnp.zeros(3)})["a"], small["a"])
    assert os.listdir(path.parent) == [path.name]
    ds.save(path, large)
    assert np.array_equal(ds.load(path, large)["a"], large["a"])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_the_old_file(path, monkeypatch, call):
    ds.save(path, {"a": 1.0})

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync" if call == "fsync" else "pathlib.Path.replace", fail)
        with pytest.raises(ds.WorkFailed, match="No space left on device"):
            ds.save(path, {"a": 2.0})
    assert ds.load(path, {"a": 0.0}) == {"a": 1.0}
    assert os.listdir(path.parent) == [path.name]
