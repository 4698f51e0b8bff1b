"""Mean losses over many trajectories: in blocks that fit the caches, with the gradient accumulated block by block."""

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
from .sharding import AXIS, REPLICATED, ROWS, on_each_device


def batched_mean(loss: Callable, *, batch_size: int = 64, devices: Sequence | None = None) -> Callable:
    """The mean of `loss(model, item)` over many items, as a function of (model, items), in blocks of `batch_size`.

    The items of a block are mapped together, and the gradient with respect to the model is taken block by block. So
    the memory is that of one block, whose states stay in the caches. The result does not depend on `batch_size` but
    for rounding. The gradient with respect to the items is zero. Reverse mode, `jit` and `vmap` work; forward mode
    does not.

    Good values: 16 to 256 for small states on a CPU, all items on a GPU; for a solve, `max_steps` not far above the
    steps that it takes, since each block allocates a record of that length.

    Args:
        loss: The loss of one item, a scalar.
        batch_size: The number of items of a block. 64 small states fit the caches of a CPU.
        devices: Devices that share the blocks, dealt in turn and run at the same time. A CPU counts as one device; to
            use all its cores, call `jax.config.update("jax_num_cpu_devices", cores)` before any other function of JAX
            and pass `devices=jax.devices("cpu")`.

    Returns:
        A function `mean(model, items, cost=None)`. `items` is a tree of arrays whose leading axis counts the items.
        `cost`, shape (items,), sorts them, so that those that take equally long share a block: a block lasts as long
        as its slowest item. The number of steps of an earlier solve is a good cost.

    Raises:
        InputError: For a batch size below 1, an empty list of devices, no items, and arrays of unequal length.

    Examples:
        >>> mean = ds.train.batched_mean(lambda slope, x: (slope * x) ** 2, batch_size=4)
        >>> value, slope = jax.value_and_grad(mean)(jnp.array(3.0), jnp.arange(10.0))
        >>> print(f"{value:.3f} {slope:.3f}")  # 9 * 28.5, 6 * 28.5
        256.500 171.000
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: give at least one item")
    if devices is not None and not len(devices):
        raise InputError("devices is empty: name at least one, or None for the default device")

    def mean(model: Model, items, cost: Float[Array, " items"] | None = None) -> Scalar:
        count = common_length(items, "items")
        if count is None:
            raise InputError("items is empty: there is no batch to take the mean of")
        if cost is not None:
            order = jnp.argsort(cost)
            items = jax.tree.map(lambda rows: rows[order], items)
        trained, fixed = eqx.partition(model, eqx.is_inexact_array)
        arrays, static = eqx.partition(fixed, eqx.is_array)
        item_loss = lambda trained, arrays, item: loss(eqx.combine(trained, arrays, static), item)
        return _mean_over_blocks(item_loss, min(batch_size, count), count, devices, trained, arrays, items)

    return mean


def _mean_over_blocks(loss: Callable, size: int, count: int, devices, trained, arrays, items) -> Scalar:
    """The mean over blocks of `size` items, the last ones padded with items of weight zero."""
    blocks = -(-count // size)
    if devices is not None:
        blocks = -(-blocks // len(devices)) * len(devices)

    def split(rows):
        padding = jnp.broadcast_to(rows[:1], (blocks * size - count, *rows.shape[1:]))
        return jnp.concatenate([rows, padding]).reshape(blocks, size, *rows.shape[1:])

    def in_blocks(items):
        weights = jnp.where(jnp.arange(blocks * size) < count, 1 / count, 0.0)
        return jax.tree.map(split, items), weights.reshape(blocks, size)

    def block_loss(trained, arrays, block):
        items, weights = block
        losses = jax.vmap(loss, in_axes=(None, None, 0))(trained, arrays, items)
        # Not a product alone: padding whose loss is not finite must not count either.
        return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0))

    def sum_over_blocks(function):
        """The sum over all blocks of `function` of one of them."""

        def total(trained, arrays, rows):
            shapes = jax.eval_shape(function, trained, arrays, jax.tree.map(lambda x: x[0], rows))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            add = lambda sums, block: (jax.tree.map(jnp.add, sums, function(trained, arrays, block)), None)
            return lax.scan(add, zeros, rows)[0]

        return total if devices is None else _on_devices(total, devices, blocks)

    @jax.custom_vjp
    def mean(trained, arrays, items):
        return sum_over_blocks(block_loss)(trained, arrays, in_blocks(items))

    def forward(trained, arrays, items):
        return sum_over_blocks(jax.value_and_grad(block_loss))(trained, arrays, in_blocks(items))

    def backward(gradient, cotangent):
        return jax.tree.map(lambda g: cotangent * g, gradient), None, None

    mean.defvjp(forward, backward)
    return mean(trained, arrays, items)


def _on_devices(total: Callable, devices: Sequence, blocks: int) -> Callable:
    """The sum `total` over blocks that are dealt to the devices in turn, so that costly neighbors are spread out."""

    def device_share(trained, arrays, rows):
        return lax.psum(total(trained, arrays, rows), AXIS)

    def all_blocks(trained, arrays, rows):
        order = np.arange(blocks).reshape(-1, len(devices)).T.ravel()
        rows = jax.tree.map(lambda x: x[order], rows)
        return on_each_device(device_share, devices, (REPLICATED, REPLICATED, ROWS))(trained, arrays, rows)

    return all_blocks
