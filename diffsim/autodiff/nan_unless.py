"""Results that do not exist: NaN in value and derivative, without effect on anything that does not use them."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool

from .._jax.custom_rule import custom_jvp
from .._jax.linear_map import linear_map
from .._types import State


def defined(ok: Bool[Array, "..."], tree: State) -> State:
    """The tree where `ok`; elsewhere NaN, with a derivative that is NaN too, in both modes.

    A cotangent of zero remains zero, so that a loss that leaves out a failed trajectory has the gradient of the others.

    Args:
        ok: One boolean, or one for each row of the leaves.
        tree: A tree of arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) > 1 and not any(jnp.ndim(x) for x in leaves) and len({jnp.result_type(x) for x in leaves}) == 1:
        # Scalars are stacked, so that there is one operation for all of them.
        return jax.tree.unflatten(structure, jnp.unstack(_defined(ok, jnp.stack(leaves))))
    return jax.tree.unflatten(structure, [_defined(ok, x) for x in leaves])


def _rows(ok, like):
    """`ok` with trailing axes of length 1, to broadcast against `like`."""
    return jnp.reshape(ok, jnp.shape(ok) + (1,) * (jnp.ndim(like) - jnp.ndim(ok)))


@custom_jvp
def _defined(ok, x):
    return jnp.where(_rows(ok, x), x, jnp.nan)


@_defined.defjvp
def _tangent(primals, tangents):
    ok, x = primals
    if isinstance(tangents[1], SymbolicZero):
        return _defined(ok, x), jnp.where(_rows(ok, x), 0.0, jnp.nan).astype(x.dtype)
    return _defined(ok, x), linear_map(_apply, _transpose, [ok], [tangents[1]])[0]


def _apply(residuals, inputs):
    (ok,), (tangent,) = residuals, inputs
    return [jnp.where(_rows(ok, tangent), tangent, jnp.nan)]


def _transpose(residuals, cotangents):
    (ok,), (cotangent,) = residuals, cotangents
    return [jnp.where(_rows(ok, cotangent) | (cotangent == 0), cotangent, jnp.nan)]
