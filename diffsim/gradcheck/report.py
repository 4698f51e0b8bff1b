"""The report of a gradient check: the evidence on every parameter, as a table and for JSON."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ..io.json_encoding import plain
from .table import table
from .verdict import SEVERITY, Row


class Worst(NamedTuple):
    """Where a check is worst.

    Attributes:
        path: The parameter's name.
        index: The entry.
        disagreement: The relative disagreement there.
    """

    path: str
    # The field hides the method of tuples of the same name, which nothing uses here.
    index: tuple[int, ...] | str | None  # pyright: ignore[reportIncompatibleMethodOverride]
    disagreement: float


@dataclass(frozen=True)
class GradientCheck:
    """The evidence on the gradient of one function at one point. `str()` gives a table.

    Attributes:
        value: The value of the function.
        rows: The evidence on each parameter.
        dot_product: Of a thorough check, the relative difference between the gradient times a direction and forward
            mode along it.
        hints: Remarks on the function.

    Examples:
        >>> check = ds.check_gradients(lambda x, y: jnp.sin(x) * y, (1.0, 2.0))
        >>> check.ok, [(row.name, row.verdict) for row in check.rows]
        (True, [('args[0]', 'agrees'), ('args[1]', 'agrees')])
    """

    value: float
    rows: tuple[Row, ...]
    dot_product: float | None = None
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every parameter's verdict is "agrees"."""
        return all(row.verdict == "agrees" for row in self.rows)

    @property
    def worst(self) -> Worst:
        """The parameter with the worst verdict, and of those the one with the largest disagreement."""
        row = max(
            self.rows,
            key=lambda row: (SEVERITY.index(row.verdict), np.nan_to_num(row.disagreement, nan=np.inf)),
        )
        return Worst(row.name, row.index, row.disagreement)

    def to_dict(self) -> dict[str, Any]:
        """The check as dictionaries, lists, strings and finite numbers, for JSON.

        Numbers that are not finite become None.
        """
        rows = [asdict(row) for row in self.rows]
        fields = {"ok": self.ok, "value": self.value, "worst": self.worst._asdict(), "rows": rows}
        return plain(fields | {"dot_product": self.dot_product, "hints": self.hints})

    def __str__(self) -> str:
        return "\n".join([table(self.rows), *self.hints])
