"""Other packages: their versions, and modules of the extras, which are imported where they are used."""

import importlib
from importlib import metadata
from typing import Any

from ._errors import InputError


def extra(module: str, name: str) -> Any:
    """A module of the extra `name`; raises InputError that says how to install it if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed: pip install 'diffsim[{name}]'") from error


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
