"""A policy's numbers in a file, by their names."""

from pathlib import Path
from typing import Any

import numpy as np

from .._errors import InputError
from .._types import Model
from ..parameters import parameters, replace


def save_policy(policy: Model, path: Path) -> None:
    """Writes the arrays of a policy to a .npz file. Raises InputError, and writes nothing, if one is not finite."""
    values: dict[str, Any] = {name: np.asarray(entry.value) for name, entry in parameters(policy).items()}
    _check_finite(values, path)
    np.savez(path, **values)


def load_policy(policy: Model, path: Path) -> Model:
    """The policy with the arrays of a file that `save_policy` wrote for one of its kind.

    Raises InputError if the file is no checkpoint, holds a network of other names or sizes, or is not finite.
    """
    known = {name: np.shape(entry.value) for name, entry in parameters(policy).items()}
    try:
        with np.load(path) as file:
            given = {name: file[name] for name in file.files}
    except (ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path} is no checkpoint: give the checkpoint.npz of a run of this scenario") from error
    wrong = [n for n in {**known, **given} if n not in known or n not in given or given[n].shape != known[n]]
    if wrong:
        raise InputError(f"{path} does not hold this scenario's network: '{wrong[0]}' is missing, new or misshapen")
    _check_finite(given, path)
    return replace(policy, given)


def _check_finite(values, path: Path) -> None:
    bad = [name for name, value in values.items() if not np.all(np.isfinite(value))]
    if bad:
        raise InputError(f"{path}: '{bad[0]}' is not finite, so that the policy decides nothing")
