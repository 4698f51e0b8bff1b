"""The host side of a fit: the compiled calls to make, the result of each, and when to stop."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array

from .._errors import InputError
from .._types import Model
from ..parameters import constrain
from .batches import Batches, Chunk
from .compiled_steps import NonFiniteState, TrainState, run_steps, split_program, validation_loss
from .options import EarlyStopping, FitProgress, NonFinite
from .sharding import DeviceGroup, to_default_device
from .snapshot import BestModel, Snapshot
from .stream import StreamFailedError


class CallResult(NamedTuple):
    """The result of a compiled call, whose arrays may still be computed. `dropped` is None under the policy "stop"."""

    done: int
    state: TrainState
    non_finite: NonFiniteState | None
    losses: Array
    dropped: Array | None
    validation: Array | None
    position: np.ndarray | None = None


@dataclass(frozen=True)
class FitLoop:
    """A fit as a sequence of compiled calls.

    Attributes:
        loss, optimizer: As in `fit`.
        fixed: The part of the model that does not train.
        batches: Those of the steps.
        policy: What to do with steps that are not finite.
        early_stopping: When to stop early.
        group: The devices that share the batches.
    """

    loss: Callable
    optimizer: optax.GradientTransformation
    fixed: Model
    batches: Batches
    policy: NonFinite
    early_stopping: EarlyStopping
    group: DeviceGroup

    def __post_init__(self):
        if self.early_stopping.patience is not None and self.early_stopping.validation is None:
            cure = "give early_stopping=EarlyStopping(validation=..., patience=...)"
            raise InputError(f"patience needs a validation loss: {cure}")

    @cached_property
    def program(self):
        """The program to compile, and the arrays to call it with."""
        rule = self.policy.rule()
        program, arrays = split_program(self.loss, self.optimizer, self.fixed, rule, self.group.devices)
        return program, self.group.put(arrays)

    @cached_property
    def fixed_on_devices(self) -> Model:
        """The fixed parameters, on the devices."""
        return self.group.put(self.fixed)

    def number_of_calls(self, steps: int) -> int:
        """How many calls so many steps take."""
        return -(-steps // self.batches.steps_per_call)

    def initial_snapshot(self, state: TrainState) -> Snapshot:
        """The snapshot before the first step."""
        best = None if self.early_stopping.validation is None else BestModel(state.trained, float("inf"), 0)
        steps = self.batches.steps or 0  # room is made for more
        losses, validation = np.full(steps, np.nan), np.full(self.number_of_calls(steps), np.nan)
        dropped = np.zeros(steps, bool)
        return Snapshot(None, state, self.policy.state(state), best, 0, 0.0, losses, dropped, validation)

    def model(self, trained: Model) -> Model:
        """The model, its parameters within their bounds."""
        return eqx.combine(constrain(to_default_device(trained)), self.fixed)

    def compile(self, snapshot: Snapshot) -> tuple[Snapshot, float]:
        """The snapshot with losses of the loss's own dtype, and the seconds that compiling took."""
        if self.is_finished(snapshot):
            return snapshot, 0.0
        began = time.perf_counter()
        # A call of no steps compiles and changes nothing, so that the times of compiling and stepping are separate.
        state, non_finite = self.group.put((snapshot.state, snapshot.non_finite))
        result = jax.block_until_ready(self._start_call(state, non_finite, Chunk(0, 0, self.batches.example())))
        seconds = time.perf_counter() - began
        if result.validation is not None and np.shape(result.validation):
            raise InputError(f"the validation loss has shape {np.shape(result.validation)}; it must be one number")
        if not snapshot.done:
            snapshot = snapshot._replace(losses=snapshot.losses.astype(result.losses.dtype))
        return snapshot, seconds

    def run_calls(self, snapshot: Snapshot) -> Iterator[CallResult]:
        """The results of the calls from a snapshot on, each after the next call has been started.

        So the devices compute while the host reads the losses.

        Raises:
            StreamFailedError: Where the batches fail, after the result of the last call.
        """
        if self.is_finished(snapshot):
            return
        previous, problem = None, None
        state, non_finite = self.group.put((snapshot.state, snapshot.non_finite))
        chunks = self.batches.chunks(snapshot.done, snapshot.position)
        with contextlib.closing(chunks):
            while True:
                try:
                    chunk = next(chunks, None)
                except StreamFailedError as error:
                    chunk, problem = None, error
                result = None if chunk is None else self._start_call(state, non_finite, chunk)
                if previous is not None:
                    yield previous
                if result is None:
                    break
                state, non_finite, previous = result.state, result.non_finite, result
        if problem is not None:
            raise problem

    def _start_call(self, state: TrainState, non_finite: NonFiniteState | None, chunk: Chunk) -> CallResult:
        program, arrays = self.program
        count = np.int32(chunk.number)
        (state, non_finite), (losses, dropped) = run_steps(program, arrays, state, non_finite, chunk.batches, count)
        validation = self.early_stopping.validation
        value = None if validation is None else validation_loss(validation, state.trained, self.fixed_on_devices)
        done = chunk.first + chunk.number
        return CallResult(done, state, non_finite, losses, dropped, value, chunk.position)

    def snapshot_after(self, snapshot: Snapshot, result: CallResult) -> Snapshot:
        """The snapshot after a call; waits for its result."""
        first, best = snapshot.done, snapshot.best
        snapshot = snapshot.with_room(result.done, self.number_of_calls(result.done))
        snapshot.losses[first : result.done] = np.asarray(result.losses)[: result.done - first]
        if result.dropped is not None:
            snapshot.dropped[first : result.done] = np.asarray(result.dropped)[: result.done - first]
        if best is not None and result.validation is not None:
            number, value = self.number_of_calls(result.done), float(result.validation)
            snapshot.validation[number - 1] = value
            best = BestModel(result.state.trained, value, number) if value < best.loss else best
        after = {"state": result.state, "non_finite": result.non_finite, "done": result.done}
        return snapshot._replace(**after, best=best, position=result.position)

    def progress(self, first: int, snapshot: Snapshot) -> FitProgress:
        """The progress passed to the callback after the call with the steps from `first` on."""
        rows = slice(first, snapshot.done)
        value = None if snapshot.best is None else float(snapshot.validation[self.number_of_calls(snapshot.done) - 1])
        model = lambda: self.model(snapshot.state.trained)
        losses, dropped = snapshot.losses[rows].copy(), snapshot.dropped[rows].copy()
        return FitProgress(snapshot.done, losses, dropped, value, model, self.batches.expected)

    def is_finished(self, snapshot: Snapshot) -> bool:
        """Whether all steps are made or the patience is exhausted."""
        return snapshot.done == self.batches.steps or self.is_out_of_patience(snapshot)

    def is_out_of_patience(self, snapshot: Snapshot) -> bool:
        """Whether the validation loss has not decreased for `patience` calls."""
        if snapshot.best is None or self.early_stopping.patience is None:
            return False
        return self.number_of_calls(snapshot.done) - snapshot.best.call >= self.early_stopping.patience
