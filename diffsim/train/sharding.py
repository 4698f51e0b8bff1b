"""Devices and processes that share the work: one program on each, its own loops, and sums where they meet."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._errors import InputError, RunError

AXIS = "devices"
WHOLE, ITEMS, ROWS = PartitionSpec(), PartitionSpec(None, AXIS), PartitionSpec(AXIS)


def on_each(function: Callable, devices: Sequence, in_specs: tuple) -> Callable:
    """`function` run on each device with its part of the arguments, what it gives being the same on all of them."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    # A solve's loops end with their trajectories, so each device runs its own.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=WHOLE, check_vma=False)


@dataclass(frozen=True)
class Group:
    """The devices that share the batches of a fit; None for a fit on the default device."""

    devices: tuple | None

    @classmethod
    def of(cls, devices: Sequence | None, batches: PyTree) -> "Group":
        """The group of some devices; raises InputError if they cannot share these batches equally."""
        if devices is None:
            return cls(None)
        if not any(device.process_index == jax.process_index() for device in devices):
            raise InputError(f"devices has none of process {jax.process_index()}: give jax.devices(), which has all")
        for leaf in jax.tree.leaves(batches):
            if len(leaf.shape) < 2:
                raise InputError(f"batches of shape {leaf.shape} have no axis of items, after that of steps, to share")
            if leaf.shape[1] % len(devices):
                cure = f"give a multiple of {len(devices)}, or a number of devices that divides {leaf.shape[1]}"
                raise InputError(f"{len(devices)} devices cannot share batches of {leaf.shape[1]} items: {cure}")
        return cls(tuple(devices))

    @cached_property
    def mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), (AXIS,))

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.devices is None or jax.process_index() == min(device.process_index for device in self.devices)

    @property
    def several(self) -> bool:
        """Whether the devices belong to several processes."""
        return self.devices is not None and len({device.process_index for device in self.devices}) > 1

    def put(self, tree: PyTree, spec: PartitionSpec = WHOLE) -> PyTree:
        """The arrays of a tree on the devices, whole or in parts; each process has all of them and puts its own."""
        if self.devices is None:
            return tree
        where = NamedSharding(self.mesh, spec)

        def one(leaf):
            if not isinstance(leaf, jax.Array | np.ndarray) or getattr(leaf, "sharding", None) == where:
                return leaf
            if not self.several:
                return jax.device_put(leaf, where)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jr.wrap_key_data(one(jr.key_data(leaf)), impl=jr.key_impl(leaf))
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

        return jax.tree.map(one, tree)

    def agree(self, value: np.ndarray | bool) -> np.ndarray:
        """The leader's value, in all processes."""
        return multihost_utils.broadcast_one_to_all(np.asarray(value)) if self.several else np.asarray(value)

    def read(self, read: Callable[[], bytes | None]) -> bytes | None:
        """What the leader reads, in all processes, whether or not they see its files."""
        if not self.several:
            return read()
        data = read() if self.leads else None
        size = int(self.agree(np.array(-1 if data is None else len(data))))
        own = np.zeros(max(size, 0), np.uint8) if data is None else np.frombuffer(data, np.uint8)
        return None if size < 0 else self.agree(own).tobytes()


def local(tree: PyTree) -> PyTree:
    """A tree whose arrays that lie whole on many devices are taken to the default one."""

    def one(leaf):
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jr.wrap_key_data(one(jr.key_data(leaf)), impl=jr.key_impl(leaf))
        return jnp.asarray(np.asarray(leaf.addressable_data(0)))

    return jax.tree.map(one, tree)


def join_processes(address: str, count: int, index: int, *, seconds: int = 60) -> None:
    """Makes this process number `index` of `count` that work together; number 0 listens at `address`, "host:port".

    It calls `jax.distributed.initialize` with bounded times: after `seconds` a process gives up waiting for others to
    come, or to be heard of. Call it before anything else is asked of JAX. On clusters that JAX knows, as SLURM and
    Cloud TPU, `jax.distributed.initialize()` finds all this out by itself.

    Raises InputError for an address or a number that makes no sense and for a port in use, RunError if nobody
    listens at the address.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"address {address!r}: give HOST:PORT, such as 127.0.0.1:29500")
    if not 0 <= index < count:
        raise InputError(f"index={index}, count={count}: the processes are numbered from 0 to count - 1")
    if index == 0:
        _check_free(int(port))
    else:
        _await(host, int(port), seconds)
    limits = ("initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds")
    jax.distributed.initialize(address, count, index, **dict.fromkeys(limits, seconds))


def _check_free(port: int) -> None:
    """Raises InputError if another program listens at a port; JAX's runtime would end the process."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used: {error.strerror}; give another to all processes") from error


def _await(host: str, port: int, seconds: float) -> None:
    """Waits until somebody listens; raises RunError if nobody does in so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(f"process 0 does not listen at {host}:{port} after {seconds:g} s: {error}") from error
            time.sleep(0.1)
