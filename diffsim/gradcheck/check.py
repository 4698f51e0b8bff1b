"""The check of a gradient: reverse mode, forward mode and differences, parameter by parameter."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from ..autodiff.inputs import Inputs, scalar_format, split
from ..autodiff.ridders import Sweep, ridders
from .attach_suspects import SUSPECT, located
from .directional import along, differences, forward, reverse, steps_for, value_along, value_of
from .directions import Probes, choose
from .event_conditioning import Crossing
from .extra_checks import Evidences, more_evidence
from .flat_regions import silent_change
from .solver_tolerance import remaining_error, tightened, tighter_by
from .table import plain, table
from .verdict import SEVERITY, Evidence, Row, judge, place, row_of

MODES = ("reverse", "forward")

COARSE = np.array([2.0, 1.0])
"""Steps that carry an entry past zero: where all derivatives are exactly zero, jumps are looked for there."""


class Worst(NamedTuple):
    """Where a check is worst: the parameter's name, the entry, and the relative disagreement there."""

    path: str
    index: tuple[int, ...] | str | None
    disagreement: float


@dataclass(frozen=True)
class GradientCheck:
    """The evidence on the gradient of one function at one point: its value, and a row per parameter.

    `str()` gives a table. `dot_product` is, of a thorough check, the relative difference between gradient times
    direction and forward mode along it; `hints` are remarks on the function as a whole.
    """

    value: float
    rows: tuple[Row, ...]
    dot_product: float | None = None
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every parameter's verdict is "agrees"."""
        return all(row.verdict == "agrees" for row in self.rows)

    @property
    def worst(self) -> Worst:
        """The parameter with the worst verdict, and of those the one with the largest disagreement."""
        row = max(
            self.rows,
            key=lambda row: (SEVERITY.index(row.verdict), np.nan_to_num(row.disagreement, nan=np.inf)),
        )
        return Worst(row.name, row.index, row.disagreement)

    def to_dict(self) -> dict[str, Any]:
        """Returns the check as dictionaries, lists, strings and finite numbers, ready for JSON.

        Numbers that are not finite become the strings "nan", "inf" and "-inf".
        """
        rows = [asdict(row) for row in self.rows]
        found = {"ok": self.ok, "value": self.value, "worst": self.worst._asdict(), "rows": rows}
        return plain(found | {"dot_product": self.dot_product, "hints": self.hints})

    def __str__(self) -> str:
        return "\n".join([table(self.rows), *self.hints])


def check_gradients(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    rtol: float = 1e-6,
    atol: float = 0.0,
    modes: Sequence[str] = MODES,
    max_coordinates: int = 8,
    seed: int = 0,
    jit: bool = True,
    thorough: bool = False,
    events: Mapping[str, Crossing] | None = None,
) -> GradientCheck:
    """Returns the evidence that the derivatives of `f(*args)` by jax are those of the numbers it computes.

    Every floating-point array in `args` (trees, modules) is a parameter; static values, keys and counters
    are left alone. Of each parameter up to `max_coordinates` entries are tried, and one direction over all,
    random by `seed`. A derivative agrees within `rtol` of the slope (at least 100 roundings of the number
    format) plus `atol`, in the units of the derivative, plus twice the error bar of the differences.

    `thorough` adds complex steps, the dot-product test and the other number format, at one compilation each.
    `events` are event crossings (`crossing`) on which the result depends: a remark says how well conditioned each is.

    Verdicts: "agrees"; "disagrees"; "non-finite" (with the entry and the mode); "zero?" where a derivative is
    exactly 0 but the function does change; "inconclusive" where differences cannot tell, as at a kink, where a
    coarser number format on the way costs digits, or where jax has no derivative by any of the `modes`. Whatever does
    not agree is traced to the operations that may be to blame (`suspects`).

    Of a function with adaptive solves inside, what does not agree is tried again with their tolerances tightened a
    thousandfold (float32: tenfold): derivatives on the steps taken, and differences that see the steps change, come
    together then, and the row says "agrees" and notes that it is within the solver's tolerance. A wrong one stays off.
    Some 40 evaluations of `f` are made for every entry tried; `jit=False` calls `f` from Python, for functions
    that cannot be compiled.

    Raises InputError where `f` does not return one floating-point number, where `args` has nothing to
    differentiate or an integer array as an argument.
    """
    for mode in modes:
        if mode not in MODES:
            raise InputError(f"modes has {mode!r}: choose from {MODES}")
    inputs = split(f, args)
    form = scalar_format(inputs, jit=jit)
    value, gradient, reason = reverse(inputs, jit=jit) if "reverse" in modes else (None, None, None)
    value = value_of(inputs, jit=jit) if value is None else value
    if not np.isfinite(value):
        rows = _without_value(inputs, value)
        return GradientCheck(value, tuple(located(inputs, f, args, list(rows)) if jit else rows))
    reasons = {"reverse": reason}
    probes = choose(inputs.leaves, max_coordinates, seed, gradient)
    slopes, reasons["forward"] = forward(inputs, probes, jit=jit) if "forward" in modes else (None, None)
    found = {"reverse": None if gradient is None else along(gradient, probes), "forward": slopes}
    known = {mode: array for mode, array in found.items() if array is not None}
    missing = tuple(f"{mode} not available: {why}" for mode, why in reasons.items() if why)
    points = differences(inputs, probes, steps_for(inputs, form), jit=jit)
    if not known:
        rows = [_without_derivative(number, inputs, probes, points, missing) for number in range(len(inputs.leaves))]
        return GradientCheck(value, tuple(rows))
    evidence = [_gather(number, inputs, probes, known, points) for number in range(len(inputs.leaves))]
    rows = [judge(each, rtol, atol) for each in evidence]
    if any(row.verdict in SUSPECT for row in rows):
        rows = _within_tolerance(inputs, probes, evidence, rows, (rtol, atol), jit=jit)
    for number, (each, row) in enumerate(zip(evidence, rows, strict=True)):
        if not all(np.all(slopes) for slopes in each.modes.values()):
            mine = probes.of(number)
            coarse = differences(inputs, mine, COARSE, jit=jit)
            row = silent_change(each, coarse, value_along(inputs, mine, jit=jit)) or row
        rows[number] = replace(row, notes=row.notes + missing)
    more = more_evidence(inputs, gradient, probes, rows) if thorough and gradient and jit else Evidences(rows)
    rows = located(inputs, f, args, more.rows) if jit else rows
    remarks = tuple(f"event {name}: {event}" for name, event in (events or {}).items())
    return GradientCheck(value, tuple(rows), more.dot_product, more.hints + remarks)


