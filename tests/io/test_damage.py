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
from diffsim.io.checkpoint import MAGIC, read

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


def sealed(header: bytes, body: bytes = b"") -> bytes:
    """A file with this header, its checksum right, as somebody with ill intent would write it."""
    length = struct.pack("<I", len(header))
    return MAGIC + length + struct.pack("<I", zlib.crc32(length + header)) + header + body


def forged(**changes) -> bytes:
    """A header with one leaf of three numbers, in which something of the leaf is otherwise."""
    versions = {"format": 1, "diffsim": "0", "jax": "0", "optax": "0"}
    leaf = {"name": "a", "shape": [3], "dtype": "float64", "key": None, "crc32": zlib.crc32(bytes(24))}
    return json.dumps({"versions": versions, "leaves": [leaf | changes]}).encode()


FORGERIES = {
    "no JSON": b"{",
    "deep JSON": b"[" * 100_000,
    "no object": b"[]",
    "no versions": b'{"leaves": []}',
    "versions of another kind": b'{"versions": {"format": 1, "jax": 3}, "leaves": []}',
    "leaves of another kind": b'{"versions": {"format": 1}, "leaves": {"a": 1}}',
    "a leaf of another kind": forged().replace(b"[{", b"[7, {"),
    "a name twice": forged().replace(b"[{", b"[" + forged().partition(b"[")[2][:-2] + b", {"),
    "a name that is none": forged(name=None),
    "an endless number": forged().replace(b"[3]", b"[" + b"9" * 5000 + b"]"),
    "a negative length": forged(shape=[-3]),
    "a length that is true": forged(shape=[True, 3]),
    "a fraction": forged(shape=[3.0]),
    "too many axes": forged(shape=[1] * 100),
    "beyond memory": forged(shape=[2**50]),
    "beyond any number": forged(shape=[2**40, 2**40, 2**40]),
    "empty but beyond any number": forged(shape=[0, 2**40, 2**40, 2**40]),
    "objects": forged(dtype="object"),
    "text": forged(dtype="U3"),
    "text without an end": forged(dtype="U1000000000"),
    "a structure": forged(dtype="f8,f8,f8"),
    "no dtype": forged(dtype="float65"),
    "a dtype that is none": forged(dtype=["float64"]),
    "a key of another kind": forged(key=3),
    "a checksum of another kind": forged(crc32="0"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_header_is_refused(path, name):
    path.write_bytes(sealed(forged(), bytes(24)))
    assert np.array_equal(ds.load(path, {"a": np.ones(3)})["a"], np.zeros(3))
    message = complaint(path, sealed(FORGERIES[name], bytes(24)))
    assert "header is damaged" in message or "cut short" in message
    assert len(message) < 400


@pytest.mark.parametrize("seed", range(4))
def test_headers_changed_at_random_are_read_or_refused(path, seed):
    """Bytes that are other, gone or doubled, in a header that is sealed again: never another error."""
    ds.save(path, STATE)
    whole = path.read_bytes()
    start = len(MAGIC) + 8
    (length,) = struct.unpack_from("<I", whole, len(MAGIC))
    draw, refused = random.Random(seed), 0
    for _ in range(500):
        header = bytearray(whole[start : start + length])
        for _ in range(draw.randint(1, 3)):
            at, words = (
                draw.randrange(len(header)),
                [b"-", b"9", b'"', b"[", b"]", b"null", b"1e9", bytes([draw.randrange(256)])],
            )
            header[at : at + draw.randint(0, 2)] = draw.choice(words)
        path.write_bytes(sealed(bytes(header), whole[start + length :]))
        try:
            ds.load(path, STATE)
        except ds.InputError:
            refused += 1
    assert refused > 300, f"seed {seed}"


def test_what_is_no_regular_file_is_neither_replaced_nor_read(path):
    os.mkfifo(path)
    with pytest.raises(ds.InputError, match=r"state\.ckpt is no regular file, which a state needs"):
        ds.save(path, STATE)
    with pytest.raises(ds.InputError, match="is no regular file; give the path of a checkpoint"):
        ds.load(path, STATE)
    assert path.is_fifo()
    with pytest.raises(ds.InputError, match="is no regular file"):
        ds.save("/dev/null", STATE)
    with pytest.raises(ds.InputError, match="has a NUL"):
        ds.load("a\0b", STATE)


def test_a_full_disk_leaves_the_old_file(path):
    small, large = {"a": jnp.arange(3.0)}, {"a": jnp.zeros(100_000)}
    ds.save(path, small)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ds.RunError, match=r"state\.ckpt was not saved: .*What was there before is as it was"):
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
        with pytest.raises(ds.RunError, match="No space left on device"):
            ds.save(path, {"a": 2.0})
    assert ds.load(path, {"a": 0.0}) == {"a": 1.0}
    assert os.listdir(path.parent) == [path.name]
