"""Chains: named stages, one after the other, whose parameters are trained through all stages that follow."""

from collections import OrderedDict
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import all_leaves
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .ops.correlate_channels_last import ACTIVATION

Stage = Callable[[Array], Array]

_policy = jax.checkpoint_policies.save_only_these_names(ACTIVATION)


class FunctionStage(eqx.Module):
    """A stage of any function of (parameters, picture): `FunctionStage(lambda gain, x: gain * x, jnp.array(2.0))`.

    Examples:
        >>> exposure = ds.image.FunctionStage(lambda gain, x: gain * x, jnp.array(2.0))
        >>> chain = ds.image.Chain(exposure=exposure, gamma=ds.image.Gamma())
        >>> float(chain.pictures(jnp.full((3, 4, 4), 0.25))["exposure"].max())
        0.5
    """

    function: Callable[[PyTree, Array], Array] = eqx.field(static=True)
    parameters: PyTree = None

    def __call__(self, image: Array) -> Array:
        """Returns `function(parameters, image)`."""
        return self.function(self.parameters, image)


class _Function(eqx.Module):
    """A function as a stage without leaves, so that `jax.jit` takes chains as trees of arrays."""

    function: Stage = eqx.field(static=True)

    def __call__(self, image: Array) -> Array:
        return self.function(image)


class Chain(eqx.Module):
    """Stages in the order in which they are named: `Chain(balance=WhiteBalance(), demosaic=DemosaicNetwork(key=key))`.

    A stage is any callable of one picture: those of this package, a layer of `eqx.nn`, `FunctionStage(f, parameters)`,
    a function, compiled or not. The parameters' paths begin with `stages.` and the stage's name. With `remat`, reverse
    mode stores the pictures between stages and the activations of networks, which take longer to compute than to
    store, and computes what else is within a stage again.

    Examples:
        >>> chain = ds.image.Chain(balance=ds.image.WhiteBalance(), demosaic=ds.image.malvar, gamma=ds.image.Gamma())
        >>> chain(jnp.full((8, 8), 0.2)).shape, list(chain.pictures(jnp.full((8, 8), 0.2)))
        ((3, 8, 8), ['balance', 'demosaic', 'gamma'])
        >>> list(ds.parameters(chain))[:3]
        ['stages.balance.black', 'stages.balance.red', 'stages.balance.blue']
    """

    stages: OrderedDict[str, Stage]
    remat: bool = eqx.field(static=True)

    def __init__(self, *, remat: bool = True, **stages: Stage):
        if not stages:
            raise InputError("a chain needs at least one stage")
        self.stages = OrderedDict((name, _Function(f) if all_leaves([f]) else f) for name, f in stages.items())
        self.remat = remat

    def __call__(self, image: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the picture of the last stage."""
        for stage in self.stages.values():
            image = eqx.filter_checkpoint(stage, policy=_policy)(image) if self.remat else stage(image)
        return image

    def pictures(self, image: Float[Array, "..."]) -> OrderedDict[str, Float[Array, "..."]]:
        """Returns the picture of every stage, by its name."""
        pictures = OrderedDict()
        for name, stage in self.stages.items():
            image = pictures[name] = stage(image)
        return pictures

    def replace(self, **stages: Stage) -> "Chain":
        """Returns the chain with other stages of these names.

        Raises:
            InputError: for a name that is none of the chain.
        """
        self._check_known(*stages)
        return Chain(remat=self.remat, **{**self.stages, **stages})

    def append(self, **stages: Stage) -> "Chain":
        """Returns the chain with more stages behind its last.

        Raises:
            InputError: for a name that the chain has already.

        Examples:
            >>> chain = ds.image.Chain(demosaic=ds.image.malvar).append(gamma=ds.image.Gamma())
            >>> list(chain.stages)
            ['demosaic', 'gamma']
        """
        self._check_new(stages)
        return Chain(remat=self.remat, **{**self.stages, **stages})

    def insert(self, before: str, **stages: Stage) -> "Chain":
        """Returns the chain with more stages before the stage of that name.

        Raises:
            InputError: for a `before` that is none of the chain, and for a name that the chain has already.

        Examples:
            >>> chain = ds.image.Chain(demosaic=ds.image.malvar, gamma=ds.image.Gamma())
            >>> list(chain.insert("gamma", color=ds.image.ColorMatrix()).stages)
            ['demosaic', 'color', 'gamma']
        """
        self._check_known(before)
        self._check_new(stages)
        place = list(self.stages).index(before)
        names = list(self.stages.items())
        return Chain(remat=self.remat, **dict(names[:place]), **stages, **dict(names[place:]))

    def without(self, *names: str) -> "Chain":
        """Returns the chain without the stages of these names.

        Raises:
            InputError: for a name that is none of the chain, and if no stage is left.

        Examples:
            >>> list(ds.image.Chain(demosaic=ds.image.malvar, gamma=ds.image.Gamma()).without("gamma").stages)
            ['demosaic']
        """
        self._check_known(*names)
        return Chain(remat=self.remat, **{name: stage for name, stage in self.stages.items() if name not in names})

    def _check_known(self, *names: str) -> None:
        unknown = [name for name in names if name not in self.stages]
        if unknown:
            raise InputError(f"no stage {unknown[0]!r}; the stages are {', '.join(self.stages)}")

    def _check_new(self, stages: dict[str, Stage]) -> None:
        known = [name for name in stages if name in self.stages]
        if known:
            raise InputError(f"the chain has a stage {known[0]!r} already; give another name, or use replace")


def adjoints(
    chain: Chain, image: Float[Array, "..."], loss: Callable[[Array], Float[Array, ""]]
) -> OrderedDict[str, Float[Array, "..."]]:
    """Returns the gradient of the loss with respect to the picture of every stage, by its name.

    Args:
        chain: the stages.
        image: the input of the first stage.
        loss: of the picture of the last stage.

    Examples:
        >>> chain = ds.image.Chain(double=lambda x: 2 * x, square=lambda x: x**2)
        >>> gradients = ds.image.adjoints(chain, jnp.full((3, 2, 2), 0.5), jnp.sum)
        >>> {name: float(gradient.mean()) for name, gradient in gradients.items()}
        {'double': 2.0, 'square': 1.0}
    """

    def run(offsets):
        x = image
        for name, stage in chain.stages.items():
            x = stage(x) + offsets[name]
        return loss(x)

    shapes = jax.eval_shape(chain.pictures, image)
    return jax.grad(run)(OrderedDict((name, jnp.zeros(x.shape, x.dtype)) for name, x in shapes.items()))
