"""Compilation: results kept on disk for later processes, and what it was that made a function compile again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._errors import InputError

_COMPILED = "/jax/core/compile/backend_compile_duration"


def cache_compilation(folder: str | Path) -> Path:
    """Keeps what JAX compiles from now on in a folder, made if need be, for later processes; gives its whole path.

    It turns JAX's persistent cache on for every program, however small or fast to compile. A program is found again by
    its operations and shapes, constants in it included, the compile options and XLA flags, the versions of JAX and
    jaxlib, and the kind and number of devices. Another machine may share the folder only if its CPU or accelerator is
    the same kind. What is saved is compiling: a program is still traced in each process. Call it before anything is
    compiled. Nothing is ever removed from the folder, unless by `jax.config.jax_compilation_cache_max_size`.

    Raises InputError if the folder cannot be made or written.
    """
    path = Path(folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial = path / f".write-{os.getpid()}"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"{path} cannot keep compiled programs: {error.strerror}; give a folder to write in"
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    # JAX by itself leaves out what compiles within a second, which is most of a session's many small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


class Counted:
    """A function that counts how often it compiled; see `count_compilations`."""

    def __init__(self, function: Callable):
        self.function = function
        self.count, self.seconds = 0, 0.0
        self.causes, self._now = [], []
        self._seen: list[dict[str, dict[str, Any]]] = []

    def __call__(self, *args, **kwargs):
        found = _signature(args, kwargs)
        self._now = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        try:
            return self.function(*args, **kwargs)
        finally:
            jax.monitoring.unregister_event_duration_listener(self._listen)
            if self._now:
                self.count, self.seconds = self.count + 1, self.seconds + sum(self._now)
                self.causes.append(self._cause(found))
            if found not in self._seen:
                self._seen.append(found)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            self._now.append(duration_secs)

    def _cause(self, found: dict) -> str:
        if not self._seen:
            return "first call"
        return (
            "; ".join(min((_differences(old, found) for old in reversed(self._seen)), key=len)) or "the same arguments"
        )


def count_compilations(function: Callable) -> Counted:
    """A function that calls `function`, counts how often that compiled, and tells which argument was the cause.

    Its `count` is the number of calls that compiled anything, `seconds` the wall time it took, and `causes` has a
    phrase for each such call: "first call"; or the path of each argument whose shape, dtype, weak type, sharding or
    static value differs from that of the call most like it, with both values; or "the same arguments", where a new
    function object, other data closed over, or another setting of JAX was the cause. A plain number is named only if
    nothing else differs, for it need not be static. Meant for a compiled `function`: an operation outside of `jit`
    that is compiled for a new shape counts as well.
    """
    return Counted(function)


def _signature(args: tuple, kwargs: dict) -> dict[str, dict[str, Any]]:
    """What a program is compiled for, of each argument by its path, as in `args[1].weight` or `rate`."""
    leaves = jax.tree_util.tree_leaves_with_path({"args": args} | kwargs)
    return {path[0].key + jax.tree_util.keystr(path[1:]): _kind(leaf) for path, leaf in leaves}


def _kind(leaf: Any) -> dict[str, Any]:
    """What of an argument a program depends on, or may depend on."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        found = {"shape": leaf.shape, "dtype": str(leaf.dtype), "weak type": False, "sharding": "that of any device"}
        if isinstance(leaf, jax.Array):
            found |= {"weak type": leaf.weak_type} | ({"sharding": leaf.sharding} if leaf.committed else {})
        return found
    return {"number" if isinstance(leaf, int | float | complex) else "value": leaf}


def _differences(old: dict, new: dict) -> list[str]:
    """A phrase for each thing in which two signatures differ."""
    found = [f"{path} is new" for path in new if path not in old]
    found += [f"{path} is gone" for path in old if path not in new]
    numbers = []
    for path in [path for path in new if path in old]:
        for word, value in new[path].items():
            before = old[path].get(word, "another type")
            if value != before:
                (numbers if word == "number" else found).append(f"{path} has {word} {value}, before {before}")
    return found or numbers
