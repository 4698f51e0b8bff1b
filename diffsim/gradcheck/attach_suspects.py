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
from .verdict import SUSPECT, Row

MAX_SUSPECTS = 5


def with_suspects(inputs: Inputs, f: Callable[..., Any], args: tuple[Any, ...], rows: list[Row]) -> list[Row]:
    """The rows with suspects for those that do not agree.

    A row that agrees becomes "inconclusive" if a number on the way is narrowed to a format with fewer digits. The
    verdicts stand even if the search for a cause fails; a note then says why.
    """
    narrow = narrows(inputs)
    if not narrow and all(row.verdict == "agrees" for row in rows):
        return rows
    finding, no_finding = None, ""
    if any(row.verdict == "non-finite" for row in rows):
        finding, no_finding = _find_non_finite(f, args)
    suspects_of, no_search = None, ""
    if narrow or any(row.verdict in SUSPECT for row in rows):
        suspects_of, no_search = _try_search(inputs)
    explained = []
    for number, row in enumerate(rows):
        if row.verdict == "non-finite":
            explained.append(_explained(row, [finding] if finding else [], no_finding))
            continue
        suspects, reason = _suspects(suspects_of, number) if suspects_of else ([], no_search)
        if row.verdict == "agrees":
            suspects = [suspect for suspect in suspects if "narrows" in suspect.reason]
            row = replace(row, verdict="inconclusive") if suspects else row
        certain = [suspect for suspect in suspects if suspect.hard] or suspects
        explained.append(_explained(row, certain, reason or "no operation on its way is known to spoil it"))
    return explained


def _explained(row: Row, causes: list[Any], reason: str) -> Row:
    """The row with its suspects, or with a note on the reason why a row that does not agree has none."""
    row = replace(row, suspects=tuple(map(str, causes[:MAX_SUSPECTS])))
    if row.verdict != "agrees" and not causes:
        row = replace(row, notes=(*row.notes, f"cause not located: {reason}"))
    return row


def _find_non_finite(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Finding | None, str]:
    """Where a function first stops being finite; or None, and why that is not known."""
    try:
        return find_non_finite(f, *args), "value and reverse mode are finite"
    except InputError as error:
        return None, str(error)
    except Exception as error:  # any kind: the evidence must not be lost because the cause is not found
        return None, _reason(error)


def _try_search(inputs: Inputs) -> tuple[Callable[[int], list[Suspect]] | None, str]:
    """The search for suspects; or None, and why there is none."""
    try:
        return search(inputs), ""
    except Stuck as stuck:
        return None, str(stuck)
    except Exception as error:  # any kind: the evidence must not be lost because the cause is not found
        return None, _reason(error)


def _suspects(suspects_of: Callable[[int], list[Suspect]], number: int) -> tuple[list[Suspect], str]:
    """The suspects of one parameter; or none, and why the search for them ended."""
    try:
        return suspects_of(number), ""
    except Exception as error:  # any kind: the evidence must not be lost because the cause is not found
        return [], _reason(error)


def _reason(error: Exception) -> str:
    """A phrase on the error that ended a search."""
    return f"the search ended with {type(error).__name__}: {first_line(error)}"
