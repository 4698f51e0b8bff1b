"""jaxonomy: a `LeafSystem` with modes and zero crossings, run by a `Simulator` in reverse mode.

After the documentation of version 3.4.1 at py.jaxonomy.com: the README, `SimulatorOptions`, and the notebooks on the
bouncing ball and the thermostat, from which tolerances, a largest minor step and a Zeno tolerance are. Times that a
parameter changes are zero crossings of the time, and a counter says which one is next; at fixed times, and where states
are saved, `Simulator.advance_to` ends, and begins again. Its reverse mode cannot be differentiated again, and its
`compute_confidence_intervals` takes differences then; Hessian-vector products are by central differences of gradients.
"""

import importlib.metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxonomy  # pyright: ignore[reportMissingImports]
import numpy as np
from jaxonomy.simulation.types import StepEndReason  # pyright: ignore[reportMissingImports]

from ..problem import Event, Problem, Run
from .answers import Answer, NotExpressible, Refused
from .segments import Reader, all_times_fixed, schedule

DIRECTIONS = {
    "falling": "positive_then_non_positive",
    "rising": "negative_then_non_negative",
    "both": "crosses_zero",
}
STEP = 1e-4
"""The step of the differences, relative to the smallest parameter, for gradients that are right to about 1e-9."""


def version() -> str:
    """Returns the versions of jaxonomy and JAX."""
    return f"{importlib.metadata.version('jaxonomy')} (jax {jax.__version__})"


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    if problem.single:
        raise NotExpressible("its single precision is for a whole process, by an environment variable")
    return Solver(problem)


class Events(NamedTuple):
    """What there was of events: their times, and how often each event of a known time happened."""

    times: Any
    counts: Any


class System(jaxonomy.LeafSystem):
    """The phases of a problem as modes of one block, which writes down its events."""

    def __init__(self, problem: Problem):
        super().__init__(name="problem")
        p = jnp.asarray(problem.parameters, float)
        self.declare_dynamic_parameter("p", p)
        self.fields = [phase.field for phase in problem.phases]
        self.declare_continuous_state(default_value=_vector(problem.start(jnp, p)), ode=self.slope)
        phases = () if all_times_fixed(problem) else problem.phases
        searched = [(mode, event) for mode, phase in enumerate(phases) for event in phase.events]
        times, counts = jnp.full(problem.max_events + 1, jnp.nan), jnp.zeros(len(searched) + 1)
        self.declare_discrete_state(default_value=Events(times, counts), as_array=False)
        self.declare_default_mode(0)
        for number, (mode, event) in enumerate(searched):
            self.declare_zero_crossing(
                guard=_guard(event, number),
                reset_map=_reset(event, number),
                start_mode=mode,
                end_mode=mode if event.to is None else event.to,
                direction=DIRECTIONS[event.direction if event.function else "rising"],
                terminal=event.to is None,
                # Bounces that accumulate, after "Handling Zeno states".
                zeno_tolerance=1e-6 if event.function and event.to == mode and event.direction != "both" else None,
            )

    def slope(self, time, state, **parameters):
        """The field of the present phase."""
        y, p = state.continuous_state, parameters["p"]
        branches = [lambda f=f: _vector(f(jnp, time, y, p)) for f in self.fields]
        return jax.lax.switch(state.mode, branches)


