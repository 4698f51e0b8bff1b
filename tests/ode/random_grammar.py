"""Random hybrid systems whose fields, events and resets are expressions from a grammar, each solved twice.

    python tests/ode/random_grammar.py --count 250 --seeds 0:4

prints for each way to solve and seed how many systems were solved, how many said that they failed, and how many were
silently wrong. An expression is a list of operations on earlier ones, on time, state and parameters. Both solvers
interpret it, diffsim in JAX and the other in NumPy, so that thousands of systems need one compiled program.

The truth is SciPy's DOP853 at a tolerance of 1e-12 for the state and its derivatives, with the exact change of the
derivatives at each event; those of field, event and reset are by complex steps. Systems whose answer is not
differentiable, or nearly so, are left out: an event that nearly touches zero, or happens nearly at the end. Operations
with a kink are left out too: a step across one has a derivative that is right to the root of the tolerance alone.
Where derivatives are large, an error of one tolerance on the way is amplified, in the derivatives by their square.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.integrate import DOP853, solve_ivp
from scipy.optimize import brentq
from search_table import Outcome, print_table

from diffsim import Event, Phase, integrate_hybrid

STATES, PARAMETERS, NODES = 3, 4, 10
LEAVES = 2 + STATES + PARAMETERS  # time, one, state, parameters
INPUTS = STATES + PARAMETERS + 1  # what is differentiated with respect to: state at the start, parameters, end
MOST = 10  # events
STEP = 1e-30  # of complex differentiation
NEAR = 0.02  # of an event: this near zero or this slow it nearly touches zero
RELATIVE, AMPLIFIED = 3e3, 10.0  # errors in tolerances: relative to the derivatives, and to their squares


OPERATIONS: list[tuple[Callable, Callable]] = [  # in JAX, in NumPy
    (lambda a, b: a + b, lambda a, b: a + b),
    (lambda a, b: a - b, lambda a, b: a - b),
    (lambda a, b: a * b, lambda a, b: a * b),
    (lambda a, b: a / (1 + b * b), lambda a, b: a / (1 + b * b)),
    (lambda a, b: jnp.sin(2 * a), lambda a, b: np.sin(2 * a)),
    (lambda a, b: jnp.cos(a), lambda a, b: np.cos(a)),
    (lambda a, b: jnp.tanh(a), lambda a, b: np.tanh(a)),
    (lambda a, b: jnp.exp(-a * a), lambda a, b: np.exp(-a * a)),
    (lambda a, b: jnp.sqrt(1 + a * a), lambda a, b: np.sqrt(1 + a * a)),
]
WEIGHTS = np.array([3, 3, 3, 2, 2, 1, 2, 1, 1])  # of the operations in a random expression


class System(NamedTuple):
    """Two phases, with two events each; arrays with a leading axis for many systems.

    A phase is a list of operations, each with the numbers of its two operands among leaves and earlier operations. Its
    last ones are the field, others the events and what resets put in place of a state.
    """

    operation: np.ndarray  # (2, NODES)
    first: np.ndarray  # (2, NODES)
    second: np.ndarray  # (2, NODES)
    damping: np.ndarray  # (2, STATES)
    of_event: np.ndarray  # (2, 2): the number among leaves and operations of what comes to the level
    levels: np.ndarray  # (2, 2)
    kept: np.ndarray  # (2, 2, STATES): 1 where a reset leaves a state as it is, -1 where it turns it, 0 for the rest


class Structure(NamedTuple):
    """What a compiled program fixes: for each event its direction and the phase after it."""

    directions: list[list[str]]
    targets: list[list[int | None]]


def random_systems(seed: int, count: int) -> tuple[Structure, System, np.ndarray]:
    """A structure, `count` systems of it and their inputs."""
    rng = np.random.default_rng(seed)
    directions = [[str(rng.choice(["rising", "falling", "both"])) for _ in range(2)] for _ in range(2)]
    targets: list[list[int | None]] = [[int(rng.integers(2)) for _ in range(2)] for _ in range(2)]
    if seed % 4 == 0:
        targets[1][1] = None
    shape = count, 2, NODES
    highest = LEAVES + np.arange(NODES)
    first, second = (np.floor(rng.uniform(size=shape) * highest).astype(int) for _ in range(2))
    first[..., 1:] = np.where(rng.uniform(size=(count, 2, NODES - 1)) < 0.5, highest[1:] - 1, first[..., 1:])
    of_states = rng.integers(2, 2 + STATES, (count, 2, 2))
    of_operations = rng.integers(highest[2], highest[-3], (count, 2, 2))
    kept = rng.choice([1, 1, 1, -1, 0], (count, 2, 2, STATES))
    if targets[1][1] is None:
        kept[:, 1, 1] = 1
    system = System(
        rng.choice(len(OPERATIONS), shape, p=WEIGHTS / WEIGHTS.sum()),
        first,
        second,
        rng.uniform(0.1, 1.0, (count, 2, STATES)),
        np.where(rng.uniform(size=(count, 2, 2)) < 0.5, of_states, of_operations),
        rng.normal(0, 0.5, (count, 2, 2)),
        kept,
    )
    inputs = np.concatenate([rng.normal(0, 1, (count, STATES + PARAMETERS)), rng.uniform(0.5, 3.0, (count, 1))], axis=1)
    inputs[:, :STATES] *= rng.uniform(size=(count, STATES)) < 0.8  # some start at zero
    return Structure(directions, targets), system, inputs


# The systems in JAX.


def _values(system: System, phase: int, t, y, p):
    """The values of time, one, state, parameters and all operations of a phase."""

    def node(values, code):
        number, operation, first, second = code
        value = jnp.stack([in_jax(values[first], values[second]) for in_jax, _ in OPERATIONS])[operation]
        return values.at[number].set(value), None

    leaves = jnp.concatenate([jnp.stack([t, jnp.ones_like(t)]), y, p, jnp.zeros(NODES)])
    codes = jnp.arange(LEAVES, LEAVES + NODES), system.operation[phase], system.first[phase], system.second[phase]
    return lax.scan(node, leaves, codes)[0]


def in_jax(structure: Structure) -> list[Phase]:
    """The phases of a structure's systems; their `args` are parameters and system."""

    def field(phase: int):
        def slope(t, y, args):
            p, system = args
            return 2 * jnp.tanh(_values(system, phase, t, y, p)[-STATES:]) - system.damping[phase] * y

        return slope

    def event(phase: int, which: int):
        def function(t, y, args):
            p, system = args
            return _values(system, phase, t, y, p)[system.of_event[phase, which]] - system.levels[phase, which]

        def reset(t, y, args):
            p, system = args
            kept = system.kept[phase, which]
            return jnp.where(kept == 0, 2 * jnp.tanh(_values(system, phase, t, y, p)[LEAVES:][:STATES]), kept * y)

        target = structure.targets[phase][which]
        return Event(function, structure.directions[phase][which], reset if target is not None else None, to=target)

    return [Phase(field(phase), (event(phase, 0), event(phase, 1))) for phase in range(2)]


