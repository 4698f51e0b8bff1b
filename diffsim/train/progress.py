"""Progress of a fit on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A context that shows how far a loop of `total` steps has come and its latest loss; silent if not `shown`."""

    def __init__(self, total: int, shown: bool = True):
        self.total, self.shown = total, shown
        self.bar = None
        self.last_line = time.monotonic()

    def __enter__(self):
        if self.shown and sys.stderr.isatty():
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("fit", total=self.total, loss="compiling")
            self.bar.start()
        return self

    def show(self, step: int, loss: float) -> None:
        """Tell that `step` steps are done and what the loss was."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=f"{loss:.4g}")
        elif self.shown and (step == self.total or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES):
            print(f"step {step}/{self.total}  loss {loss:.4g}", file=sys.stderr, flush=True)
            self.last_line = time.monotonic()

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.stop()
