"""Loops of diffrax's solvers, run without the checkpoints by which equinox makes them reversible."""

from typing import Any

import equinox.internal as eqxi

write_buffer: Any = eqxi.buffer_at_set
"""`write_buffer(rows, i, row, pred=)`: a row of a buffer written in place."""


def plain_while_loop(*args: Any, **options: Any) -> Any:
    """Returns what `equinox.internal.while_loop` does, as one `lax.while_loop`, which has no reverse mode."""
    return eqxi.while_loop(*args, **options | {"kind": "lax"})