# The same in NumPy.


class InNumPy:
    """One system; functions of (t, y, p) whose arguments may be rows of complex numbers."""

    def __init__(self, structure: Structure, system: System):
        self.structure, self.system = structure, system
        codes = zip(system.operation, system.first, system.second, strict=True)
        self.codes = [[(OPERATIONS[o][1], a, b) for o, a, b in zip(*code, strict=True)] for code in codes]

    def values(self, phase, t, y, p) -> list:
        """Time, one, state, parameters and all operations of a phase."""
        values = [t, np.ones_like(t), *y, *p]
        for operation, a, b in self.codes[phase]:
            values.append(operation(values[a], values[b]))
        return values

    def field(self, phase, t, y, p):
        values = self.values(phase, t, y, p)[-STATES:]
        return [2 * np.tanh(v) - d * x for v, d, x in zip(values, self.system.damping[phase], y, strict=True)]

    def event(self, phase, which, t, y, p):
        return [self.values(phase, t, y, p)[self.system.of_event[phase, which]] - self.system.levels[phase, which]]

    def reset(self, phase, which, t, y, p):
        kept, values = self.system.kept[phase, which], self.values(phase, t, y, p)[LEAVES:]
        return [2 * np.tanh(values[j]) if kept[j] == 0 else kept[j] * y[j] for j in range(STATES)]


def _jacobian(function: Callable, t: float, y: np.ndarray, p: np.ndarray):
    """Value (k,) of `function(t, y, p)` and its derivatives in t (k,), y (k, STATES) and p (k, PARAMETERS)."""
    size = 1 + STATES + PARAMETERS
    rows = np.repeat(np.concatenate([[t], y, p])[:, None], size + 1, axis=1).astype(complex)
    rows[:, 1:] += 1j * STEP * np.eye(size)
    values = np.array(function(rows[0], rows[1 : 1 + STATES], rows[1 + STATES :]))
    slopes = np.imag(values[:, 1:]) / STEP
    return np.real(values[:, 0]), slopes[:, 0], slopes[:, 1 : 1 + STATES], slopes[:, 1 + STATES :]


