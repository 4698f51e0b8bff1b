"""Times at which an input or its slope jumps, and the record of the inputs that a function evaluates."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from .._errors import InputError
from .._jax.tracers import is_of_inner_trace, is_of_same_trace, is_tracer
from .._types import Scalar

FEW = 64  # times that are compared one by one; of more the neighbours are searched for
SEPARATION = 16  # units of time by which jumps of several inputs at one time are separated


class JumpTimes(NamedTuple):
    """The increasing `times` of jumps and, if there is a `period`, their repetitions at all multiples of it.

    A jump is known by its number: `times[number]`, or times[number mod count] + period floor(number / count).
    """

    times: Float[Array, " jumps"]
    period: Scalar | None = None

    def at(self, number: Int[Array, "*numbers"]) -> Float[Array, "*numbers"]:
        """Returns the time of a jump."""
        count = self.times.shape[0]
        if self.period is None:
            return self.times[jnp.clip(number, 0, count - 1)]
        return self.times[number % count] + self.period * (number // count).astype(self.times.dtype)

    @property
    def scale(self) -> Scalar | float:
        """The size of the terms that are added up to a time, and of which it has the rounding."""
        if self.period is None:
            return 0.0
        return lax.stop_gradient(jnp.max(jnp.abs(self.times)) + jnp.abs(self.period))

    def last_before(self, t: Scalar) -> Int[Array, ""]:
        """Returns the number of the last jump at or before `t`; -1 if there is none."""
        times, count = self.times, self.times.shape[0]
        if self.period is None:
            return _count_up_to(times, t) - 1
        cycle = jnp.floor((t - times[0]) / self.period)
        guess = cycle.astype(jnp.int32) * count + _count_up_to(times, t - self.period * cycle) - 1
        # Rounding of the quotient is set right by the times themselves.
        guess = jnp.where(t < self.at(guess), guess - 1, guess)
        return jnp.where(t >= self.at(guess + 1), guess + 1, guess)

    def near(self, t: Scalar) -> tuple[Int[Array, " near"], Float[Array, " near"]]:
        """Returns the numbers and times of the jumps about `t`, the nearest two on each side among them."""
        count = self.times.shape[0]
        if self.period is None and count <= FEW:
            return jnp.arange(count, dtype=jnp.int32), self.times
        numbers = self.last_before(t) + jnp.arange(-2, 4, dtype=jnp.int32)
        if self.period is None:
            numbers = jnp.clip(numbers, 0, count - 1)
        return numbers, self.at(numbers)


def unit(t, scale: Scalar | float = 0.0):
    """A distance in time that is at least one unit in the last place of `t`, and at most two, or those of a `scale`."""
    t = lax.stop_gradient(t)
    return jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.maximum(scale, jnp.finfo(t.dtype).tiny))


def scale_of(t0: Scalar, t1: Scalar) -> Scalar:
    """The time of which the units serve for times that are nearer to zero, in a solve from `t0` to `t1`.

    A time near zero may be a difference of such times, which another program that computes it rounds otherwise.
    """
    span = jnp.abs(lax.stop_gradient(t1 - t0))
    return jnp.where(jnp.isfinite(span), span, 0.0)


def _count_up_to(times: Float[Array, " jumps"], t: Scalar) -> Int[Array, ""]:
    """How many of the increasing `times` are not after `t`."""
    if times.shape[0] <= FEW:
        return jnp.sum(t >= times, dtype=jnp.int32)
    return jnp.searchsorted(times, t, side="right").astype(jnp.int32)


@runtime_checkable
class Input(Protocol):
    """What has jumps: a signal or a clock."""

    @property
    def leaves(self) -> tuple[Array, ...]:
        """The arrays that determine the times of the jumps."""
        ...

    @property
    def jumps(self) -> JumpTimes | None:
        """The times of the jumps, if there are any."""
        ...


class Sources:
    """The inputs with jumps that functions evaluate, each with a number that is the same in all of the functions.

    Two inputs are one source if their times are: the same array, or the same leaf of the functions' arguments. The
    `scale` is that of the solve.
    """

    def __init__(self, scale: Scalar | float = 0.0) -> None:
        self.scale = scale
        self._numbers: dict[Any, int] = {}
        self._alive: list[Any] = []  # keeps the objects whose identity is a key
        self._arguments: Any = None
        self._leaves: dict[int, int] = {}
        self._outer: Any = None  # a tracer of that function's arguments
        self.seen: dict[int, Input] = {}  # by the function that is traced at present

    @contextlib.contextmanager
    def tracing(self, arguments) -> Iterator[dict[int, Input]]:
        """Within this context the inputs that are evaluated are recorded; the traced `arguments` may contain them."""
        leaves = jax.tree.leaves(arguments)
        self._arguments, self._leaves, self.seen = arguments, {id(leaf): i for i, leaf in enumerate(leaves)}, {}
        self._outer = next((leaf for leaf in leaves if is_tracer(leaf)), None)
        token = _SOURCES.set(self)
        try:
            yield self.seen
        finally:
            _SOURCES.reset(token)
            self._alive += leaves

    def number(self, source: Input) -> int:
        """Returns the number of the source that is evaluated, and records it."""
        if any(is_of_inner_trace(leaf, self._outer) for leaf in source.leaves):
            source = self._original(source)
        key = tuple(self._key(leaf) for leaf in source.leaves)
        number = self._numbers.setdefault(key, len(self._numbers))
        self.seen[number] = source
        return number

    def _original(self, source: Input) -> Input:
        """The argument that a source is which is seen within a transformation of its own, such as `jax.jit`."""
        shapes = lambda x: (type(x), jax.tree.structure(x), [leaf.shape for leaf in jax.tree.leaves(x)])
        is_input = lambda x: type(x) is type(source)
        candidates = [x for x in jax.tree.leaves(self._arguments, is_leaf=is_input) if is_input(x)]
        originals = [x for x in candidates if shapes(x) == shapes(source)]
        if not originals:
            raise InputError(
                f"a {type(source).__name__.lower()} is evaluated within a function that is mapped or compiled by "
                "itself (vmap, scan, jit) without being an argument of the vector field: evaluate it outside of that "
                "function, or make one signal whose values are arrays"
            )
        if len(originals) > 1:
            raise InputError(
                f"{len(originals)} signals of the same shapes are arguments of a vector field that is compiled by "
                "itself (jit), where they cannot be told apart: take the jit away, since a solve compiles its field"
            )
        return originals[0]

    def is_other_time(self, t: Array) -> bool:
        """Whether `t` is a number that the function computes: neither its time, nor an argument, nor a constant."""
        if not is_tracer(t) or id(t) in self._leaves:
            return False
        return is_of_same_trace(t, self._outer)

    def _key(self, leaf: Array):
        if not is_tracer(leaf):
            values = np.asarray(leaf)
            return values.shape, values.dtype, values.tobytes()
        if id(leaf) in self._leaves:
            return "argument", self._leaves[id(leaf)]
        self._alive.append(leaf)
        return "array", id(leaf)


_SOURCES: contextvars.ContextVar[Sources | None] = contextvars.ContextVar("sources", default=None)


def seen_at(t: Float[Array, "..."], source: Input, *, is_held: bool) -> Float[Array, "..."]:
    """Returns the time at which an input is to be evaluated, and records its jumps.

    Inside a solve, inputs that are different sources jump a few units of rounding one after the other where they jump
    together, so that steps end between them and each jump has a derivative of its own.

    Raises:
        InputError: For an input that `is_held` between its jumps, at another time than that of the vector field: steps
            end at the jumps of the input itself.
    """
    sources = _SOURCES.get()
    if sources is None or source.jumps is None:
        return t
    if jnp.ndim(t) or sources.is_other_time(t):
        if is_held and sources.is_other_time(t):
            raise InputError(
                f"a {type(source).__name__.lower()} that jumps is evaluated at another number than the time t of the "
                "vector field: shift or stretch its times instead, as in ds.signal(times + lag, values), or its phase; "
                "for a table of the state use kind='linear'"
            )
        return t
    return t - delay(sources.number(source), t, sources.scale)


def delay(number: int, t, scale):
    """How much later the source with this number jumps, in a solve of this `scale`."""
    return number * SEPARATION * unit(t, jnp.asarray(scale, t.dtype)) if number else jnp.zeros_like(t)
