"""Losses over many trajectories: in blocks that fit the caches, with the gradient taken inside each block."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .._trees import common_length
from .._types import Model, Scalar


def in_blocks(loss: Callable, *, size: int = 64) -> Callable:
    """The mean of `loss(model, item)` over a batch, as a function of (model, items) that is fast and small.

    `items` is a tree of arrays whose leading axis counts the items. `size` of them at a time are mapped together, and
    the gradient in the model is taken there and then: the memory is that of one block, and a block's states stay in
    the caches. The result does not depend on `size`, but for rounding. Trajectories that take long hold up their
    block: `cost` (shape (items,), for instance steps taken before) puts like with like.

    The gradient in `items` is not provided (zero). Reverse mode, `jit` and `vmap` work; forward mode does not.
    Raises InputError for an empty batch, or arrays that do not count the same items.

    Good values: 16 to 256 for small states on a CPU, the whole batch on a GPU.
    """
    if size < 1:
        raise InputError(f"size={size}: a block holds at least one item")

    def mean(model: Model, items, cost: Float[Array, " items"] | None = None) -> Scalar:
        count = common_length(items, "items")
        if count is None:
            raise InputError("items is empty: there is no batch to take the mean of")
        if cost is not None:
            order = jnp.argsort(cost)
            items = jax.tree.map(lambda rows: rows[order], items)
        trained, fixed = eqx.partition(model, eqx.is_inexact_array)
        arrays, static = eqx.partition(fixed, eqx.is_array)
        one = lambda trained, arrays, item: loss(eqx.combine(trained, arrays, static), item)
        return _blocked(one, min(size, count), count, trained, arrays, items)

    return mean


def _blocked(loss: Callable, size: int, count: int, trained, arrays, items) -> Scalar:
    """The mean over blocks of `size` items, the last one filled up with items that do not count."""
    blocks = -(-count // size)

    def split(rows):
        filler = jnp.broadcast_to(rows[:1], (blocks * size - count, *rows.shape[1:]))
        return jnp.concatenate([rows, filler]).reshape(blocks, size, *rows.shape[1:])

    def in_rows(items):
        weights = jnp.where(jnp.arange(blocks * size) < count, 1 / count, 0.0)
        return jax.tree.map(split, items), weights.reshape(blocks, size)

    def of_block(trained, arrays, block):
        items, weights = block
        losses = jax.vmap(loss, in_axes=(None, None, 0))(trained, arrays, items)
        # Not a product alone: a filler whose loss is not finite must not count either.
        return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0))

    @jax.custom_vjp
    def total(trained, arrays, items):
        return jnp.sum(lax.map(lambda block: of_block(trained, arrays, block), in_rows(items)))

    def forward(trained, arrays, items):
        each = lambda block: jax.value_and_grad(of_block)(trained, arrays, block)
        rows = in_rows(items)
        first = jax.eval_shape(each, jax.tree.map(lambda x: x[0], rows))
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
        return lax.scan(lambda sums, block: (jax.tree.map(jnp.add, sums, each(block)), None), start, rows)[0]

    def backward(gradient, bar):
        return jax.tree.map(lambda g: bar * g, gradient), None, None

    total.defvjp(forward, backward)
    return total(trained, arrays, items)