class IllPosed(Exception):
    """The answer is not differentiable, or nearly so."""


class Moment(NamedTuple):
    """A time, the state there, its derivatives with respect to the inputs, and the phase."""

    t: float
    y: np.ndarray
    s: np.ndarray
    phase: int


class Simulation:
    """A system with its inputs, simulated from event to event."""

    def __init__(self, system: InNumPy, x: np.ndarray):
        self.system, self.start, self.p, self.end = system, x[:STATES], x[STATES:-1], x[-1]
        self.s_of_p = np.eye(PARAMETERS, INPUTS, STATES)

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The last state and time, and the times of the events (STATES + 1 + MOST,), and their Jacobian.

        Raises:
            IllPosed: if they are not differentiable, or nearly so, or there are too many events.
        """
        now = Moment(0.0, self.start, np.eye(STATES, INPUTS), 0)
        times, slopes, last = np.zeros(MOST), np.zeros((MOST, INPUTS)), None
        for number in range(MOST - 1):
            event, now = self.onward(now, last)
            f = self.field(now)
            if event is None:
                dt = np.eye(INPUTS)[-1]
                break
            g, rate, g_y, g_p = self.rate(event, now)
            if abs(rate) < NEAR or self.end - now.t < 1e-3:
                raise IllPosed
            move = -g / rate  # by which the interpolant was off
            now = now._replace(t=now.t + move, y=now.y + move * f)
            dt = -(g_y @ now.s + g_p @ self.s_of_p) / rate
            times[number], slopes[number] = now.t, dt
            target = self.system.structure.targets[now.phase][event]
            if target is None:
                break
            reset = functools.partial(self.system.reset, now.phase, event)
            y, r_t, r_y, r_p = _jacobian(reset, now.t, now.y, self.p)
            last = event if target == now.phase else None
            s = r_y @ now.s + r_p @ self.s_of_p + np.outer(r_t + r_y @ f, dt)
            now = Moment(now.t, y, s, target)
            now = now._replace(s=s - np.outer(self.field(now), dt))
        else:
            raise IllPosed
        s = now.s + np.outer(f, dt)
        return np.concatenate([now.y, [now.t], times]), np.concatenate([s, [dt], slopes])

    def onward(self, now: Moment, last: int | None) -> tuple[int | None, Moment]:
        """The next event and the moment just before its reset, or None and the end; `last` is at zero now."""
        slopes = functools.partial(self.slopes, now.phase)
        packed = np.concatenate([now.y, now.s.ravel()])
        moment = lambda t, z: Moment(t, z[:STATES], z[STATES:].reshape(STATES, INPUTS), now.phase)
        side, before = self.sides(now, last)
        solver = DOP853(slopes, now.t, packed, self.end, max_step=0.05, rtol=1e-12, atol=1e-13)
        earlier = before
        while solver.status == "running":
            solver.step()
            if solver.status == "failed" or not np.all(np.isfinite(solver.y)):
                raise IllPosed
            state = solver.dense_output()
            g_at = lambda t, state=state: self.events(moment(t, state(t)))
            knots = np.linspace(solver.t_old, solver.t, 5)
            for low, high in itertools.pairwise(knots):
                g = g_at(high)
                turns = np.abs(before) <= np.minimum(np.abs(earlier), np.abs(g))
                if np.any(turns & (np.sign(earlier) == np.sign(g)) & (np.abs(before) < NEAR)):
                    raise IllPosed
                crossed = np.flatnonzero(np.sign(g) != side)
                wanted = [e for e in crossed if self.happens(now.phase, e, side[e])]
                side[crossed] *= -1
                earlier, before = before, g
                if not wanted:
                    continue
                roots = [self.root(lambda t, e=e: g_at(t)[e], low, high) for e in wanted]
                if len(roots) == 2 and abs(roots[0] - roots[1]) < 1e-4:
                    raise IllPosed
                first = int(np.argmin(roots))
                span = solver.t_old, roots[first]
                part = solve_ivp(slopes, span, solver.y_old, method="DOP853", rtol=1e-12, atol=1e-13)
                return wanted[first], moment(roots[first], part.y[:, -1])
        if np.any(np.abs(before) < 1e-3):
            raise IllPosed
        return None, moment(solver.t, solver.y)

    def sides(self, now: Moment, last: int | None) -> tuple[np.ndarray, np.ndarray]:
        """On which side of zero each event is, and its value, without bound for one that leaves zero now."""
        g = self.events(now)
        side = np.sign(g)
        for e in np.flatnonzero(np.abs(g) < NEAR):
            rate = self.rate(e, now)[1]
            if e != last or abs(g[e]) > 1e-9 or abs(rate) < NEAR:
                raise IllPosed
            side[e] = np.sign(rate)
            g[e] = side[e] * np.inf
        return side, g

    @staticmethod
    def root(function: Callable, low: float, high: float) -> float:
        """The zero of the function between two times; there may be none where it starts at zero."""
        if function(low) * function(high) > 0:
            raise IllPosed
        return brentq(function, low, high, xtol=1e-15)

    def happens(self, phase: int, event: int, side: float) -> bool:
        """Whether an event happens that leaves this side of zero."""
        return self.system.structure.directions[phase][event] in ("both", "rising" if side < 0 else "falling")

    def slopes(self, phase: int, t: float, packed: np.ndarray) -> np.ndarray:
        """Those of the state and of its derivatives."""
        f, _, f_y, f_p = _jacobian(functools.partial(self.system.field, phase), t, packed[:STATES], self.p)
        return np.concatenate([f, (f_y @ packed[STATES:].reshape(STATES, INPUTS) + f_p @ self.s_of_p).ravel()])

    def field(self, now: Moment) -> np.ndarray:
        """The slope of the state."""
        return np.array(self.system.field(now.phase, np.array(now.t), now.y, self.p))

    def events(self, now: Moment) -> np.ndarray:
        """The values of the two events."""
        return np.array([self.system.event(now.phase, e, np.array(now.t), now.y, self.p)[0] for e in range(2)])

    def rate(self, event: int, now: Moment) -> tuple[float, float, np.ndarray, np.ndarray]:
        """An event's value, its rate in time along the trajectory, and its derivatives in state and parameters."""
        function = functools.partial(self.system.event, now.phase, event)
        g, g_t, g_y, g_p = _jacobian(function, now.t, now.y, self.p)
        return g[0], g_t[0] + g_y[0] @ self.field(now), g_y[0], g_p[0]


