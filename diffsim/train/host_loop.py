"""One fit as its compiled calls: what to run, what comes of each call, and when there is no more to do."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, PyTree

from .._errors import InputError
from .._types import Model
from ..parameters import constrain
from .compiled_steps import Guard, State, many_steps, program, validate
from .options import EarlyStopping, FitProgress, NonFinite
from .sharding import ITEMS, Group, local
from .snapshot import Best, Snapshot


class Call(NamedTuple):
    """What a compiled call leaves; its arrays may still be under way. `dropped` is None where none can be."""

    done: int
    state: State
    guard: Guard | None
    losses: Array
    dropped: Array | None
    validation: Array | None


@dataclass(frozen=True)
class Task:
    """What a fit is to do, in parts: `steps` in all, `size` of them in a call, `fixed` is what does not train.

    `group` has the devices that share the batches.
    """

    loss: Callable
    optimizer: optax.GradientTransformation
    fixed: Model
    batches: PyTree
    steps: int
    size: int
    policy: NonFinite
    early_stopping: EarlyStopping
    group: Group

    def __post_init__(self):
        if self.early_stopping.patience is not None and self.early_stopping.validation is None:
            raise InputError(
                "patience needs a validation loss: give early_stopping=EarlyStopping(validation=..., patience=...)"
            )

    @cached_property
    def program(self):
        """What to compile, and the arrays to call it with."""
        found, arrays = program(self.loss, self.optimizer, self.fixed, self.policy.rule(), self.group.devices)
        return found, self.group.put(arrays)

    @cached_property
    def placed(self) -> tuple[Model, PyTree]:
        """The fixed parts and the batches where the steps need them, of the batches those that are device arrays."""
        arrays, others = eqx.partition(self.batches, lambda leaf: isinstance(leaf, jax.Array))
        if self.group.devices is not None and self.steps % self.size:
            # The last call is as long as the others; its batches beyond the last are not used.
            rows = np.minimum(np.arange(-(-self.steps // self.size) * self.size), self.steps - 1)
            arrays = jax.tree.map(lambda leaf: leaf[rows], arrays)
        return self.group.put(self.fixed), eqx.combine(self.group.put(arrays, ITEMS), others)

    def start(self, state: State) -> Snapshot:
        """The snapshot before the first step."""
        best = None if self.early_stopping.validation is None else Best(state.trained, float("inf"), 0)
        losses, calls = np.full(self.steps, np.nan), np.full(-(-self.steps // self.size), np.nan)
        dropped = np.zeros(self.steps, bool)
        return Snapshot(None, state, self.policy.guard(state), best, 0, 0.0, losses, dropped, calls)

    def model(self, trained: Model) -> Model:
        """The whole model, its parameters within their bounds."""
        return eqx.combine(constrain(local(trained)), self.fixed)

    def warm(self, snapshot: Snapshot) -> tuple[Snapshot, float]:
        """The snapshot with losses of the loss's own dtype, and the seconds that compiling took."""
        if self.over(snapshot):
            return snapshot, 0.0
        began = time.perf_counter()
        # An idle call compiles and changes nothing, so that the two times can be told apart.
        state, guard = self.group.put((snapshot.state, snapshot.guard))
        call = jax.block_until_ready(self._call(state, guard, 0, 0))
        seconds = time.perf_counter() - began
        if call.validation is not None and np.shape(call.validation):
            raise InputError(f"the validation loss has shape {np.shape(call.validation)}; it must be one number")
        return (
            snapshot if snapshot.done else snapshot._replace(losses=snapshot.losses.astype(call.losses.dtype))
        ), seconds

    def calls(self, snapshot: Snapshot) -> Iterator[Call]:
        """The calls from a snapshot on, each given once the next one has been started."""
        waiting, (state, guard) = None, self.group.put((snapshot.state, snapshot.guard))
        for first in range(snapshot.done, 0 if self.over(snapshot) else self.steps, self.size):
            call = self._call(state, guard, first, min(self.size, self.steps - first))
            state, guard = call.state, call.guard
            if waiting is not None:
                yield waiting
            waiting = call
        if waiting is not None:
            yield waiting

    def _call(self, state: State, guard: Guard | None, first: int, count: int) -> Call:
        fixed, batches = self.placed
        chunk = self.group.put(batches_from(batches, first, self.size), ITEMS)
        program, arrays = self.program
        after, outputs = many_steps(program, arrays, state, guard, chunk, np.int32(count))
        check = self.early_stopping.validation
        value = None if check is None else validate(check, after[0].trained, fixed)
        return Call(first + count, after[0], after[1], outputs[0], outputs[1], value)

    def after(self, snapshot: Snapshot, call: Call) -> Snapshot:
        """The snapshot after a call, which is waited for."""
        first, best = snapshot.done, snapshot.best
        snapshot.losses[first : call.done] = np.asarray(call.losses)[: call.done - first]
        if call.dropped is not None:
            snapshot.dropped[first : call.done] = np.asarray(call.dropped)[: call.done - first]
        if best is not None and call.validation is not None:
            number, value = -(-call.done // self.size), float(call.validation)
            snapshot.validation[number - 1] = value
            best = Best(call.state.trained, value, number) if value < best.value else best
        new = {"state": call.state, "guard": call.guard, "best": best, "done": call.done}
        return snapshot._replace(**new)

    def progress(self, first: int, snapshot: Snapshot) -> FitProgress:
        """What is shown of the call that made the steps from `first` on."""
        made = slice(first, snapshot.done)
        value = None if snapshot.best is None else float(snapshot.validation[-(-snapshot.done // self.size) - 1])
        model = lambda: self.model(snapshot.state.trained)
        return FitProgress(snapshot.done, snapshot.losses[made].copy(), snapshot.dropped[made].copy(), value, model)

    def over(self, snapshot: Snapshot) -> bool:
        """Whether all steps are made or patience is at its end."""
        return snapshot.done == self.steps or self.out_of_patience(snapshot)

    def out_of_patience(self, snapshot: Snapshot) -> bool:
        """Whether the validation loss has not become less for as many calls as patience lasts."""
        if snapshot.best is None or self.early_stopping.patience is None:
            return False
        return -(-snapshot.done // self.size) - snapshot.best.call >= self.early_stopping.patience


def batches_from(batches: PyTree, first: int, size: int) -> PyTree:
    """`size` batches from the first on; where there are fewer, the last one is repeated."""
    arrays, others = eqx.partition(batches, lambda leaf: isinstance(leaf, jax.Array))
    if len(jax.tree.leaves(batches)[0]) >= first + size:
        return eqx.combine(_slices(arrays, first, size), jax.tree.map(lambda leaf: leaf[first : first + size], others))
    return jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(first, first + size), len(leaf) - 1)], batches)


@partial(jax.jit, static_argnums=2)
def _slices(arrays, first, size: int):
    """Rows of device arrays, all in one dispatch."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size), arrays)
