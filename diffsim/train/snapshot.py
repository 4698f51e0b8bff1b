"""Fits that survive their process: what is saved of a fit, when, and whether a file belongs to this fit."""

import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree, UInt8

from .._errors import InputError
from .._types import Model
from ..io.checkpoint import CheckpointContents, fill, misfits, parse, read_bytes, versions, write
from ..io.files import partial_of
from ..io.leaves import named, to_file
from .batches import Batches
from .compiled_steps import NonFiniteState, TrainState
from .options import Checkpoint, NonFinite
from .sharding import DeviceGroup, to_default_device


class Fingerprint(NamedTuple):
    """What makes two fits the same: the number of steps, the steps of a call, and checksums of what they start from.

    Of a stream the first batch counts, and its number of steps is 0, since a longer fit begins with the same ones. The
    loss is a function and is not compared; nor is the optimizer after an update of jax or optax.
    """

    steps: int
    steps_per_call: int
    model: int
    batches: int
    optimizer: int


class BestModel(NamedTuple):
    """The trained parameters with the least validation loss, that loss, and the number of the call that led there."""

    trained: Model
    loss: float
    call: int


class Snapshot(NamedTuple):
    """The complete state of a fit between two compiled calls, which is what its checkpoint holds.

    Attributes:
        fingerprint: What identifies the fit; None for a fit without a checkpoint.
        state: The state of the training.
        non_finite: What the policy for steps that are not finite remembers.
        best: The best model by the validation loss, if there is one.
        done: The number of steps made.
        seconds: The wall time of these steps.
        losses: The loss of each step, NaN for those not made.
        dropped: Which steps were dropped.
        validation: The validation loss after each call, NaN for those not made.
        position: Where the stream of batches stands, if it can tell.
    """

    fingerprint: Fingerprint | None
    state: TrainState
    non_finite: NonFiniteState | None
    best: BestModel | None
    done: int
    seconds: float
    losses: Float[np.ndarray, " steps"]
    dropped: Bool[np.ndarray, " steps"]
    validation: Float[np.ndarray, " calls"]
    position: UInt8[np.ndarray, " bytes"] | None = None

    def with_room(self, steps: int, calls: int) -> "Snapshot":
        """The same with places for so many steps and calls."""
        if steps <= len(self.losses):
            return self
        # Twice as many, or a long fit would copy all of them at each call.
        more = lambda x, size, blank: np.concatenate([x, np.full(max(size, 2 * len(x)) - len(x), blank, x.dtype)])
        losses, dropped = more(self.losses, steps, np.nan), more(self.dropped, steps, False)
        return self._replace(losses=losses, dropped=dropped, validation=more(self.validation, calls, np.nan))


_WORDS = {"model": "starting model", "batches": "set of batches", "optimizer": "optimizer"}


def fingerprint(batches: Batches, model: Model, optimizer, optimizer_state, state: TrainState) -> Fingerprint:
    """The fingerprint of a fit with these arguments."""
    program = jax.make_jaxpr(optimizer.update)(state.trained, state.opt_state, state.trained)
    # Addresses of functions differ from one process to the next.
    text = re.sub(r"0x[0-9a-f]+", "", str(program)).encode()
    optimizer_checksum = crc32(text, _checksum(program.consts))
    start = _checksum(model if optimizer_state is None else (model, optimizer_state))
    steps = 0 if batches.is_stream else batches.steps or 0
    return Fingerprint(steps, batches.steps_per_call, start, _checksum(batches.identity), optimizer_checksum)


def _checksum(tree: PyTree) -> int:
    """A checksum of all arrays, keys and numbers of a tree, with their paths and types."""
    total = 0
    for path, leaf in named(tree).items():
        value, key = to_file(path, leaf)
        total = crc32(f"{path} {value.shape} {value.dtype} {key}".encode(), total)
        total = crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data, total)
    return total