SOLVERS = {
    "tsit5": (dfx.Tsit5(), "auto"),
    "replay": (dfx.Dopri5(), "replay"),
    "forward": (dfx.Bosh3(), "forward"),
    "dopri8": (dfx.Dopri8(), "auto"),
    "implicit": (dfx.Kvaerno5(), "auto"),
}


@functools.cache
def outcome(kind: str, seed: int, count: int) -> Outcome:
    """The outcome of solving `count` systems of a seed in one way."""
    structure, systems, inputs = random_systems(seed, count)
    solver, mode = SOLVERS[kind]
    phases = in_jax(structure)
    tolerance = 1e-7 if kind == "forward" else 1e-9

    def solve(x, system):
        end = integrate_hybrid(
            phases, x[:STATES], (x[STATES:-1], system), t1=x[-1], max_events=MOST, solver=solver, rtol=tolerance,
            atol=tolerance, mode=mode,
        )  # fmt: skip
        happened = jnp.arange(MOST) < end.num_events
        numbers = jnp.concatenate([end.y, end.t[None], jnp.where(happened, end.event_t, 0.0)])
        return numbers, (numbers, end.status)

    derivative = jax.jacfwd if mode == "forward" or seed % 2 else jax.jacrev
    slopes, (values, status) = jax.jit(jax.vmap(derivative(solve, has_aux=True)))(inputs, systems)
    values, slopes, status = np.asarray(values), np.asarray(slopes), np.array(status)
    errors = np.zeros((2, count))
    kept = np.ones(count, bool)
    for i in range(count):
        one = System(*(x[i] for x in systems))
        try:
            right = Simulation(InNumPy(structure, one), inputs[i]).numbers()
        except IllPosed:
            kept[i] = False
            continue
        for k, (mine, other) in enumerate(zip((values[i], slopes[i]), right, strict=True)):
            growth = 1 + np.max(np.abs(right[1]))
            allowed = tolerance * (RELATIVE + growth * AMPLIFIED * k)
            errors[k, i] = np.max(np.abs(mine - other)) / (growth * allowed)
    return Outcome(status[kept], *errors[:, kept])


if __name__ == "__main__":
    print_table(__doc__, SOLVERS, outcome)
