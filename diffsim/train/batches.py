"""The batches of a fit that are arrays, as the parts that its compiled calls take."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from functools import cached_property, partial
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax import lax
from jaxtyping import PyTree

from .sharding import ITEMS, DeviceGroup
from .validate import number_of_steps


class Chunk(NamedTuple):
    """The batches of one compiled call, on the devices.

    Attributes:
        first: The number of the step that takes the first of them.
        number: How many of them there are; the rows behind are not used.
        batches: Their stack.
        position: Where the stream stands behind them, if it can tell.
    """

    first: int
    number: int
    batches: PyTree
    position: np.ndarray | None = None


class Batches(ABC):
    """The batches of a fit.

    Attributes:
        steps: How many there are; None if nobody knows.
        expected: How many there will be, as far as that is known.
        steps_per_call: How many a compiled call takes.
        is_stream: Whether they come one after the other, so that a longer fit begins with the same ones.
    """

    steps: int | None
    expected: int | None
    steps_per_call: int
    is_stream: bool

    @property
    @abstractmethod
    def first(self) -> PyTree:
        """The first batch."""

    @property
    def identity(self) -> PyTree:
        """The arrays by which a fit with these batches is known."""
        return self.first

    @abstractmethod
    def at(self, step: int) -> PyTree:
        """The batch of a step, for a stream of one of the last calls."""

    @abstractmethod
    def example(self) -> PyTree:
        """Batches for a call that makes no step and is compiled."""

    @abstractmethod
    def chunks(self, done: int, position: np.ndarray | None = None) -> Generator[Chunk, None, None]:
        """Those behind the first `done` steps, at which a stream stood at `position`."""


class ArrayBatches(Batches):
    """A tree of arrays whose leading axis counts the steps."""

    is_stream = False

    def __init__(self, batches: PyTree, steps_per_call: int, group: DeviceGroup):
        self.batches, self.group = batches, group
        steps = number_of_steps(batches)
        self.steps: int | None = steps
        self.expected: int | None = steps
        self.steps_per_call = min(steps_per_call, steps)
        group.check([np.shape(leaf)[1:] for leaf in jax.tree.leaves(batches)])

    @property
    def first(self) -> PyTree:
        return self.at(0)

    @property
    def identity(self) -> PyTree:
        return self.batches

    def at(self, step: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[step], self.batches)

    def example(self) -> PyTree:
        return self._from(0)

    def chunks(self, done: int, position: np.ndarray | None = None) -> Generator[Chunk, None, None]:
        assert self.steps is not None
        for first in range(done, self.steps, self.steps_per_call):
            number = min(self.steps_per_call, self.steps - first)
            yield Chunk(first, number, self._from(first))

    @cached_property
    def _on_devices(self) -> PyTree:
        """The batches; those that are device arrays are on the devices."""
        assert self.steps is not None
        arrays, others = eqx.partition(self.batches, lambda leaf: isinstance(leaf, jax.Array))
        if self.group.devices is not None and self.steps % self.steps_per_call:
            # The last call is as long as the others; its batches beyond the last are not used.
            last, size = self.steps - 1, self.steps_per_call
            rows = np.minimum(np.arange(-(-self.steps // size) * size), last)
            arrays = jax.tree.map(lambda leaf: leaf[rows], arrays)
        return eqx.combine(self.group.put(arrays, ITEMS), others)

    def _from(self, first: int) -> PyTree:
        """The batches of a call from the first on; where there are fewer, the last one is repeated."""
        return self.group.put(_rows(self._on_devices, first, self.steps_per_call), ITEMS)


def _rows(batches: PyTree, first: int, size: int) -> PyTree:
    arrays, others = eqx.partition(batches, lambda leaf: isinstance(leaf, jax.Array))
    if len(jax.tree.leaves(batches)[0]) >= first + size:
        return eqx.combine(_slices(arrays, first, size), jax.tree.map(lambda leaf: leaf[first : first + size], others))
    return jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(first, first + size), len(leaf) - 1)], batches)


@partial(jax.jit, static_argnums=2)
def _slices(arrays, first, size: int):
    """Rows of device arrays, all in one dispatch."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size), arrays)
