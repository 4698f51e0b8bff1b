"""diffrax: `diffeqsolve` with `Event`, begun again after each event; jumps at fixed times by `ClipStepSizeController`.

Its documentation recommends `jump_ts` of that controller for known discontinuities, and does not say that they can be
differentiated. Where a parameter changes the times, each of them ends a solve, whose t0 and t1 can be differentiated.
Gradients are by the default adjoint. It has no forward mode and no second derivatives; Hessian-vector products are by
`ForwardMode`.
"""

import functools
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from ..problem import Phase, Problem, Run
from .answers import Answer, Refused
from .segments import Reader, all_times_fixed, schedule, simulate, turned

DIRECTIONS = {"rising": True, "falling": False, "both": None}
MAX_STEPS = 65536


def version() -> str:
    """Returns the versions of diffrax and JAX."""
    return f"{dfx.__version__} (jax {jax.__version__})"


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    return Solver(problem)


class Solver:
    """Value and derivatives; the loop over events is in Python, and each phase is compiled."""

    def __init__(self, problem: Problem):
        self.problem = problem
        jax.config.update("jax_enable_x64", not problem.single)
        self.dtype = jnp.float32 if problem.single else jnp.float64
        self._gradients: dict = {}

    def value(self, p) -> Answer:
        """Returns the quantity and the event times."""
        value, times = self._quantity(self._array(p), dfx.RecursiveCheckpointAdjoint(), Reader())
        return Answer(float(value), [float(t) for t in times])

    def gradient(self, p) -> list[float]:
        """Returns the gradient, by the default adjoint."""
        key = tuple(p)
        if key not in self._gradients:
            slope = self._derivative(jax.grad, p, dfx.RecursiveCheckpointAdjoint())
            self._gradients = {key: self._compiled(slope)}
        return np.asarray(self._gradients[key](self._array(p))).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the Hessian-vector product, by forward over forward mode."""
        jacobian = self._derivative(jax.jacfwd, p, dfx.ForwardMode())
        product = self._compiled(lambda p, v: jax.jvp(jacobian, (p,), (v,))[1])
        return np.asarray(product(self._array(p), self._array(v))).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row by `jax.vmap` of a single solve."""
        problem, adjoint = self.problem, dfx.RecursiveCheckpointAdjoint()

        def quantity(p):
            sol: Any = _solve(problem, problem.phases[0], *problem.span, self._start(problem.start(jnp, p)), p, adjoint)
            if problem.phases[0].events:
                right = sol.result == dfx.RESULTS.event_occurred
                value = problem.measure(jnp, Run(sol.ys[-1], [], sol.ts[-1:]))
            else:
                right = sol.result == dfx.RESULTS.successful
                value = problem.measure(jnp, Run(sol.ys[-1], [], []))
            return value, (value, right)

        gradients, (values, right) = jax.jit(jax.vmap(jax.grad(quantity, has_aux=True)))(self._array(rows))
        return [
            (Answer(float(value), []), np.asarray(gradient).tolist()) if ok else Refused("its result says so")
            for value, gradient, ok in zip(values, gradients, right, strict=True)
        ]

    def _array(self, p):
        return jnp.asarray(p, self.dtype)

    def _start(self, parts):
        return jnp.stack([jnp.asarray(part, self.dtype) for part in parts])

    def _compiled(self, function):
        """A function compiled as one program if it has few solves; compiling many takes longer than running them."""
        few = self.problem.max_events <= 6 or _only_jumps(self.problem)
        return jax.jit(function) if few else function

    def _derivative(self, transform, p, adjoint):
        """The derivative as a function: which events happen is found by a run without derivatives."""
        reader = Reader()
        self._quantity(self._array(p), dfx.RecursiveCheckpointAdjoint(), reader)
        return transform(lambda p: self._quantity(p, adjoint, reader.again())[0])

    def _quantity(self, p, adjoint, reader):
        """The quantity, and the times of the events."""
        if _only_jumps(self.problem):
            solve = _with_jumps if all_times_fixed(self.problem) else _between_jumps
            run = solve(self.problem, p, self._start, adjoint, reader)
        else:
            solve = functools.partial(_one_phase, self.problem, p, adjoint, reader)
            run = simulate(self.problem, p, jnp, self._start, solve, reader)
        return self.problem.measure(jnp, run), run.event_times


def _only_jumps(problem: Problem) -> bool:
    """Whether the events of a problem are jumps of the field at known times."""
    events = [event for phase in problem.phases for event in phase.events]
    return bool(events) and all(event.times is not None and event.reset is None for event in events)


@functools.cache
def _field(phase: Phase):
    """The vector field of a phase: one object, so that it is compiled once."""
    return dfx.ODETerm(lambda t, y, p: jnp.stack(jnp.broadcast_arrays(*phase.field(jnp, t, y, p))))


@functools.cache
def _event(phase: Phase, single: bool, turns: tuple[tuple[int, str], ...] = ()):
    """The events of a phase that are searched for, or None; some of them have another direction."""
    if not phase.searched:
        return None
    conditions = [lambda t, y, args, f=formula, **_: f(jnp, t, y, args) for _, formula in phase.searched]
    tolerance = 1e-5 if single else 1e-10
    directions = [DIRECTIONS[dict(turns).get(i, event.direction)] for i, (event, _) in enumerate(phase.searched)]
    return dfx.Event(conditions, optx.Newton(tolerance, tolerance), directions)


