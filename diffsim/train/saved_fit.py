"""What a checkpoint of a fit tells without the code that wrote it: its settings, losses and parameters."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Model
from ..io.checkpoint import read
from ..parameters import Parameter, parameters, replace
from ..parameters.transform import to_bounded
from .history import History


class SavedFit(NamedTuple):
    """A fit as its checkpoint holds it.

    Attributes:
        step: The number of steps made.
        history: Its history up to there, without the state of the optimizer.
        parameters: The trained parameters by path, within their bounds; with a validation loss those of the best model.
        settings: What the fit was called with: the name of the `loss`, `steps`, `steps_per_call` and others, and for
            each of the `parameters` its `unit` and `bounds`, None for no bound.
        versions: Those of the format, of diffsim, jax and optax that wrote the file.

    Examples:
        >>> loss = lambda slope, x: jnp.mean((slope * x - 2.0 * x) ** 2)
        >>> batches = jr.uniform(jr.key(0), (100, 32))
        >>> _ = ds.fit(loss, jnp.array(0.0), optax.sgd(0.5), batches, checkpoint="fit.npz")
        >>> saved = ds.train.read_fit("fit.npz")
        >>> saved.step, saved.history.loss.shape, saved.settings["steps_per_call"]
        (100, (100,), 50)
        >>> print(f"{saved.model(jnp.array(0.0)):.3f}")
        2.000
    """

    step: int
    history: History
    parameters: dict[str, Float[Array, "..."]]
    settings: dict[str, Any]
    versions: dict[str, int | str]

    def model(self, like: Model) -> Model:
        """Returns a model like the one that was trained, with the saved parameters in place of its own.

        Raises:
            InputError: If the model lacks one of them, or has it with another shape.
        """
        return replace(like, self.parameters)


def read_fit(path: str | Path) -> SavedFit:
    """Returns the fit in a checkpoint that `fit` wrote, with its settings and history.

    To go on with it under another optimizer, train `read_fit(path).model(like)`.

    Raises:
        InputError: For a file that is damaged, or holds no fit.

    Examples:
        >>> _ = ds.fit(lambda x, _: x**2, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(9), checkpoint="other.npz")
        >>> print(ds.train.read_fit("other.npz").history.loss[:3])
        [1.     0.25   0.0625]
    """
    contents = read(path)
    leaves = {name: leaf.value for name, leaf in contents.leaves.items()}
    settings = contents.about.get("fit")
    if settings is None or "losses" not in leaves:
        raise InputError(f"{path} holds no fit: give a file that fit(..., checkpoint=) wrote, or read it with ds.load")
    done = int(leaves["done"])
    part = "best" if int(leaves.get("best.call", 0)) else "state"
    free = {name: leaves[f"{part}.trained.{name}" if name else f"{part}.trained"] for name in settings["parameters"]}
    values = {name: to_bounded(_parameter(name, x, settings["parameters"][name])) for name, x in free.items()}
    calls = -(-done // settings["steps_per_call"])
    validation = leaves["validation"][:calls] if settings["has_validation"] else None
    seconds, dropped = float(leaves["seconds"]), int(np.sum(leaves["dropped"][:done]))
    history = History(leaves["losses"][:done], seconds, 0.0, dropped, validation)
    return SavedFit(done, history, values, settings, contents.versions)


def described(trained: Model) -> dict[str, dict]:
    """Unit and bounds of each parameter by path, as the file has them."""
    bound = lambda x: float(x) if np.isfinite(x) else None
    entries = parameters(trained).items()
    return {path: {"unit": entry.unit, "bounds": [bound(x) for x in entry.bounds]} for path, entry in entries}


def _parameter(path: str, value: np.ndarray, about: dict) -> Parameter:
    low, high = about["bounds"]
    return Parameter(
        path, jnp.asarray(value), about["unit"], (-np.inf if low is None else low, np.inf if high is None else high)
    )
