"""diffsim: `solve` for a single phase, `integrate_hybrid` for several; derivatives by JAX."""

import importlib.metadata
from typing import Any, cast

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import diffsim as ds

from ..problem import Event, Problem, Run
from .answers import Answer, Refused

jax.config.update("jax_enable_x64", True)


def version() -> str:
    """Returns the versions of diffsim and JAX."""
    return f"{importlib.metadata.version('diffsim')} (jax {jax.__version__})"


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    return Solver(problem)


class Solver:
    """Value and derivatives, each compiled on its first call."""

    def __init__(self, problem: Problem):
        self.dtype = jnp.float32 if problem.single else jnp.float64
        solver = diffrax.Kvaerno5() if problem.stiff else diffrax.Tsit5()
        options: dict[str, Any] = {"solver": solver}
        if not problem.single:
            options |= {"rtol": 1e-10, "atol": 1e-12}
        run = _hybrid(problem, options) if problem.max_events else _smooth(problem, options)

        def quantity(p):
            found, status = run(p)
            value = problem.measure(jnp, found)
            return value, (value, jnp.asarray(found.event_times), status)

        slope = jax.grad(quantity, has_aux=True)
        self._gradient = jax.jit(slope)
        self._hvp = jax.jit(lambda p, v: jax.jvp(lambda p: slope(p), (p,), (v,)))
        self._batch = jax.jit(jax.vmap(slope))

    def value(self, p) -> Answer:
        """Returns the quantity and the event times, from the program of the gradient: compiling one costs most."""
        return _answer(self._gradient(self._array(p))[1])

    def gradient(self, p) -> list[float]:
        """Returns the gradient, in reverse mode."""
        gradient, aux = self._gradient(self._array(p))
        _answer(aux)
        return np.asarray(gradient).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the Hessian-vector product, by forward over reverse mode."""
        (_, aux), (product, _) = self._hvp(self._array(p), self._array(v))
        _answer(aux)
        return np.asarray(product).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, by `jax.vmap`."""
        gradients, aux = self._batch(self._array(rows))
        found = []
        for i in range(len(rows)):
            try:
                found.append((_answer([part[i] for part in aux]), np.asarray(gradients[i]).tolist()))
            except Refused as refused:
                found.append(refused)
        return found

    def _array(self, p):
        return jnp.asarray(p, self.dtype)


def _answer(aux) -> Answer:
    """The answer of a run; a status other than FINISHED is a refusal."""
    value, times, status = aux
    if int(status) != ds.Status.FINISHED:
        raise Refused(f"status {ds.Status(int(status)).name}")
    return Answer(float(value), [float(t) for t in np.ravel(times) if np.isfinite(t)])


def _vector(formula):
    """A formula that returns a list as a function that returns an array."""
    return lambda t, y, p: jnp.stack(jnp.broadcast_arrays(*map(jnp.asarray, formula(jnp, t, y, p))))


def _start(problem, p):
    return jnp.stack([jnp.asarray(part, p.dtype) for part in problem.start(jnp, p)])


def _smooth(problem, options):
    field = _vector(problem.phases[0].field)
    ts = np.unique([*problem.span, *problem.saves])
    places = np.searchsorted(ts, problem.saves)

    def run(p):
        times = jnp.asarray(ts, p.dtype)
        solution = ds.solve(field, _start(problem, p), times, p, max_steps=65536, **options)
        return Run(solution.ys[-1], solution.ys[places], []), solution.status

    return run


def _hybrid(problem, options):
    phases = [ds.Phase(_vector(phase.field), tuple(map(_event, phase.events))) for phase in problem.phases]

    def run(p):
        t0, t1 = cast(Any, [jnp.asarray(t, p.dtype) for t in problem.span])
        ts = jnp.asarray(problem.saves, p.dtype) if problem.saves else None
        result = ds.integrate_hybrid(
            phases,
            _start(problem, p),
            p,
            t0=t0,
            t1=t1,
            ts=ts,
            max_events=problem.max_events,
            max_steps=4096,
            **options,
        )
        return Run(result.y, result.ys, result.event_t), result.status

    return run


def _event(event: Event):
    reset = _vector(event.reset) if event.reset else None
    if event.times is not None:
        times = event.times
        at = lambda p: jnp.stack([jnp.asarray(t, p.dtype) for t in times(jnp, p)])
        return ds.TimeEvent(at, reset, event.to)
    function = event.function
    assert function is not None
    return ds.Event(lambda t, y, p: function(jnp, t, y, p), event.direction, reset, event.to)