class Checkpointer:
    """Saves the snapshots of a fit when they are due, and reads the one to resume from; inactive without options.

    Of several processes the leader of the group reads and writes.
    """

    def __init__(self, options: str | Path | Checkpoint | None, group: DeviceGroup, settings: dict[str, Any]):
        self.settings = settings  # noted in the file
        self.options = Checkpoint(options) if isinstance(options, str | Path) else options
        self.group = group
        self.saved_at, self.calls = time.monotonic(), 0
        self.saved_step: int | None = None

    def resume(self, start: Snapshot, policy: NonFinite) -> Snapshot:
        """The snapshot in the file, or `start` if there is no file yet.

        Raises InputError, and leaves the file as it is, if it is damaged or of a fit with other arguments.
        """
        if self.options is None:
            return start
        path = Path(self.options.path)
        if self.group.is_leader:
            partial_of(path).unlink(missing_ok=True)  # half written by a fit that was killed
        data = self.group.read(lambda: read_bytes(path) if path.exists() else None)
        if data is None:
            return start
        contents = parse(path, data)
        # A fit that had another policy before has saved nothing that "shrink" could remember.
        has_memory = any(leaf.startswith("non_finite.") for leaf in contents.leaves)
        like = start._replace(non_finite=start.non_finite if has_memory else None)
        like = _check_fingerprint(self.options.path, contents, like)
        snapshot = fill(self.options.path, contents, like)
        if len(snapshot.losses) != len(snapshot.dropped) or not 0 <= snapshot.done <= len(snapshot.losses):
            raise InputError(f"{path} holds no fit of {len(start.losses)} steps: give another path for a new fit")
        self.saved_step = snapshot.done
        if snapshot.non_finite is None:
            good = np.flatnonzero(~snapshot.dropped[: snapshot.done])
            bad_in_a_row = snapshot.done - 1 - good[-1] if len(good) else snapshot.done
            snapshot = snapshot._replace(non_finite=policy.state(snapshot.state, int(bad_in_a_row)))
        return snapshot

    def save_if_due(self, snapshot: Snapshot) -> None:
        """Saves a snapshot if one of the intervals of the options has passed."""
        if self.options is None:
            return
        self.calls += 1
        late = time.monotonic() - self.saved_at >= self.options.seconds
        if late or (self.options.calls is not None and self.calls >= self.options.calls):
            self.save(snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Saves a snapshot, unless it is in the file."""
        if self.options is None or snapshot.done == self.saved_step or not self.group.is_leader:
            return
        memory = snapshot.non_finite
        if memory is not None and memory.scale is None:
            memory = None  # the number of bad steps in a row follows from `dropped`
        leaves = named(to_default_device(snapshot._replace(non_finite=memory)))
        saved = {name: to_file(name, leaf) for name, leaf in leaves.items()}
        write(self.options.path, saved, {"fit": self.settings})
        self.saved_at, self.calls, self.saved_step = time.monotonic(), 0, snapshot.done

    def save_interrupted(self, snapshot: Snapshot) -> None:
        """Saves the snapshot of a fit after Ctrl-C, and explains on stderr how to resume."""
        if self.options is not None and self.group.is_leader:
            self.save(snapshot)
            is_bounded = snapshot.fingerprint is not None and snapshot.fingerprint.steps
            of = f" of {len(snapshot.losses)}" if is_bounded else ""
            where = f"step {snapshot.done}{of} is saved in {self.options.path}"
            print(f"interrupted: {where}; the same call resumes from there", file=sys.stderr, flush=True)


def _check_fingerprint(path, contents: CheckpointContents, like: Snapshot) -> Snapshot:
    """Returns `like` with arrays of the lengths in the file.

    Raises InputError with the differences of the fit in a file from this one.
    """
    required = {"losses", "dropped", "validation", *(f"fingerprint.{name}" for name in Fingerprint._fields)}
    sizes = {name: leaf.value.size for name, leaf in contents.leaves.items() if name.startswith("fingerprint.")}
    if not required <= contents.leaves.keys() or set(sizes.values()) != {1} or like.fingerprint is None:
        raise InputError(f"{path} holds no fit: give another path, or load it with `load`")
    saved = {name: contents.leaves[f"fingerprint.{name}"].value.item() for name in Fingerprint._fields}
    here = like.fingerprint._asdict()
    now = versions()
    changed = [
        f"{name} {contents.versions[name]}, here {now[name]}" for name in now if contents.versions[name] != now[name]
    ]
    if changed:
        here["optimizer"] = saved["optimizer"]
        print(f"{path} was saved by {'; '.join(changed)}: the rest may differ in rounding", file=sys.stderr, flush=True)
    counts = [
        f"{name} is {saved[name]}, here {here[name]}"
        for name in ("steps", "steps_per_call")
        if saved[name] != here[name]
    ]
    others = [f"another {word}" for name, word in _WORDS.items() if saved[name] != here[name]]
    value = lambda name: contents.leaves[name].value
    like = like._replace(losses=value("losses"))
    if like.fingerprint is not None and like.fingerprint.steps == 0:
        position = value("position") if "position" in contents.leaves else None
        like = like._replace(dropped=value("dropped"), validation=value("validation"), position=position)
    leaves = [] if counts else misfits(contents, like)
    wrong = counts + others + leaves[:4]
    if wrong:
        cure = "Give the arguments it was started with, or another path for a new fit"
        raise InputError(f"{path} is of another fit: {'; '.join(wrong)}. {cure}")
    return like
