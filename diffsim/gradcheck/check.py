"""The check of a gradient: reverse mode, forward mode and differences, parameter by parameter."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError
from ..autodiff.inputs import Inputs, scalar_format, split
from ..io.json_encoding import plain
from .attach_suspects import with_suspects
from .directional import difference_samples, forward_slopes, reverse_gradient, steps_for, value_along, value_of
from .directions import Probes, choose_probes
from .event_conditioning import Crossing
from .evidence import Evidence, gather, slopes_by_mode
from .extra_checks import ThoroughRows, more_evidence
from .flat_regions import change_beyond_flat
from .solver_tolerance import judge_with_tighter_solves
from .table import table
from .verdict import SEVERITY, SUSPECT, Row, judge, place, row_of

MODES = ("reverse", "forward")

COARSE_STEPS = np.array([2.0, 1.0])
"""Steps that carry an entry past zero: where all derivatives are exactly zero, jumps are searched for there."""


class Worst(NamedTuple):
    """Where a check is worst.

    Attributes:
        path: The parameter's name.
        index: The entry.
        disagreement: The relative disagreement there.
    """

    path: str
    # The field hides the method of tuples of the same name, which nothing uses here.
    index: tuple[int, ...] | str | None  # pyright: ignore[reportIncompatibleMethodOverride]
    disagreement: float


@dataclass(frozen=True)
class GradientCheck:
    """The evidence on the gradient of one function at one point. `str()` gives a table.

    Attributes:
        value: The value of the function.
        rows: The evidence on each parameter.
        dot_product: Of a thorough check, the relative difference between the gradient times a direction and forward
            mode along it.
        hints: Remarks on the function.

    Examples:
        >>> check = ds.check_gradients(lambda x, y: jnp.sin(x) * y, (1.0, 2.0))
        >>> check.ok, [(row.name, row.verdict) for row in check.rows]
        (True, [('args[0]', 'agrees'), ('args[1]', 'agrees')])
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
        """The check as dictionaries, lists, strings and finite numbers, for JSON.

        Numbers that are not finite become None.
        """
        rows = [asdict(row) for row in self.rows]
        fields = {"ok": self.ok, "value": self.value, "worst": self.worst._asdict(), "rows": rows}
        return plain(fields | {"dot_product": self.dot_product, "hints": self.hints})

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
    """The evidence that JAX's derivatives of `f(*args)` are those of the numbers that it computes.

    A derivative a agrees with the difference d, whose error estimate is e, where

        |a - d| <= rtol max(|a|, |d|) + atol + 2 e.

    The verdict on each parameter is one of
    - "agrees";
    - "disagrees";
    - "non-finite", with the entry and the mode;
    - "zero?", where a derivative is exactly 0 although the function changes;
    - "inconclusive", where differences cannot decide, such as at a kink, where a number format with fewer digits is
      used on the way, or where JAX has no derivative by any of the `modes`.
    A parameter that does not agree has `suspects`, the operations that may be the cause.

    The derivative of an adaptive solve is taken along the steps that were made, while differences see the steps change.
    What does not agree is therefore tried again with a thousandth of the solves' tolerances (a tenth in float32). If
    derivatives and differences then come together, the verdict is "agrees", and a note says that the difference is
    within the solver's tolerance.

    About 40 values of `f` are computed for every entry that is tried.

    Args:
        f: A function of `args` that returns one floating-point number.
        args: The arguments. Every floating-point array in them (trees and modules too) is a parameter; static values,
            keys, counters and what `ds.parameters` leaves out, such as the limits of a `BoundedMLP`, are left alone.
        rtol: The tolerance relative to the slope; at least 100 roundings of the number format are allowed. The default
            is far above the rounding of float64 and far below the effect of a wrong derivative.
        atol: The absolute tolerance, in the units of the derivative.
        modes: The modes to check, of "reverse" and "forward".
        max_coordinates: The most entries of each parameter that are tried. One direction over all entries is tried in
            addition.
        seed: The seed of the random choice of entries and directions.
        jit: Whether to compile `f`. Without, it is called from Python, for functions that cannot be compiled.
        thorough: Whether to add complex steps, the dot-product test and the other number format, at the price of one
            compilation each.
        events: Event crossings on which the result depends, as `crossing` returns them, by name. A hint says how well
            conditioned each is.

    Raises:
        InputError: If `f` does not return one floating-point number, and if `args` has nothing to differentiate or an
            integer array as an argument.

    Examples:
        >>> ds.check_gradients(lambda x: jnp.sum(jnp.sin(x)), (jnp.arange(3.0),)).ok
        True
        >>> masked = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
        >>> check = ds.check_gradients(masked, (jnp.array([0.0, 1.0]),))
        >>> check.ok, check.rows[0].verdict  # print(check) shows the evidence
        (False, 'non-finite')
    """
    for mode in modes:
        if mode not in MODES:
            raise InputError(f"modes has {mode!r}: choose from {MODES}")
    inputs = split(f, args)
    value_dtype = scalar_format(inputs, jit=jit)
    value, gradient, no_reverse = reverse_gradient(inputs, jit=jit) if "reverse" in modes else (None, None, None)
    value = value_of(inputs, jit=jit) if value is None else value
    if not np.isfinite(value):
        rows = list(_rows_without_value(inputs, value))
        return GradientCheck(value, tuple(with_suspects(inputs, f, args, rows) if jit else rows))
    probes = choose_probes(inputs.leaves, max_coordinates, seed, gradient)
    forward, no_forward = forward_slopes(inputs, probes, jit=jit) if "forward" in modes else (None, None)
    reasons = {"reverse": no_reverse, "forward": no_forward}
    missing = tuple(f"{mode} not available: {reason}" for mode, reason in reasons.items() if reason)
    points = difference_samples(inputs, probes, steps_for(inputs, value_dtype), jit=jit)
    slopes = slopes_by_mode(gradient, forward, probes)
    evidence = gather(inputs, probes, slopes, points)
    if not slopes:
        return GradientCheck(value, tuple(_row_without_derivative(each, missing) for each in evidence))
    rows = [judge(each, rtol, atol) for each in evidence]
    if any(row.verdict in SUSPECT for row in rows):
        rows = judge_with_tighter_solves(inputs, probes, evidence, rows, (rtol, atol), jit=jit)
    rows = [
        replace(row, notes=row.notes + missing) for row in _with_flat_regions(inputs, probes, evidence, rows, jit=jit)
    ]
    checked = more_evidence(inputs, gradient, probes, rows) if thorough and gradient and jit else ThoroughRows(rows)
    rows = with_suspects(inputs, f, args, checked.rows) if jit else rows
    remarks = tuple(f"event {name}: {event}" for name, event in (events or {}).items())
    return GradientCheck(value, tuple(rows), checked.dot_product, checked.hints + remarks)


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
