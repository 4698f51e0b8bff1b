"""Damaged checkpoints and disks that fail: every flipped bit and every cut is detected, nothing is lost."""

import copy
import io
import json
import os
import random
import resource
import struct
import tracemalloc
import zipfile
import zlib

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.io.checkpoint import read

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
    return tmp_path / "state.npz"


def extents(data: bytes) -> dict[str, range]:
    """The position of each entry in an archive's bytes."""
    ranges = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            lengths = struct.unpack_from("<HH", data, entry.header_offset + 26)
            start = entry.header_offset + 30 + sum(lengths)
            ranges[entry.filename.removesuffix(".npy")] = range(start, start + entry.file_size)
    return ranges


def complaint(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ds.InputError) as error:
        read(path)
    return str(error.value)


def test_every_flipped_bit_is_detected_and_its_leaf_named(path):
    ds.save(path, STATE)
    good = path.read_bytes()
    leaves = extents(good)
    draw, named = random.Random(0), 0
    # Half of them anywhere, half in the leaves.
    bits = [draw.randrange(8 * len(good)) for _ in range(500)]
    bits += [8 * draw.choice(leaves[draw.choice(list(leaves))]) + draw.randrange(8) for _ in range(500)]
    for bit in bits:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        message = complaint(path, bytes(data))
        assert "damaged" in message
        hit = [name for name, extent in leaves.items() if bit // 8 in extent]
        assert not hit or f"is damaged: {hit[0]} is not what was saved" in message
        named += bool(hit)
    assert named > 500


def test_every_truncation_is_detected(path):
    ds.save(path, {"a": jnp.arange(5.0), "b": {"key": jr.key(0)}, "c": 3})
    good = path.read_bytes()
    for length in range(len(good)):
        assert "cut short" in complaint(path, good[:length]), length
    assert "damaged" in complaint(path, good + b"\0")


def test_files_of_another_kind_are_refused(path):
    assert "no checkpoint of diffsim" in complaint(path, b"something else")
    np.savez(path, a=1.0)
    assert "no checkpoint of diffsim" in complaint(path, path.read_bytes())
    newer = header(versions={**VERSIONS, "format": 2})
    assert "has format 2, this diffsim reads 1" in complaint(path, sealed({"header.json": newer, "a.npy": array()}))
    with pytest.raises(ds.InputError, match=r"nothing\.npz cannot be read: No such file"):
        read(path.with_name("nothing.npz"))


def sealed(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED, change=lambda archive: None) -> bytes:
    """An archive with these entries and right checksums, as an attacker could write it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = bytes(4)
        for name, entry in entries.items():
            with archive.open(name, "w") as file:
                file.write(entry)
        change(archive)
    return checksummed(buffer.getvalue())


def checksummed(data: bytes) -> bytes:
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


VERSIONS = {"format": 1, "diffsim": "0", "jax": "0", "optax": "0"}


def header(**changes) -> bytes:
    return json.dumps({"versions": VERSIONS, "dtypes": {}, "keys": {}, "about": {}} | changes).encode()


def array(**changes) -> bytes:
    """An array of three numbers as NumPy saves it, with a change in its header."""
    described = {"descr": "<f8", "fortran_order": False, "shape": (3,)} | changes
    text = f"{described}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(24)


HEADERS = {
    "no JSON": b"{",
    "deep JSON": b"[" * 100_000,
    "deep notes": b'{"about": ' + b'{"a":' * 100_000,
    "not UTF-8": header().replace(b"jax", b"j\xffx"),
    "no object": b"[]",
    "no versions": b'{"dtypes": {}, "keys": {}, "about": {}}',
    "versions of another kind": header(versions={"format": 1, "jax": 3}),
    "a version that is a list": header(versions={**VERSIONS, "jax": [1]}),
    "an endless number": header().replace(b'"format": 1', b'"format": ' + b"9" * 5000),
    "dtypes of another kind": header(dtypes=["a"]),
    "no dtype": header(dtypes={"a": "float65"}),
    "a dtype that is NumPy's own": header(dtypes={"a": "float64"}),
    "a dtype of another size": header(dtypes={"a": "bfloat16"}),
    "text without an end": header(dtypes={"a": "U1000000000"}),
    "a structure": header(dtypes={"a": "f8,f8,f8"}),
    "the dtype of a leaf that is absent": header(dtypes={"b": "bfloat16"}),
    "the key of a leaf that is absent": header(keys={"b": "rbg"}),
    "a key of another kind": header(keys={"a": 3}),
}
ARRAYS = {
    "a negative length": array(shape=(-3,)),
    "a fraction": array(shape=(3.0,)),
    "too many axes": array(shape=(1,) * 100),
    "beyond memory": array(shape=(2**50,)),
    "beyond any number": array(shape=(2**40, 2**40, 2**40)),
    "empty but beyond any number": array(shape=(0, 2**40, 2**40, 2**40)),
    "a deep shape": array(shape="(" * 5000).replace(b"'", b""),
    "many signs": array(shape="-" * 5000).replace(b"'", b""),
    "more bytes": array(shape=(2,)),
    "objects": array(descr="|O"),
    "text": array(descr="<U2"),
    "numbers of no size": array(descr="|V0"),
    "a structure": array(descr=[("x", "<f8")]),
    "no dtype": array(descr="float65"),
    "no header": b"\x93NUMPY\1\0",
    "a pickle": b"cos\nsystem\n(S'true'\ntR.",
}


def twice(archive: zipfile.ZipFile) -> None:
    archive.filelist.append(archive.filelist[-1])


def overlapping(archive: zipfile.ZipFile) -> None:
    """Ten leaves that are all the same bytes of the file."""
    for number in range(10):
        entry = copy.copy(archive.filelist[-1])
        entry.filename = f"b{number}.npy"
        archive.filelist.append(entry)


def enormous(archive: zipfile.ZipFile) -> None:
    archive.filelist[-1].file_size = 2**50


def encrypted(archive: zipfile.ZipFile) -> None:
    archive.filelist[-1].flag_bits |= 1


ENTRIES = {"header.json": header(), "a.npy": array()}
FORGERIES = {
    **{f"header: {name}": sealed(ENTRIES | {"header.json": text}) for name, text in HEADERS.items()},
    **{f"array: {name}": sealed(ENTRIES | {"a.npy": entry}) for name, entry in ARRAYS.items()},
    "no header": sealed({"a.npy": array()}),
    "an entry of another kind": sealed(ENTRIES | {"b.txt": b"text"}),
    "compressed": sealed(ENTRIES, zipfile.ZIP_DEFLATED),
    "a name twice": sealed(ENTRIES, change=twice),
    "overlapping": sealed(ENTRIES, change=overlapping),
    "enormous": sealed(ENTRIES, change=enormous),
    "encrypted": sealed(ENTRIES, change=encrypted),
    "nothing": sealed({}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_archive_is_refused(path, name):
    path.write_bytes(sealed(ENTRIES))
    assert np.array_equal(ds.load(path, {"a": np.ones(3)})["a"], np.zeros(3))
    message = complaint(path, FORGERIES[name])
    assert "damaged" in message or "compressed" in message
    assert len(message) < 500


@pytest.mark.parametrize("seal", [sealed, lambda *arguments: sealed(*arguments)[:-1] + b"?"])
def test_an_archive_that_would_unpack_to_much_more_takes_no_memory(path, seal):
    path.write_bytes(seal(ENTRIES | {"a.npy": array(shape=(10**8 // 8,)) + bytes(10**8 - 24)}, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    with pytest.raises(ds.InputError):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("part", ["header", "archive"])
def test_files_changed_at_random_are_read_or_refused(path, part, seed):
    """Changed, missing or repeated bytes in a file whose checksums are corrected: no other type of error."""
    ds.save(path, STATE)
    good = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    draw, refused = random.Random(seed), 0
    for _ in range(500):
        data = bytearray(entries["header.json"] if part == "header" else good)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(data))
            words = [b"-", b"9", b'"', b"[", b"]", b"null", b"1e9", bytes([draw.randrange(256)])]
            word = draw.choice(words)
            data[at : at + (draw.randint(0, 2) if part == "header" else len(word))] = word
        changed = sealed(entries | {"header.json": bytes(data)}) if part == "header" else checksummed(bytes(data))
        path.write_bytes(changed)
        try:
            ds.load(path, STATE)
        except ds.InputError:
            refused += 1
    assert refused > 300, f"seed {seed}"


def test_what_is_no_regular_file_is_neither_replaced_nor_read(path):
    os.mkfifo(path)
    with pytest.raises(ds.InputError, match=r"state\.npz is no regular file, which a state needs"):
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
        with pytest.raises(ds.RunError, match=r"state\.npz was not saved: .*What was there before is as it was"):
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
