"""Padding beyond the edge of a picture, whose adjoint adds the padding back to where it came from, row by row.

Differentiated by rule, every padded strip would become a full picture of zeros around it.
"""

from itertools import pairwise

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Real

from ..._errors import InputError
from ..._jax.buffers import materialize
from ..._jax.linear_pair import linear_pair

MODES = {"reflect": "reflect", "edge": "edge", "zero": "constant"}  # as `jnp.pad` calls them


def pad(image: Real[Array, "c h w"], rows: int, columns: int, edge: str = "reflect") -> Real[Array, "c h2 w2"]:
    """Returns the picture with `rows` more above and below and `columns` more on both sides.

    Args:
        image: the picture.
        rows: to add on each side.
        columns: to add on each side.
        edge: "reflect" mirrors the picture about its outermost pixels, "edge" repeats them, "zero" adds zeros.

    Raises:
        InputError: for an unknown `edge`, and for a picture too small to mirror.
    """
    if edge not in MODES:
        raise InputError(f"edge={edge!r}: give one of {', '.join(MODES)}")
    if edge == "reflect" and (rows >= image.shape[1] or columns >= image.shape[2]):
        size = f"{image.shape[1]} x {image.shape[2]}"
        raise InputError(f"a picture of {size} pixels is too small to mirror {rows} x {columns} of them at its edge")
    return widen(image, rows=rows, columns=columns, edge=edge)


def _widen(image, *, rows: int, columns: int, edge: str):
    edges = [(0, 0)] * (image.ndim - 2) + [(rows, rows), (columns, columns)]
    return jnp.pad(image, edges, mode=MODES[edge])


def _fold(image, *, rows: int, columns: int, edge: str):
    """The adjoint of `_widen`: the middle, to which the padding around it is added where it came from."""
    above, middle, below = _thirds(image, rows, -2)
    if edge == "zero":
        return _thirds(middle, columns, -1)[1]
    above, middle, below = (_inward(*_thirds(x, columns, -1), -1, edge) for x in (above, middle, below))
    return _inward(above, middle, below, -2, edge)


def _thirds(image, reach: int, axis: int):
    """The first `reach` of a picture's rows or columns, those between, and the last `reach`."""
    stops = [0, reach, image.shape[axis] - reach, image.shape[axis]]
    return [lax.slice_in_dim(image, a, b, axis=axis) for a, b in pairwise(stops)]


def _inward(before, middle, after, axis: int, edge: str):
    """The middle with what lies before and after it added: mirrored about its outermost pixels, or all onto them."""
    last = middle.shape[axis] - 1
    if edge == "edge":
        before, after = (x.sum(axis, keepdims=True) for x in (before, after))
        places = 0, last
    else:
        before, after = (jnp.flip(x, axis) for x in (before, after))
        places = 1, last - after.shape[axis]
    for part, at in zip((before, after), places, strict=True):
        old = lax.slice_in_dim(middle, at, at + part.shape[axis], axis=axis)
        middle = lax.dynamic_update_slice_in_dim(materialize(middle), materialize(old + part), at, axis)
    return middle


def _widened(shape: tuple[int, ...], *, rows: int, columns: int, edge: str) -> tuple[int, ...]:
    return *shape[:-2], shape[-2] + 2 * rows, shape[-1] + 2 * columns


def _folded(shape: tuple[int, ...], *, rows: int, columns: int, edge: str) -> tuple[int, ...]:
    return *shape[:-2], shape[-2] - 2 * rows, shape[-1] - 2 * columns


widen, _ = linear_pair(_widen, _widened, _fold, _folded)
