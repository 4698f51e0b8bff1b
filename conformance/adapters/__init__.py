"""Libraries under test: one file for each, imported only when it is asked for."""

import importlib
from types import ModuleType

LIBRARIES = ("diffsim", "diffrax", "jaxonomy", "torchdiffeq", "torchode", "casadi", "scipy")
"""The libraries by name; `NAME_adapter.py` is the file of each."""


def load(library: str) -> ModuleType:
    """Returns the adapter of a library.

    Raises:
        ImportError: If the library is not installed.
    """
    return importlib.import_module(f"{__name__}.{library}_adapter")
