"""What a problem of the suite is: phases, events and quantities, as data and plain formulas.

A formula takes an array namespace `xp` first, which has `sin`, `cos`, `exp`, `log`, `sqrt` and `tanh`: `jax.numpy`,
`torch`, `casadi`, `numpy` and `mpmath` all do. States and parameters are sequences of scalars, and a formula returns a
list of scalars, so that each of these libraries can evaluate it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Formula = Callable[..., Any]
Direction = Literal["rising", "falling", "both"]


@dataclass(frozen=True)
class Event:
    """An event: a zero crossing of a function, or times that are known.

    Args:
        function: `function(xp, t, y, p)`, whose zero crossing is the event; None if `times` is given.
        direction: The way in which the function crosses zero.
        reset: `reset(xp, t, y, p)` returns the state after the event; by default it is unchanged.
        to: The index of the next phase; None ends the trajectory.
        times: `times(xp, p)` returns the list of times, which increase, of an event that is not searched for.
    """

    function: Formula | None = None
    direction: Direction = "falling"
    reset: Formula | None = None
    to: int | None = None
    times: Formula | None = None


@dataclass(frozen=True)
class Phase:
    """One vector field, `field(xp, t, y, p)`, and the events that end it."""

    field: Formula
    events: tuple[Event, ...] = ()

    @property
    def searched(self) -> list[tuple[Event, Formula]]:
        """The events that are searched for, with their functions."""
        return [(event, event.function) for event in self.events if event.function is not None]


@dataclass(frozen=True)
class Run:
    """What a simulation, or a closed form, found: end, states at the save times, and times of the events."""

    y: Any = None
    saved: Any = None
    event_times: Any = ()


@dataclass(frozen=True)
class Problem:
    """A hybrid ODE system, a quantity that is measured, and how to judge what a library says about it.

    Args:
        name, family: Names in lower case.
        level: From 1, which every library should pass, to 5, which nobody may pass yet.
        about: One plain sentence.
        phases: The phases; the first one comes first.
        parameters: The values of the parameters at which derivatives are taken.
        start: `start(xp, p)` returns the initial state.
        span: First and last time.
        measure: `measure(xp, run)` returns the number that is measured, from a `Run`.
        exact: `exact(mp, p)` returns the `Run` in closed form, for mpmath; None if only a simulation in many digits
            is known.
        others: Other closed forms that are accepted, such as those of the other one-sided derivative.
        refusal: Whether it is right to refuse: to report a failure, or NaN.
        saves: Times at which states are saved.
        max_events: More events than there are, for libraries that have to know.
        stiff: Whether an implicit method is advised.
        single: Whether to compute in float32.
        batch: Rows of parameters, for a problem that is solved for all of them at once.
        failing: The rows of the batch that have no solution.
        tolerance: The relative error up to which a value is right; that of a gradient is 10 times larger, and that
            of a Hessian-vector product 100 times.
        scale: Errors are relative to the largest entry of the reference, or to this where that is smaller.
    """

    name: str
    family: str
    level: int
    about: str
    phases: tuple[Phase, ...]
    parameters: tuple[float, ...]
    start: Formula
    span: tuple[float, float]
    measure: Formula
    exact: Formula | None = None
    others: tuple[Formula, ...] = ()
    refusal: bool = False
    saves: tuple[float, ...] = ()
    max_events: int = 0
    stiff: bool = False
    single: bool = False
    batch: tuple[tuple[float, ...], ...] = ()
    failing: tuple[int, ...] = ()
    tolerance: float = 1e-6
    scale: float = 1e-3

    @property
    def direction(self) -> tuple[float, ...]:
        """The vector by which the Hessian is multiplied."""
        return tuple((1.0, -0.5, 0.75, 0.25, -1.0, 0.5)[: len(self.parameters)])


def final(component: int = 0) -> Formula:
    """Returns the measure of a component of the final state."""
    return lambda xp, run: run.y[component]


def event_time(number: int = 0) -> Formula:
    """Returns the measure of the time of an event, counted from zero."""
    return lambda xp, run: run.event_times[number]


def saved(component: int = 0) -> Formula:
    """Returns the measure of a component at all save times: their sum with the weights 1, 1/2, 1/3, ..."""

    def total(xp, run):
        return sum(state[component] / (i + 1) for i, state in enumerate(run.saved))

    return total
