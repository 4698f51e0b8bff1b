"""Devices and processes that share a fit: one program on each, with its own loops and reductions over all."""

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
from .._trees import is_key

AXIS = "devices"
# Not divided; divided along the second axis, that of the items of a batch; divided along the first axis.
REPLICATED, ITEMS, ROWS = PartitionSpec(), PartitionSpec(None, AXIS), PartitionSpec(AXIS)


def on_each_device(function: Callable, devices: Sequence, in_specs: tuple) -> Callable:
    """`function` run on each device with its part of the arguments; its result must be the same on all of them."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    # Not a sharded jit: the loops of a solve end with their trajectories, so each device runs loops of its own.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=REPLICATED, check_vma=False)


@dataclass(frozen=True)
class DeviceGroup:
    """The devices that share the batches of a fit; None for a fit on the default device."""

    devices: tuple | None

    @classmethod
    def of(cls, devices: Sequence | None) -> "DeviceGroup":
        """The group of these devices; raises InputError if none of them is this process's."""
        if devices is None:
            return cls(None)
        if not any(device.process_index == jax.process_index() for device in devices):
            raise InputError(f"devices has none of process {jax.process_index()}: give jax.devices(), which has all")
        return cls(tuple(devices))

    def check(self, shapes: Sequence[tuple[int, ...]], *, local: bool = False) -> None:
        """Raises InputError if the devices, or if `local` those of this process, cannot share a batch equally.

        Args:
            shapes: Those of the leaves of one batch.
            local: Whether each process has a batch of its own, for its own devices.
        """
        if self.devices is None:
            return
        own = [device for device in self.devices if device.process_index == jax.process_index()]
        count = len(own if local else self.devices)
        for shape in shapes:
            if not shape:
                raise InputError(f"a batch of shape {shape} has no axis of items for the devices to share")
            if shape[0] % count:
                cure = f"give a multiple of {count}, or a number of devices that divides {shape[0]}"
                raise InputError(f"{count} devices cannot share batches of {shape[0]} items: {cure}")

    @cached_property
    def mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), (AXIS,))

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that reads and writes files and shows progress."""
        return self.devices is None or jax.process_index() == min(device.process_index for device in self.devices)

    @property
    def spans_processes(self) -> bool:
        """Whether the devices belong to several processes."""
        return self.devices is not None and len({device.process_index for device in self.devices}) > 1

    def put(self, tree: PyTree, spec: PartitionSpec = REPLICATED, *, local: bool = False) -> PyTree:
        """A tree with its arrays on the devices, replicated or divided.

        Each process has all of an array and puts its own part, or if `local` has nothing but that part.
        """
        if self.devices is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)

        def one(leaf):
            if not isinstance(leaf, jax.Array | np.ndarray) or getattr(leaf, "sharding", None) == sharding:
                return leaf
            if not self.spans_processes:
                return jax.device_put(leaf, sharding)
            if is_key(leaf):
                return jr.wrap_key_data(one(jr.key_data(leaf)), impl=jr.key_impl(leaf))
            array = np.asarray(leaf)
            if local:
                return jax.make_array_from_process_local_data(sharding, array)
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        return jax.tree.map(one, tree)

    def broadcast(self, value: np.ndarray | bool) -> np.ndarray:
        """The leader's value, in all processes."""
        return multihost_utils.broadcast_one_to_all(np.asarray(value)) if self.spans_processes else np.asarray(value)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The values of all processes, a row for each."""
        return np.asarray(multihost_utils.process_allgather(values))

    def gather_text(self, text: str) -> list[str]:
        """The texts of all processes."""
        data = np.frombuffer(text.encode(), np.uint8)
        sizes = self.gather(np.array(data.size))
        rows = self.gather(np.pad(data, (0, int(sizes.max()) - data.size)))
        return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]

    def read(self, read: Callable[[], bytes | None]) -> bytes | None:
        """The bytes that the leader reads, in all processes, whether or not they can see its files."""
        if not self.spans_processes:
            return read()
        data = read() if self.is_leader else None
        size = int(self.broadcast(np.array(-1 if data is None else len(data))))
        buffer = np.zeros(max(size, 0), np.uint8) if data is None else np.frombuffer(data, np.uint8)
        return None if size < 0 else self.broadcast(buffer).tobytes()


def to_default_device(tree: PyTree) -> PyTree:
    """A tree whose arrays that are replicated over many devices are copied to the default one."""

    def one(leaf):
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if is_key(leaf):
            return jr.wrap_key_data(one(jr.key_data(leaf)), impl=jr.key_impl(leaf))
        return jnp.asarray(np.asarray(leaf.addressable_data(0)))

    return jax.tree.map(one, tree)


def join_processes(address: str, count: int, index: int, *, seconds: int = 60) -> None:
    """Joins this process to others that work together on a fit.

    It calls `jax.distributed.initialize` with bounded times. Call it before any other function of JAX. On clusters
    that JAX knows, such as SLURM and Cloud TPU, `jax.distributed.initialize()` finds all arguments by itself.

    Args:
        address: Where process 0 listens, "host:port".
        count: The number of processes.
        index: The number of this process, from 0.
        seconds: The time in seconds after which a process stops waiting for the others, to start or to respond.

    Raises:
        InputError: For an address or an index out of range, and for a port in use.
        RunError: If nobody listens at the address.

    Examples:
        >>> ds.train.join_processes("10.0.0.1:9000", count=4, index=0)  # doctest: +SKIP
        >>> ds.train.join_processes("10.0.0.1:9000", count=4, index=4)
        Traceback (most recent call last):
            ...
        diffsim._errors.InputError: index=4, count=4: the processes are numbered from 0 to count - 1
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"address {address!r}: give HOST:PORT, such as 127.0.0.1:29500")
    if not 0 <= index < count:
        raise InputError(f"index={index}, count={count}: the processes are numbered from 0 to count - 1")
    if index == 0:
        _check_free(int(port))
    else:
        _wait_for_listener(host, int(port), seconds)
    timeouts = ("initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds")
    jax.distributed.initialize(address, count, index, **dict.fromkeys(timeouts, seconds))


def _check_free(port: int) -> None:
    """Raises InputError if another program listens at a port; JAX's runtime would end the process."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used: {error.strerror}; give another to all processes") from error


def _wait_for_listener(host: str, port: int, seconds: float) -> None:
    """Waits until somebody listens; raises RunError if nobody does within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(f"process 0 does not listen at {host}:{port} after {seconds:g} s: {error}") from error
            time.sleep(0.1)
