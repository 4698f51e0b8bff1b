"""The batches of a fit that come one after the other: from a generator, or a loader of grain or PyTorch.

A thread reads ahead of the steps. In a fit of several processes each reads a stream of its own, with its part of each
batch, and after each call they agree on how many batches all of them have.
"""

import collections
import json
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .batches import Batches, Chunk
from .sharding import ITEMS, DeviceGroup

_AHEAD = 2  # calls whose batches are ready before they are needed
_SECONDS_TO_STOP = 1.0  # that a fit waits at its end for a stream that is busy


class ResumableStream(NamedTuple):
    """A stream of batches that can begin at any step, so that a fit can resume within it.

    Attributes:
        batches_from: `batches_from(step)` returns an iterator over the batches from that step on, counted from 0.

    Examples:
        >>> def noise(step):
        ...     while True:
        ...         yield jr.normal(jr.fold_in(jr.key(0), step), (8,))
        ...         step += 1
        >>> loss = lambda x, batch: jnp.mean((x - batch) ** 2)
        >>> stream, checkpoint = ds.train.ResumableStream(noise), "noise.ckpt"
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.1), stream, steps=20, checkpoint=checkpoint)
        >>> x, history = ds.fit(loss, jnp.array(1.0), optax.sgd(0.1), stream, steps=50, checkpoint=checkpoint)
        >>> history.loss.shape  # of which the last 30 were made by the second call
        (50,)
    """

    batches_from: Callable[[int], Iterator]


class StreamFailedError(Exception):
    """A stream raised an error, or had no more or other batches: `message`, with the error as its cause."""


