"""The causes of a wrong derivative: suspects for the rows of a check that do not agree, or why there are none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .._errors import InputError
from .._jax.program import Stuck
from .._jax.source_lines import first_line
from ..autodiff.inputs import Inputs
from ..graph.find_non_finite import Finding, find_non_finite
from .suspects import Suspect, narrows, search
from .verdict import Row

SUSPECT = ("inconclusive", "disagrees", "zero?")
"""The verdicts whose cause is searched for among the operations."""


def located(inputs: Inputs, f: Callable[..., Any], args: tuple[Any, ...], rows: list[Row]) -> list[Row]:
    """Returns the rows with suspects for those that do not agree, and a doubt where a coarser format is on the way.

    The evidence stands whatever becomes of the search for a cause: where there is none to be found, a note says so.
    """
    narrow = narrows(inputs)
    if not narrow and all(row.verdict == "agrees" for row in rows):
        return rows
    finding, reason = _diagnosed(f, args) if any(row.verdict == "non-finite" for row in rows) else (None, "")
    suspects, stuck = _searched(inputs) if narrow or any(row.verdict in SUSPECT for row in rows) else (None, "")
    found = []
    for number, row in enumerate(rows):
        known: list[Any] = [finding] if finding and row.verdict == "non-finite" else []
        why = stuck
        if suspects and row.verdict != "non-finite":
            known, why = _suspects(suspects, number)
        if row.verdict == "agrees":
            known = [suspect for suspect in known if "narrows" in suspect.reason]
            row = replace(row, verdict="inconclusive") if known else row
        hard = [suspect for suspect in known if getattr(suspect, "hard", True)] or known
        row = replace(row, suspects=tuple(map(str, hard[:5])))
        if row.verdict != "agrees" and not hard:
            why = reason if row.verdict == "non-finite" else why or "no operation on its way is known to spoil it"
            row = replace(row, notes=(*row.notes, f"cause not located: {why}"))
        found.append(row)
    return found


def _diagnosed(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Finding | None, str]:
    """Where a function first stops being finite; or None, and why that is not known."""
    try:
        return find_non_finite(f, *args), "value and reverse mode are finite"
    except InputError as error:
        return None, str(error)
    except Exception as error:  # any kind: the evidence is not to be lost for want of a cause
        return None, _ended(error)


def _searched(inputs: Inputs) -> tuple[Callable[[int], list[Suspect]] | None, str]:
    """The search for suspects; or None, and why there is none."""
    try:
        return search(inputs), ""
    except Stuck as stuck:
        return None, str(stuck)
    except Exception as error:  # any kind: the evidence is not to be lost for want of a cause
        return None, _ended(error)


def _suspects(suspects: Callable[[int], list[Suspect]], number: int) -> tuple[list[Any], str]:
    """The suspects of one parameter, or none, and why the search for them ended."""
    try:
        return suspects(number), ""
    except Exception as error:  # any kind: the evidence is not to be lost for want of a cause
        return [], _ended(error)


def _ended(error: Exception) -> str:
    return f"the search ended with {type(error).__name__}: {first_line(error)}"
