"""Losses over many trajectories: in blocks that fit the caches, with the gradient taken inside each block."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .._trees import common_length
from .._types import Model, Scalar
from .sharding import AXIS, ROWS, WHOLE, on_each


def batched_mean(loss: Callable, *, batch_size: int = 64, devices: Sequence | None = None) -> Callable:
    """The mean of `loss(model, item)` over a batch, as a function of (model, items) that is fast and small.

    `items` is a tree of arrays whose leading axis counts the items. `batch_size` of them at a time are mapped together, and
    the gradient in the model is taken there and then: the memory is that of one block, and a block's states stay in
    the caches. The result does not depend on `batch_size`, but for rounding. Trajectories that take long hold up their
    block: `cost` (shape (items,), for instance steps taken before) puts like with like.

    With several `devices` the blocks are dealt to them in turn and run at the same time, and the sums are added up at
    the end. A CPU counts as one device, whose cores share little of a block's work; to use them all, say
    `jax.config.update("jax_num_cpu_devices", cores)` before anything else and pass `devices=jax.devices("cpu")`.

    The gradient in `items` is not provided (zero). Reverse mode, `jit` and `vmap` work; forward mode does not.
    Raises InputError for an empty batch, arrays that do not count the same items, or an empty list of devices.

    Good values: 16 to 256 for small states on a CPU, the whole batch on a GPU; `max_steps` of a solve not far above
    what it takes, for each block clears a record of that length.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: give at least one item")
    if devices is not None and not len(devices):
        raise InputError("devices is empty: name at least one, or None for the one at hand")

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
        return _blocked(one, min(batch_size, count), count, devices, trained, arrays, items)

    return mean


def _blocked(loss: Callable, size: int, count: int, devices, trained, arrays, items) -> Scalar:
    """The mean over blocks of `size` items, the last ones filled up with items that do not count."""
    blocks = -(-count // size)
    if devices is not None:
        blocks = -(-blocks // len(devices)) * len(devices)

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

    def summed(each):
        """The sum over all blocks of what `each` gives for one of them."""

        def over(trained, arrays, rows):
            first = jax.eval_shape(each, trained, arrays, jax.tree.map(lambda x: x[0], rows))
            start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
            add = lambda sums, block: (jax.tree.map(jnp.add, sums, each(trained, arrays, block)), None)
            return lax.scan(add, start, rows)[0]

        return over if devices is None else _dealt(over, devices, blocks)

    @jax.custom_vjp
    def total(trained, arrays, items):
        return summed(of_block)(trained, arrays, in_rows(items))

    def forward(trained, arrays, items):
        return summed(jax.value_and_grad(of_block))(trained, arrays, in_rows(items))

    def backward(gradient, bar):
        return jax.tree.map(lambda g: bar * g, gradient), None, None

    total.defvjp(forward, backward)
    return total(trained, arrays, items)


def _dealt(over: Callable, devices: Sequence, blocks: int) -> Callable:
    """`over` rows of blocks, dealt to the devices like cards, so that blocks that cost alike go to different ones."""

    def share(trained, arrays, rows):
        return lax.psum(over(trained, arrays, rows), AXIS)

    def dealt(trained, arrays, rows):
        order = np.arange(blocks).reshape(-1, len(devices)).T.ravel()
        rows = jax.tree.map(lambda x: x[order], rows)
        return on_each(share, devices, (WHOLE, WHOLE, ROWS))(trained, arrays, rows)

    return dealt