def is_stream(batches: Any) -> bool:
    """Whether batches are a stream: one object that is iterated over and no array, or a `ResumableStream`."""
    if isinstance(batches, ResumableStream) or hasattr(batches, "__next__"):
        return True
    leaves = jax.tree.leaves(batches)
    is_one_object = len(leaves) == 1 and leaves[0] is batches and not eqx.is_array_like(batches)
    return is_one_object and (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__"))


class _Reader:
    """The batches of a stream, one pass after the other, and where it stands."""

    def __init__(self, stream, passes: int | None):
        self.stream, self.passes = stream, passes
        self.step = self.epoch = self.in_epoch = 0
        self.iterator = self._begin()
        self.repeats = self.iterator is not stream and not isinstance(stream, ResumableStream)

    def _begin(self) -> Iterator:
        if isinstance(self.stream, ResumableStream):
            return iter(self.stream.batches_from(self.step))
        return iter(self.stream)

    def __next__(self) -> PyTree:
        while True:
            try:
                batch = next(self.iterator)
            except StopIteration:
                is_last = self.passes is not None and self.epoch + 1 >= self.passes
                if is_last or not self.repeats or not self.in_epoch:
                    raise
                self.epoch, self.in_epoch = self.epoch + 1, 0
                self.iterator = self._begin()
                continue
            self.step, self.in_epoch = self.step + 1, self.in_epoch + 1
            return batch

    @property
    def tells_position(self) -> bool:
        """Whether it can be asked where it stands, and set there again."""
        if isinstance(self.stream, ResumableStream):
            return True
        return hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")

    def position(self) -> str:
        """Where it stands, as JSON."""
        place: dict[str, Any] = {"step": self.step, "epoch": self.epoch, "in_epoch": self.in_epoch}
        if not isinstance(self.stream, ResumableStream):
            state = self.iterator.get_state()  # pyright: ignore[reportAttributeAccessIssue]
            place |= {"bytes": state.decode("latin-1")} if isinstance(state, bytes) else {"state": state}
        return json.dumps(place)

    def go_to(self, position: str) -> None:
        """Sets it to where it stood."""
        place = json.loads(position)
        self.step, self.epoch, self.in_epoch = place["step"], place["epoch"], place["in_epoch"]
        if isinstance(self.stream, ResumableStream):
            self.iterator = self._begin()
        else:
            state = place["bytes"].encode("latin-1") if "bytes" in place else place["state"]
            self.iterator.set_state(state)  # pyright: ignore[reportAttributeAccessIssue]


class _Call(NamedTuple):
    """The batches of a compiled call, the position behind them, and whether the stream ends or fails there."""

    number: int
    stack: PyTree
    place: str | None
    problem: StreamFailedError | None
    is_last: bool


class StreamBatches(Batches):
    """The batches of a stream, stacked for the compiled calls and read ahead of them.

    `steps` is their number if the user gave one. Otherwise the fit ends with the stream, whose length is `expected` if
    it has one.
    """

    is_stream = True

    def __init__(
        self, stream, steps: int | None, epochs: int | None, steps_per_call: int, group: DeviceGroup, resumable: bool
    ):
        if steps is not None and epochs is not None:
            raise InputError(f"steps={steps} and epochs={epochs} were both given: give one of them")
        for name, value in (("steps", steps), ("epochs", epochs)):
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise InputError(f"{name}={value}: give a whole number, at least 1")
        self.steps, self.group, self._resumable = steps, group, resumable
        try:
            self._reader = _Reader(stream, passes=epochs or 1 if steps is None else None)
        except TypeError as error:
            raise InputError(f"batches: {_kind(stream)} cannot be iterated over: {error}") from error
        if epochs is not None and not self._reader.repeats:
            raise InputError(
                f"epochs={epochs}: {_kind(stream)} is passed through once; give steps=, or what it is made from"
            )
        if resumable and not self._reader.tells_position:
            raise InputError(
                f"{_kind(stream)} cannot tell where it stands, so that no fit can resume from its checkpoint: give "
                "diffsim.train.ResumableStream(batches_from), a loader of grain, or leave checkpoint= out"
            )
        length = _length(stream)
        self.expected = steps if steps is not None else None if length is None else length * (epochs or 1)
        # A fit that resumes may have more steps.
        self.steps_per_call = steps_per_call if resumable else min(steps_per_call, self.expected or steps_per_call)
        try:
            self._waiting = [next(self._reader)]  # read in order to know the shapes
        except StopIteration:
            raise InputError(f"batches: {_kind(stream)} has no batch: give one that is not empty") from None
        self._first = _as_arrays(self._waiting[0], 0)
        self._shapes = _shapes(self._first)
        items = [shape for shape, _ in self._shapes[1].values()]
        group.check(items, local=True)
        self._recent: collections.deque = collections.deque(maxlen=_AHEAD + 2)

    @property
    def first(self) -> PyTree:
        return self._first

    def example(self) -> PyTree:
        return self.group.put(self._stack([jax.tree.leaves(self._first)]), ITEMS, local=True)

    def at(self, step: int) -> PyTree:
        first, stack = next((first, stack) for first, stack in reversed(self._recent) if first <= step)
        return jax.tree.map(lambda leaf: leaf[step - first], stack)

    def chunks(self, done: int, position: np.ndarray | None = None) -> Generator[Chunk, None, None]:
        """Those behind the first `done` steps, at which the stream stood at `position`.

        Raises:
            StreamFailedError: Where the stream fails or ends before its time.
        """
        if position is not None:
            self._go_to(position)
        ready: queue.Queue = queue.Queue(_AHEAD)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read, args=(done, ready, stopped), daemon=True, name="batches")
        thread.start()
        try:
            while True:
                call, position = self._agreed(ready.get())
                if call.number:
                    self._recent.append((done, call.stack))
                    yield Chunk(done, call.number, self.group.put(call.stack, ITEMS, local=True), position)
                    done += call.number
                if call.problem is not None:
                    raise call.problem
                if call.is_last:
                    return
        finally:
            stopped.set()
            while not ready.empty():
                ready.get_nowait()
            thread.join(_SECONDS_TO_STOP)

    def _read(self, done: int, ready: queue.Queue, stopped: threading.Event) -> None:
        """Puts the calls behind the first `done` steps into a queue, until the last one or until it is `stopped`."""
        while not stopped.is_set():
            # A fit that resumes with more steps first completes the call that was its last.
            wanted = self.steps_per_call - done % self.steps_per_call
            wanted = wanted if self.steps is None else min(wanted, self.steps - done)
            rows, problem, ended = [], None, False
            try:
                while len(rows) < wanted and not stopped.is_set():
                    batch = self._waiting.pop() if self._waiting else next(self._reader)
                    rows.append(self._checked(batch, done + len(rows)))
            except StopIteration:
                ended, problem = True, self._early_end(done + len(rows))
            except StreamFailedError as error:
                problem = error
            except BaseException as error:
                step = done + len(rows)
                problem = StreamFailedError(f"the stream failed at batch {step}: {type(error).__name__}: {error}")
                problem.__cause__ = error
            done += len(rows)
            is_last = ended or problem is not None or done == self.steps
            place = self._reader.position() if self._resumable and rows else None
            call = _Call(len(rows), self._stack(rows) if rows else None, place, problem, is_last)
            while not stopped.is_set():
                try:
                    ready.put(call, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if is_last:
                return

    def _stack(self, rows: list[list]) -> PyTree:
        """The stack of batches for one call."""
        leaves = [_stacked(column, self.steps_per_call) for column in zip(*rows, strict=True)]
        return jax.tree.unflatten(self._shapes[0], leaves)

    def _early_end(self, step: int) -> StreamFailedError | None:
        """The failure of a stream that ends at a step; None if it may end there."""
        if self.steps is None:
            return None
        return StreamFailedError(
            f"the stream ended after {step} of {self.steps} steps: give steps={step}, or a stream that can be passed "
            "through again, such as a DataLoader of PyTorch, or dataset.repeat() of grain"
        )

    def _checked(self, batch: PyTree, step: int) -> list:
        """The arrays of a batch; raises StreamFailedError if they are not like those of the first one."""
        flat, tree = jax.tree.flatten(batch)
        if tree == self._shapes[0] and all(map(_is_like, flat, self._shapes[1].values())):
            return flat  # what follows takes several times as long
        try:
            arrays = _as_arrays(batch, step)
        except InputError as error:
            raise StreamFailedError(str(error)) from error
        tree, leaves = _shapes(arrays)
        if tree != self._shapes[0]:
            raise StreamFailedError(f"batch {step} has the structure {tree}, the first one {self._shapes[0]}")
        for path, (shape, dtype) in leaves.items():
            expected = self._shapes[1][path]
            if (shape, dtype) != expected:
                raise StreamFailedError(
                    f"batch {step}{path} has shape {shape} and dtype {dtype}, the first one {expected[0]} and "
                    f"{expected[1]}: compiled steps need one shape; leave the last batch out (drop_last=True of "
                    "PyTorch, drop_remainder=True of grain) or pad it"
                )
        return jax.tree.leaves(arrays)

    def _agreed(self, call: _Call) -> tuple[_Call, np.ndarray | None]:
        """The call with as many batches as all processes have, and the positions of all of them."""
        if not self.group.spans_processes:
            return call, None if call.place is None else _encoded([call.place])
        problem, counts = call.problem, self.group.gather(np.array([call.number, call.problem is not None]))
        fewest = int(counts[:, 0].min())
        if problem is None and (counts[:, 1].any() or fewest < counts[:, 0].max()):
            index = int(np.argmax(counts[:, 1] * 2 + (counts[:, 0] == fewest)))
            problem = StreamFailedError(
                f"the stream of process {index} ended or failed before those of the others: give all processes as "
                "many batches"
            )
        position = _encoded(self.group.gather_text(call.place or "")) if self._resumable else None
        return call._replace(number=fewest, problem=problem), position

    def _go_to(self, position: np.ndarray) -> None:
        places = json.loads(position.tobytes())
        count = jax.process_count() if self.group.spans_processes else 1
        if len(places) != count:
            raise InputError(f"the checkpoint is of {len(places)} processes with a stream each, here are {count}")
        self._waiting.clear()
        self._reader.go_to(places[jax.process_index() if count > 1 else 0])


def _encoded(places: list[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(places).encode(), np.uint8)


def _kind(stream) -> str:
    """What a stream is called in a message."""
    return f"a {type(stream).__name__}"


def _length(stream) -> int | None:
    """The number of batches of one pass; None for a stream that does not know."""
    if isinstance(stream, ResumableStream):
        return None
    try:
        return len(stream) or None
    except TypeError:  # a loader may have the method and no answer
        return None


def _as_arrays(batch: PyTree, step: int) -> PyTree:
    """A batch with its leaves as arrays; raises InputError for a leaf that is none."""

    def one(path, leaf):
        if isinstance(leaf, jax.Array | np.ndarray):
            array = leaf
        else:
            try:
                array = np.asarray(leaf)
            except Exception as error:  # of whatever library the leaf is from
                raise InputError(f"batch {step}{_at(path)}: a {type(leaf).__name__} is no array: {error}") from error
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc" and array.dtype.isbuiltin != 2:
            raise InputError(f"batch {step}{_at(path)} has dtype {array.dtype}: give numbers, not text or objects")
        return array

    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise InputError(f"batch {step} has no array: {batch!r:.80}")
    return jax.tree_util.tree_map_with_path(one, batch)


def _at(path) -> str:
    return jax.tree_util.keystr(path)


def _shapes(arrays: PyTree):
    """The structure of a batch, and shape and dtype of each leaf by path."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return jax.tree.structure(arrays), {_at(path): (tuple(leaf.shape), leaf.dtype) for path, leaf in leaves}


def _is_like(leaf: Any, kind: tuple) -> bool:
    return isinstance(leaf, np.ndarray | jax.Array) and leaf.shape == kind[0] and leaf.dtype == kind[1]


def _stacked(leaves: tuple, size: int):
    """The stack of the same leaf of batches, of which the last is repeated to make `size` of them."""
    if all(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves + leaves[-1:] * (size - len(leaves)))
    stack = np.empty((size, *leaves[0].shape), leaves[0].dtype)
    for row, leaf in enumerate(leaves):
        stack[row] = leaf
    stack[len(leaves) :] = leaves[-1]
    return stack