def _controller(problem: Problem):
    return dfx.PIDController(rtol=1e-5, atol=1e-6) if problem.single else dfx.PIDController(rtol=1e-10, atol=1e-12)


def _solver(problem: Problem):
    return dfx.Kvaerno5() if problem.stiff else dfx.Tsit5()


def _solve(problem: Problem, phase: Phase, t0, t1, y0, p, adjoint, saves: Any = (), turns: Any = ()):
    """One solve, which does not raise."""
    real = lambda t: jnp.asarray(t, y0.dtype)
    saveat = (
        dfx.SaveAt(subs=[dfx.SubSaveAt(t1=True), dfx.SubSaveAt(ts=real(saves))]) if len(saves) else dfx.SaveAt(t1=True)
    )
    return dfx.diffeqsolve(
        _field(phase),
        _solver(problem),
        real(t0),
        real(t1),
        None,
        y0,
        p,
        saveat=saveat,
        adjoint=adjoint,
        stepsize_controller=_controller(problem),
        event=_event(phase, problem.single, turns),
        max_steps=MAX_STEPS,
        throw=False,
    )


def _one_phase(problem: Problem, p, adjoint, read, phase: Phase, t, y, stop, saves, happened):
    """Time, state, event and saved states of one phase, for the loop of `segments`."""
    first, last = read(t), read(stop)
    inside = [s for s in saves if first <= s <= last]
    searched = [event for event, _ in phase.searched]
    turns = _turns(searched, happened, phase, t, y, p, read)
    sol: Any = _solve(problem, phase, t, stop, y, p, adjoint, inside, turns)
    occurred = read(sol.result == dfx.RESULTS.event_occurred)
    if not occurred and not read(sol.result == dfx.RESULTS.successful):
        raise Refused("its result is not successful")
    ts, ys = (sol.ts[0], sol.ys[0]) if inside else (sol.ts, sol.ys)
    masks = [read(hit) for hit in sol.event_mask] if occurred else []
    event = next((e for e, hit in zip(searched, masks, strict=False) if hit), None)
    end = read(ts[-1])
    states = {s: y for s, y in zip(inside, sol.ys[1], strict=True) if s <= end} if inside else {}
    return ts[-1], ys[-1], event, states


def _turns(searched, happened, phase, t, y, p, read):
    """The next direction of an event of both directions that has just happened."""
    if happened not in searched or happened.direction != "both":
        return ()
    value = turned(happened, jnp, t, y, p, lambda t, y: jnp.stack(phase.field(jnp, t, y, p)), read)
    return ((searched.index(happened), value),)


def _with_jumps(problem: Problem, p, start, adjoint, read) -> Run:
    """One solve with a field that jumps at known times, which the controller is given."""
    jumps = schedule(problem, p, jnp, read)
    times = [time for time, _ in jumps]
    order = jnp.asarray([0, *(event.to for _, event in jumps)])

    def field(t, y, args):
        p, edges = args
        return _slopes(problem, t, y, p)[order[jnp.sum(t >= edges)]]

    edges = jnp.stack([jnp.asarray(t, p.dtype) for t in times])
    ends = np.unique([*problem.saves, problem.span[1]])
    sol: Any = dfx.diffeqsolve(
        dfx.ODETerm(field),
        _solver(problem),
        *problem.span,
        None,
        start(problem.start(jnp, p)),
        (p, edges),
        saveat=dfx.SaveAt(ts=jnp.asarray(ends, p.dtype)),
        adjoint=adjoint,
        stepsize_controller=dfx.ClipStepSizeController(_controller(problem), jump_ts=edges),
        max_steps=MAX_STEPS,
        throw=False,
    )
    if not read(sol.result == dfx.RESULTS.successful):
        raise Refused("its result is not successful")
    places = np.searchsorted(ends, problem.saves)
    return Run(sol.ys[-1], [sol.ys[i] for i in places], times)


def _between_jumps(problem: Problem, p, start, adjoint, read) -> Run:
    """One solve from jump to jump, by `jax.lax.scan`; no problem with such times saves states."""
    assert not problem.saves
    jumps = schedule(problem, p, jnp, read)
    ends = jnp.stack([jnp.asarray(t, p.dtype) for t in (problem.span[0], *(t for t, _ in jumps), problem.span[1])])
    order = jnp.asarray([0, *(event.to for _, event in jumps)])
    term = dfx.ODETerm(lambda t, y, args: _slopes(problem, t, y, args[0])[args[1]])

    def segment(y, inputs):
        t0, t1, phase = inputs
        options = {"adjoint": adjoint, "stepsize_controller": _controller(problem), "max_steps": 4096, "throw": False}
        sol: Any = dfx.diffeqsolve(term, _solver(problem), t0, t1, None, y, (p, phase), **options)
        return sol.ys[-1], sol.result == dfx.RESULTS.successful

    y, right = jax.lax.scan(segment, start(problem.start(jnp, p)), (ends[:-1], ends[1:], order))
    if not read(jnp.all(right)):
        raise Refused("its result is not successful")
    return Run(y, [], [time for time, _ in jumps])


def _slopes(problem: Problem, t, y, p):
    """The fields of all phases."""
    return jnp.stack([jnp.stack(jnp.broadcast_arrays(*phase.field(jnp, t, y, p))) for phase in problem.phases])
