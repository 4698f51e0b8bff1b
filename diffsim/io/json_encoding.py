"""Any value as something that JSON, or a line of text, can hold."""

import math
from enum import Enum
from typing import Any

SHOWN = 6  # numbers of a long list that a line of text repeats


def plain(value: Any) -> Any:
    """Returns `value` made of dicts, lists, strings, numbers, booleans and None only.

    Arrays and array scalars become (nested) lists and numbers, whatever else has no JSON form its `str`.
    JSON has no non-finite numbers: they become the strings "NaN", "Infinity" and "-Infinity", which `float`
    in Python and `Number` in JavaScript read back.
    """
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def show(value: Any) -> str:
    """Returns `value` as text for people: six significant digits, the start of a long list."""
    value = plain(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        shown = ", ".join(show(item) for item in value[:SHOWN])
        return f"[{shown}]" if len(value) <= SHOWN else f"[{shown}, ...] ({len(value)} in all)"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {show(item)}" for key, item in value.items())
    return str(value)
