"""Modules that come with an extra of the installation, imported where they are used."""

import importlib
from typing import Any

from ._errors import InputError


def extra(module: str, name: str) -> Any:
    """A module of the extra `name`; raises InputError that says how to install it if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed: pip install 'diffsim[{name}]'") from error
