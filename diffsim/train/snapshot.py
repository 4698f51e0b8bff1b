"""Fits that outlive their process: what is saved of one, when, and whether a file belongs to the fit at hand."""

import re
import sys
import time
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree

from .._errors import InputError
from .._types import Model
from ..io.checkpoint import Contents, fill, misfits, parse, read_bytes, save, versions
from ..io.checkpoint_leaves import named, to_file
from ..io.files import partial_of
from .compiled_steps import Guard, State
from .options import Checkpoint, NonFinite
from .sharding import Group, local


class Origin(NamedTuple):
    """What makes two fits the same: the number of steps in all and in a call, and checksums of what they start from.

    The loss is a function and is not compared; nor is the optimiser after an update of jax or optax.
    """

    steps: int
    steps_per_call: int
    model: int
    batches: int
    optimizer: int


class Best(NamedTuple):
    """The trained parameters with the least validation loss, that loss, and after which call it was."""

    trained: Model
    value: float
    call: int


class Snapshot(NamedTuple):
    """All that a fit is between two compiled calls, and all that its checkpoint holds.

    `losses` and `dropped` have an entry for each step, `validation` for each call; `done` of the steps are made.
    """

    origin: Origin | None
    state: State
    guard: Guard | None
    best: Best | None
    done: int
    seconds: float
    losses: Float[np.ndarray, " steps"]
    dropped: Bool[np.ndarray, " steps"]
    validation: Float[np.ndarray, " calls"]


_WORDS = {"model": "starting model", "batches": "set of batches", "optimizer": "optimizer"}


def origin(steps: int, size: int, model: Model, batches: PyTree, optimizer, state: State) -> Origin:
    """What the fit of these arguments is recognised by."""
    program = jax.make_jaxpr(optimizer.update)(state.trained, state.memory, state.trained)
    # Addresses of functions differ from one process to the next.
    text = re.sub(r"0x[0-9a-f]+", "", str(program)).encode()
    return Origin(steps, size, _sum(model), _sum(batches), crc32(text, _sum(program.consts)))


def _sum(tree: PyTree) -> int:
    """A checksum of all arrays, keys and numbers of a tree, their paths and kinds."""
    total = 0
    for path, leaf in named(tree).items():
        value, key = to_file(path, leaf)
        total = crc32(f"{path} {value.shape} {value.dtype} {key}".encode(), total)
        total = crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data, total)
    return total


class Keeper:
    """Saves the snapshots of a fit when they are due, and finds the one to go on from; does nothing without options.

    Of the processes of a group the leader reads and writes.
    """

    def __init__(self, options: str | Path | Checkpoint | None, group: Group):
        self.options = Checkpoint(options) if isinstance(options, str | Path) else options
        self.group = group
        self.saved_at, self.calls = time.monotonic(), 0
        self.saved_step: int | None = None

    def resume(self, start: Snapshot, policy: NonFinite) -> Snapshot:
        """The snapshot in the file, or `start` if there is no file yet.

        Raises InputError, and leaves the file alone, if it is damaged or of a fit with other arguments.
        """
        if self.options is None:
            return start
        path = Path(self.options.path)
        if self.group.leads:
            partial_of(path).unlink(missing_ok=True)  # what a killed fit left half written
        data = self.group.read(lambda: read_bytes(path) if path.exists() else None)
        if data is None:
            return start
        contents = parse(path, data)
        # What "shrink" remembers starts anew if the fit went by another policy before.
        kept = any(path.startswith("guard.") for path in contents.leaves)
        like = start._replace(guard=start.guard if kept else None)
        _check(self.options.path, contents, like)
        losses = contents.leaves["losses"].value
        snapshot = fill(self.options.path, contents, like._replace(losses=losses))
        if losses.shape != start.losses.shape or not 0 <= snapshot.done <= len(losses):
            raise InputError(f"{path} holds no fit of {len(start.losses)} steps: give another path, or start anew")
        self.saved_step = snapshot.done
        if snapshot.guard is None:
            good = np.flatnonzero(~snapshot.dropped[: snapshot.done])
            row = snapshot.done - 1 - good[-1] if len(good) else snapshot.done
            snapshot = snapshot._replace(guard=policy.guard(snapshot.state, int(row)))
        return snapshot

    def offer(self, snapshot: Snapshot) -> None:
        """Saves a snapshot if it is time to."""
        if self.options is None:
            return
        self.calls += 1
        late = time.monotonic() - self.saved_at >= self.options.seconds
        if late or (self.options.calls is not None and self.calls >= self.options.calls):
            self.save(snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Saves a snapshot, unless it is in the file."""
        if self.options is None or snapshot.done == self.saved_step or not self.group.leads:
            return
        guard = snapshot.guard if snapshot.guard is not None and snapshot.guard.scale is not None else None
        save(self.options.path, local(snapshot._replace(guard=guard)))
        self.saved_at, self.calls, self.saved_step = time.monotonic(), 0, snapshot.done

    def interrupted(self, snapshot: Snapshot) -> None:
        """Saves the snapshot of a fit that the keyboard interrupts, and says on stderr how to go on."""
        if self.options is not None and self.group.leads:
            self.save(snapshot)
            where = f"step {snapshot.done} of {len(snapshot.losses)} is saved in {self.options.path}"
            print(f"interrupted: {where}; the same call goes on from there", file=sys.stderr, flush=True)


def _check(path, contents: Contents, like: Snapshot) -> None:
    """Raises InputError that says in what the fit in a file differs from the one at hand."""
    of_fit = {"losses", *(f"origin.{name}" for name in Origin._fields)}
    sizes = {name: leaf.value.size for name, leaf in contents.leaves.items() if name.startswith("origin.")}
    if not of_fit <= contents.leaves.keys() or set(sizes.values()) != {1} or like.origin is None:
        raise InputError(f"{path} holds no fit: give another path, or load it with `load`")
    found = {name: contents.leaves[f"origin.{name}"].value.item() for name in Origin._fields}
    here = like.origin._asdict()
    now = versions()
    changed = [
        f"{name} {contents.versions[name]}, here {now[name]}" for name in now if contents.versions[name] != now[name]
    ]
    if changed:
        here["optimizer"] = found["optimizer"]
        print(f"{path} was saved by {'; '.join(changed)}: the rest may differ in rounding", file=sys.stderr, flush=True)
    counts = [f"{name} is {found[name]}, here {here[name]}" for name in Origin._fields[:2] if found[name] != here[name]]
    others = [f"another {word}" for name, word in _WORDS.items() if found[name] != here[name]]
    leaves = [] if counts else misfits(contents, like._replace(losses=contents.leaves["losses"].value))
    wrong = counts + others + leaves[:4]
    if wrong:
        cure = "Give the arguments it was begun with, or another path for a new fit"
        raise InputError(f"{path} is of another fit: {'; '.join(wrong)}. {cure}")