def _within_tolerance(
    inputs: Inputs,
    probes: Probes,
    evidence: Sequence[Evidence],
    rows: list[Row],
    tolerances: tuple[float, float],
    *,
    jit: bool,
) -> list[Row]:
    """The rows, of which those "agree" that solves to tighter tolerances bring to agree.

    A derivative of a solve on the steps that were taken knows nothing of how the steps change, which differences see.
    Both are the solution's derivative but for the solver's error, and come together as its tolerances are tightened; a
    wrong derivative stays as far off as it is.
    """
    factor = tighter_by(max(each.eps for each in evidence))
    modes, steps = list(evidence[0].modes), evidence[0].points.steps
    steps = steps[len(steps) // 4 :]  # far from the point a solve may take too many steps for a tighter tolerance
    try:
        value = value_of(inputs, jit=jit)
        with tightened(factor):
            if value_of(inputs, jit=jit) == value:
                return rows
            gradient = reverse(inputs, jit=jit)[1] if "reverse" in modes else None
            slopes = forward(inputs, probes, jit=jit)[0] if "forward" in modes else None
            points = differences(inputs, probes, steps, jit=jit)
    except Exception:  # any kind: a solve that takes too many steps for the tighter tolerance may raise what it likes
        return rows
    tighter = {"reverse": None if gradient is None else along(gradient, probes), "forward": slopes}
    known = {mode: array for mode, array in tighter.items() if array is not None}
    if len(known) < len(modes):
        return rows
    found = []
    for number, (each, row) in enumerate(zip(evidence, rows, strict=True)):
        closer = _gather(number, inputs, probes, known, points)
        again = judge(closer._replace(slack=remaining_error(each, closer, factor)), *tolerances)
        if row.verdict in SUSPECT and again.verdict == "agrees":
            note = f"within the solver's tolerance: at {factor:g} times that, derivatives and differences agree"
            row = replace(row, verdict="agrees", notes=(note,))
        elif row.verdict == "inconclusive" and again.verdict == "disagrees":
            note = f"the differences are those of solves to {factor:g} times their tolerance"
            row = replace(again, notes=(*again.notes, note))
        found.append(row)
    return found


def _without_derivative(number: int, inputs: Inputs, probes: Probes, points: Sweep, notes: tuple[str, ...]) -> Row:
    """The row of a parameter by which jax has no derivative: differences alone, at the first entry tried."""
    evidence = _gather(number, inputs, probes, {}, points)
    return replace(row_of(evidence, 0, math.inf, "inconclusive"), notes=notes)


def _gather(number: int, inputs: Inputs, probes: Probes, known: Mapping[str, np.ndarray], points: Sweep) -> Evidence:
    """The evidence on one leaf, out of that on all probes."""
    mine = probes.leaf == number
    points = Sweep(points.steps, points.centre[mine], points.ahead[:, mine], points.behind[:, mine])
    return Evidence(
        inputs.names[number],
        np.asarray(inputs.leaves[number], np.float64),
        probes.entry[mine],
        probes.unit()[mine],
        {mode: slopes[mine] for mode, slopes in known.items()},
        ridders(points),
        points,
        max(float(jnp.finfo(array.dtype).eps) for array in (points.centre, *inputs.leaves)),
    )


def _without_value(inputs: Inputs, value: float) -> Iterator[Row]:
    """The rows of a function whose value is not finite: parameters that are not finite either are named."""
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        leaf = np.asarray(leaf, np.float64)
        bad = [tuple(int(k) for k in index) for index in np.argwhere(~np.isfinite(leaf))[:1]]
        notes = tuple(f"the parameter itself is {leaf[k]}" + (f" at {place(k)}" if k else "") for k in bad)
        index, entry = (bad[0], float(leaf[bad[0]])) if bad else (None, None)
        unknown = (None, None, None, None, math.inf, "non-finite")
        yield Row(name, leaf.shape, index, entry, *unknown, (*notes, f"the value of the function is {value}"))
