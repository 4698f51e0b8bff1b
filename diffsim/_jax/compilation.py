"""The compilation cache on disk, and a count of compilations with their causes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._errors import InputError

_COMPILED = "/jax/core/compile/backend_compile_duration"


def cache_compilation(folder: str | Path) -> Path:
    """Saves compiled programs in a folder for later processes, and returns its absolute path.

    This turns on JAX's persistent compilation cache for all programs, also those that compile quickly. A program is
    recognised by its operations, shapes and constants, the compile options and XLA flags, the versions of JAX and
    jaxlib, and the type and number of devices. Machines may share the folder only if their CPUs or accelerators are of
    the same type. Only compilation is saved: each process traces its programs. Call it before anything is compiled.
    Nothing is removed from the folder, unless `jax.config.jax_compilation_cache_max_size` is set.

    Args:
        folder: The folder, which is created if necessary.

    Raises:
        InputError: If the folder cannot be created or written.

    Examples:
        >>> folder = ds.compilation.cache_compilation("compiled")
        >>> folder.is_dir(), folder.is_absolute()
        (True, True)
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
    # By default JAX does not save programs that compile within a second, which most small programs do.
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
        signature = _signature(args, kwargs)
        self._now = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        try:
            return self.function(*args, **kwargs)
        finally:
            jax.monitoring.unregister_event_duration_listener(self._listen)
            if self._now:
                self.count, self.seconds = self.count + 1, self.seconds + sum(self._now)
                self.causes.append(self._cause(signature))
            if signature not in self._seen:
                self._seen.append(signature)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            self._now.append(duration_secs)

    def _cause(self, signature: dict) -> str:
        if not self._seen:
            return "first call"
        differences = min((_differences(old, signature) for old in reversed(self._seen)), key=len)
        return "; ".join(differences) or "the same arguments"


def count_compilations(function: Callable) -> Counted:
    """Returns a function that calls `function`, and counts the calls that compiled and their causes.

    Args:
        function: A compiled function. Operations outside of `jit` that are compiled for a new shape count as well.

    Returns:
        The function, with three attributes. `count` is the number of calls that compiled anything, `seconds` the wall
        time of these compilations, and `causes` has a phrase for each such call: "first call"; or the path of each
        argument whose shape, dtype, weak type, sharding or static value differs from that of the most similar earlier
        call, with both values; or "the same arguments", if the cause was a new function object, other data in its
        closure, or another setting of JAX. A Python number is named only if nothing else differs, since it need not be
        static.

    Examples:
        >>> double = ds.compilation.count_compilations(jax.jit(lambda x: 2 * x))
        >>> for x in (np.ones(2), np.zeros(2), np.ones(3)):
        ...     y = double(x)
        ...
        >>> double.count, double.causes
        (2, ['first call', 'args[0] has shape (3,), before (2,)'])
    """
    return Counted(function)


def _signature(args: tuple, kwargs: dict) -> dict[str, dict[str, Any]]:
    """What a program is compiled for, by the path of each argument, such as `args[1].weight` or `rate`."""
    leaves = jax.tree_util.tree_leaves_with_path({"args": args} | kwargs)
    return {path[0].key + jax.tree_util.keystr(path[1:]): _kind(leaf) for path, leaf in leaves}


def _kind(leaf: Any) -> dict[str, Any]:
    """The properties of an argument on which a compiled program may depend."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        properties = {"shape": leaf.shape, "dtype": str(leaf.dtype), "weak type": False}
        properties |= {"sharding": "that of any device"}
        if isinstance(leaf, jax.Array):
            properties |= {"weak type": leaf.weak_type} | ({"sharding": leaf.sharding} if leaf.committed else {})
        return properties
    return {"number" if isinstance(leaf, int | float | complex) else "value": leaf}


def _differences(old: dict, new: dict) -> list[str]:
    """A phrase for each difference of two signatures."""
    phrases = [f"{path} is new" for path in new if path not in old]
    phrases += [f"{path} is gone" for path in old if path not in new]
    numbers = []
    for path in [path for path in new if path in old]:
        for word, value in new[path].items():
            before = old[path].get(word, "another type")
            if value != before:
                (numbers if word == "number" else phrases).append(f"{path} has {word} {value}, before {before}")
    return phrases or numbers
