"""diffsim: differentiable simulation on JAX. Physics as plain functions, trained through the solvers.

`import diffsim` takes no time: its names (`_public.py`), and with them JAX, are imported when the first is asked for.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._public import *  # noqa: F403


class _Package(ModuleType):
    """The package, which imports what it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # of `from diffsim import *`
            return [name for name in dir(self) if not name.startswith("_")]
        if name.startswith("__"):
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        if name != "parameters" and importlib.util.find_spec(f"{__name__}.{name}") is not None:
            return importlib.import_module(f"{__name__}.{name}")
        public = importlib.import_module(f"{__name__}._public")
        vars(self).update({key: value for key, value in vars(public).items() if not key.startswith("_")})
        if name not in vars(self):
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        return vars(self)[name]

    def __setattr__(self, name: str, value: Any) -> None:
        # The function `parameters` lies in a module of that name, which an import of the module would put in its place.
        own = name == "parameters" and isinstance(value, ModuleType)
        super().__setattr__(name, value.parameters if own else value)

    def __dir__(self) -> list[str]:
        public = importlib.import_module(f"{__name__}._public")
        return sorted(name for name in vars(public) if not name.startswith("_"))


sys.modules[__name__].__class__ = _Package
