"""Any value as JSON, or as a line of text."""

import json
import math
from enum import Enum
from typing import Any

SHOWN = 6  # numbers of a long list that a line of text repeats


def plain(value: Any) -> Any:
    """Returns `value` made of what JSON has: dicts, lists, strings, finite numbers, booleans and None.

    Arrays and array scalars become (nested) lists and numbers, numbers that are not finite None, and whatever else has
    no JSON form its `str`.
    """
    value = builtin(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(value: Any) -> str:
    """Returns `value` as JSON on one line."""
    return json.dumps(plain(value), allow_nan=False)


def builtin(value: Any) -> Any:
    """Returns `value` as an object of Python's own types: an array's list, an enum's name, else its `str`."""
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str | dict | list | tuple) else str(value)


def show(value: Any) -> str:
    """Returns `value` as text for people: six significant digits, the start of a long list."""
    value = builtin(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(show(item) for item in value[:SHOWN])
        return f"[{shown}]" if len(value) <= SHOWN else f"[{shown}, ...] ({len(value)} in all)"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {show(item)}" for key, item in value.items())
    return str(value)
