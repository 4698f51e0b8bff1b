"""How a gradient is checked, step by step. A step that is not needed for a verdict cannot end the check."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .._jax.source_lines import first_line
from ..autodiff.inputs import Inputs, scalar_format
from .attach_suspects import with_suspects
from .coarse_slopes import note_on_coarse_slope
from .directional import Derivatives, difference_samples, steps_for, value_along, value_of
from .directions import Probes, choose_probes
from .evidence import Evidence, gather, slopes_by_mode
from .extra_checks import ThoroughRows, more_evidence
from .flat_regions import change_beyond_flat
from .report import GradientCheck
from .solver_tolerance import judge_with_tighter_solves
from .verdict import SUSPECT, Row, judge, place, row_of

MODES = ("reverse", "forward")

COARSE_STEPS = np.array([2.0, 1.0])
"""Steps that carry an entry past zero: where all derivatives are exactly zero, jumps are searched for there."""

T = TypeVar("T")


class Options(NamedTuple):
    """The options of a check; see `check_gradients`."""

    rtol: float
    atol: float
    modes: tuple[str, ...]
    max_coordinates: int
    seed: int
    jit: bool
    thorough: bool


class Failures(list[str]):
    """The steps of a check that ended with an error, each with a phrase on it."""

    def attempt(self, what: str, step: Callable[[], T], otherwise: T) -> T:
        """What a step returns; if it raises an error, `otherwise`."""
        try:
            return step()
        except Exception as error:  # any kind: the evidence must not be lost because one step fails
            self.append(f"not tried: {what} ended with {type(error).__name__}: {first_line(error)}")
            return otherwise


def collect(
    inputs: Inputs,
    derivatives: Derivatives,
    options: Options,
    f: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
) -> GradientCheck:
    """The evidence on the derivatives of a function of `inputs`; `f` and `args` are what it is in JAX, if it is."""
    jit, modes = options.jit, options.modes
    failures = Failures()
    value_dtype = scalar_format(inputs, jit=jit)
    value, gradient, no_reverse = derivatives.reverse() if "reverse" in modes else (None, None, None)
    value = value_of(inputs, jit=jit) if value is None else value
    if not np.isfinite(value):
        rows = list(_rows_without_value(inputs, value))
        return GradientCheck(value, tuple(_located(inputs, f, args, rows, failures, jit=jit)), hints=tuple(failures))
    probes = choose_probes(inputs.leaves, options.max_coordinates, options.seed, gradient)
    forward, no_forward = derivatives.forward(probes) if "forward" in modes else (None, None)
    reasons = {"reverse": no_reverse, "forward": no_forward}
    missing = tuple(f"{mode} not available: {reason}" for mode, reason in reasons.items() if reason)
    points = difference_samples(inputs, probes, steps_for(inputs, value_dtype), jit=jit)
    slopes = slopes_by_mode(gradient, forward, probes)
    evidence = gather(inputs, probes, slopes, points)
    if not slopes:
        return GradientCheck(value, tuple(_row_without_derivative(each, missing) for each in evidence))
    rows = _judged(inputs, probes, evidence, options, failures, by_jax=f is not None)
    rows = [replace(row, notes=row.notes + missing) for row in rows]
    checked = ThoroughRows(rows)
    if options.thorough and gradient and jit:
        more = lambda: more_evidence(inputs, gradient, probes, rows)
        checked = failures.attempt("the thorough check", more, checked)
    rows = _located(inputs, f, args, checked.rows, failures, jit=jit)
    return GradientCheck(value, tuple(rows), checked.dot_product, (*checked.hints, *failures))


def _judged(
    inputs: Inputs,
    probes: Probes,
    evidence: Sequence[Evidence],
    options: Options,
    failures: Failures,
    *,
    by_jax: bool,
) -> list[Row]:
    """The row of each parameter, after a second look at what is suspicious."""
    tolerances, jit = (options.rtol, options.atol), options.jit
    rows = [judge(each, *tolerances) for each in evidence]
    if by_jax and any(row.verdict in SUSPECT for row in rows):
        tighter = lambda: judge_with_tighter_solves(inputs, probes, evidence, rows, tolerances, jit=jit)
        rows = failures.attempt("solves with tighter tolerances", tighter, rows)
    flat = lambda: list(_with_flat_regions(inputs, probes, evidence, rows, jit=jit))
    rows = failures.attempt("the search for jumps", flat, rows)
    coarse = lambda: [note_on_coarse_slope(each) for each in evidence]
    remarks = failures.attempt("slopes over larger steps", coarse, [None] * len(rows))
    remarked = lambda row, note: replace(row, notes=(*row.notes, note)) if note and row.verdict == "agrees" else row
    return [remarked(row, note) for row, note in zip(rows, remarks, strict=True)]


def _located(
    inputs: Inputs,
    f: Callable[..., Any] | None,
    args: tuple[Any, ...],
    rows: list[Row],
    failures: Failures,
    *,
    jit: bool,
) -> list[Row]:
    """The rows with the causes of what does not agree, or with a note that the cause is not located."""
    reason = "its derivative is not JAX's" if f is None else "the function is not compiled"
    if jit and f is not None:
        located = failures.attempt("the search for a cause", lambda: with_suspects(inputs, f, args, rows), None)
        if located is not None:
            return located
        reason = "the search for it failed"
    note = f"cause not located: {reason}"
    return [row if row.verdict == "agrees" else replace(row, notes=(*row.notes, note)) for row in rows]


def _with_flat_regions(
    inputs: Inputs, probes: Probes, evidence: Sequence[Evidence], rows: list[Row], *, jit: bool
) -> Iterator[Row]:
    """The rows, with those replaced whose function changes at large steps although its derivatives are zero."""
    for number, (each, row) in enumerate(zip(evidence, rows, strict=True)):
        if all(np.all(slopes) for slopes in each.modes.values()):
            yield row
        else:
            own = probes.of_leaf(number)
            coarse = difference_samples(inputs, own, COARSE_STEPS, jit=jit)
            yield change_beyond_flat(each, coarse, value_along(inputs, own, jit=jit)) or row


def _row_without_derivative(evidence: Evidence, notes: tuple[str, ...]) -> Row:
    """The row of a parameter by which JAX has no derivative: differences alone, at the first entry tried."""
    return replace(row_of(evidence, 0, math.inf, "inconclusive"), notes=notes)


def _rows_without_value(inputs: Inputs, value: float) -> Iterator[Row]:
    """The rows of a function whose value is not finite; parameters that are not finite either are named."""
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        leaf = np.asarray(leaf, np.float64)
        bad = [tuple(int(k) for k in index) for index in np.argwhere(~np.isfinite(leaf))[:1]]
        notes = tuple(f"the parameter itself is {leaf[k]}" + (f" at {place(k)}" if k else "") for k in bad)
        index, entry = (bad[0], float(leaf[bad[0]])) if bad else (None, None)
        unknown = (None, None, None, None, math.inf, "non-finite")
        yield Row(name, leaf.shape, index, entry, *unknown, (*notes, f"the value of the function is {value}"))