class Solver:
    """Value and derivatives, each compiled on its first call."""

    def __init__(self, problem: Problem):
        self.problem = problem
        span = problem.span[1] - problem.span[0]
        hybrid = problem.max_events and not all_times_fixed(problem)
        options = jaxonomy.SimulatorOptions(
            diff_mode="reverse",
            ode_solver_method="bdf" if problem.stiff else "dopri5",
            rtol=1e-10,
            atol=1e-12,
            max_major_steps=2 * problem.max_events + 20,
            max_minor_step_size=span / 1000 if hybrid else None,
            max_checkpoints=256,
        )
        self.system = System(problem)
        self.context = self.system.create_context(time=problem.span[0])
        self.simulator = jaxonomy.Simulator(self.system, options=options)
        self._plan()
        slope = jax.grad(self._quantity, has_aux=True)
        self._gradient = jax.jit(slope)
        self._batch = jax.jit(jax.vmap(slope))

    def _plan(self):
        """The order of the stops, and what is done at each of them."""
        self.reader = Reader()
        jumps = self._jumps(self._array(self.problem.parameters), self.reader)
        numbers = [*(float(time) for time, _ in jumps), *self.problem.saves, self.problem.span[1]]
        self.order = sorted(range(len(numbers)), key=numbers.__getitem__)
        events = list({id(event): event for _, event in jumps}.values())
        after = [0 if place >= len(jumps) else 1 + events.index(jumps[place][1]) for place in range(len(numbers))]
        self.action = [after[place] for place in self.order]
        self.actions = [lambda time, state, p: state, *map(_jump, events)]

    def _jumps(self, p, number):
        """Times and events of a problem all of whose times are known."""
        return schedule(self.problem, p, jnp, number) if all_times_fixed(self.problem) else []

    def value(self, p) -> Answer:
        """Returns the quantity and the event times, from the program of the gradient: compiling one costs most."""
        return self._answer(self._gradient(self._array(p))[1])

    def gradient(self, p) -> list[float]:
        """Returns the gradient, in reverse mode."""
        gradient, aux = self._gradient(self._array(p))
        self._answer(aux)
        return np.asarray(gradient).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the central difference, along v, of gradients."""
        step = STEP * min([1.0, *(abs(x) for x in p if x)])
        ends = [self.gradient(np.add(p, sign * step * np.asarray(v))) for sign in (1, -1)]
        return ((np.array(ends[0]) - np.array(ends[1])) / (2 * step)).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, by `jax.vmap`."""
        gradients, aux = self._batch(self._array(rows))
        found = []
        for i in range(len(rows)):
            try:
                found.append((self._answer([part[i] for part in aux]), np.asarray(gradients[i]).tolist()))
            except Refused as refused:
                found.append(refused)
        return found

    def _array(self, p):
        return jnp.asarray(p, float)

    def _answer(self, aux) -> Answer:
        value, times, reached = aux
        if not reached:
            raise Refused("the end time was not reached")
        if np.isnan(value):
            raise Refused("the event did not happen, or the state is not finite")
        return Answer(float(value), [float(t) for t in np.ravel(times) if np.isfinite(t)])

    def _quantity(self, p):
        """The quantity, and with it the event times and whether the end was reached."""
        run, reached = self._run(p)
        value = self.problem.measure(jnp, run)
        return value, (value, jnp.asarray(run.event_times), reached)

    def _run(self, p):
        """The run: one call of `advance_to` for each time at which a jump is known, or a state saved."""
        problem = self.problem
        times = [time for time, _ in self._jumps(p, self.reader.again())]
        ends = _vector([*times, *problem.saves, problem.span[1]])
        stops = ends[jnp.asarray(self.order)], jnp.asarray(self.action)
        context = self.context.with_continuous_state(_vector(problem.start(jnp, p)))
        context = context.with_parameter("p", p)
        first = (context.time, context.state, jnp.asarray(True))

        def advance(carry, stop):
            time, state, reached = carry
            at, action = stop
            begun = context.with_time(time).with_state(state)
            end = self.simulator.advance_to(at, begun)
            ended = end.step_end_reason == StepEndReason.TerminalEventTriggered
            saved = end.context.continuous_state
            state = jax.lax.switch(action, self.actions, at, end.context.state, p)
            return (end.context.time, state, reached & (ended | (end.context.time >= at - 1e-9))), saved

        (_, state, reached), states = jax.lax.scan(advance, first, stops)
        saved = [states[self.order.index(len(times) + i)] for i in range(len(problem.saves))]
        # With a Zeno tolerance, jaxonomy packs the state that was declared together with its own.
        events = getattr(state.discrete_state, "user", state.discrete_state)
        return Run(state.continuous_state, saved, jnp.stack(times) if times else events.times), reached


def _vector(parts):
    return jnp.stack([jnp.asarray(part, float) for part in parts])


def _guard(event: Event, number: int):
    """The guard of an event: its function, or the time since the next one of its known times."""

    def of_state(time, state, **parameters):
        assert event.function is not None
        return jnp.asarray(event.function(jnp, time, state.continuous_state, parameters["p"]))

    def of_time(time, state, **parameters):
        assert event.times is not None
        times = _vector(event.times(jnp, parameters["p"]))
        place = jnp.minimum(state.discrete_state.counts[number].astype(int), len(times) - 1)
        return time - times[place]

    return of_state if event.function else of_time


def _reset(event: Event, number: int):
    """The state after an event, with its time written down."""

    def reset(time, state, **parameters):
        y, (times, counts) = state.continuous_state, state.discrete_state
        times = times.at[jnp.argmax(jnp.isnan(times))].set(time)
        state = state.with_discrete_state(Events(times, counts.at[number].add(1.0)))
        if event.reset is None:
            return state
        return state.with_continuous_state(_vector(event.reset(jnp, time, y, parameters["p"])))

    return reset


def _jump(event: Event):
    """The state after an event at a known time, at which the simulation was stopped."""

    def after(time, state, p):
        y = state.continuous_state
        if event.reset is not None:
            state = state.with_continuous_state(_vector(event.reset(jnp, time, y, p)))
        return state.with_mode(jnp.asarray(event.to))

    return after
