"""The loops of diffrax's solvers as plain `lax.while_loop`s.

equinox makes them reversible by checkpoints, which a replay of recorded steps does not need.
"""

from typing import Any

import equinox.internal as eqxi

write_buffer: Any = eqxi.buffer_at_set
"""`write_buffer(rows, i, row, pred=)` writes a row of a buffer in place."""


def plain_while_loop(*args: Any, **options: Any) -> Any:
    """Returns the result of `equinox.internal.while_loop`, by one `lax.while_loop`, which has no reverse mode."""
    return eqxi.while_loop(*args, **options | {"kind": "lax"})
