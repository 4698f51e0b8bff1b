"""Progress of a fit on stderr: a bar on a terminal, plain lines elsewhere."""

import functools
import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0


class _ActivityColumn(ProgressColumn):
    """The activity of a fit before its first step, and its duration: what it compiles."""

    def render(self, task) -> Text:
        return Text(f"{task.fields['activity']}, {task.elapsed or 0:.0f} s" if task.fields["activity"] else "")


class ProgressBar:
    """A context that shows how many of `total` steps are made and the latest loss; silent if not `shown`.

    The `total` is None where nobody knows how many there will be.
    """

    def __init__(self, total: int | None, shown: bool = True):
        self.total, self.shown = total, shown
        self.bar = None
        self.last_line = time.monotonic()

    def __enter__(self):
        if self.shown and sys.stderr.isatty():
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                _ActivityColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("fit", total=self.total, loss="", activity="")
            self.bar.start()
        return self

    @contextmanager
    def compiling(self, function: Callable) -> Iterator[None]:
        """A context that shows what is compiled and for how long; without a terminal once, and only if it takes long.

        Args:
            function: The user's function, by whose name the program is known.
        """
        with _without_garbage_collection(), self._showing(f"compiling {title(function)}"):
            yield

    @contextmanager
    def _showing(self, activity: str) -> Iterator[None]:
        if self.bar is not None:
            self.bar.update(self.task, activity=activity)
            yield
            self.bar.reset(self.task, loss="", activity="")
            return
        line = f"{activity}, {_SECONDS_BETWEEN_LINES:.0f} s so far"
        timer = threading.Timer(_SECONDS_BETWEEN_LINES, lambda: print(line, file=sys.stderr, flush=True))
        timer.daemon = True
        if self.shown:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def show(self, step: int, loss: float | np.floating, *, last: bool = False) -> None:
        """Shows the number of steps made and the loss of the last one; `last` says that no more follow."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=f"loss {loss:.4g}")
        elif self.shown and (last or step == self.total or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES):
            of = "" if self.total is None else f"/{self.total}"
            print(f"step {step}{of}  loss {loss:.4g}", file=sys.stderr, flush=True)
            self.last_line = time.monotonic()

    def say(self, message: str) -> None:
        """Shows a line on stderr, such as how a fit ended."""
        if self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        elif self.shown:
            print(message, file=sys.stderr, flush=True)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A context without garbage collection, which while tracing visits many new objects and frees none of them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def title(function: Callable) -> str:
    """The name of a function with that of its file, as in `trebuchet.misses`."""
    plain = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = plain.func
    name = getattr(plain, "__name__", type(plain).__name__).strip("<>")
    module = inspect.getmodule(plain if hasattr(plain, "__name__") else type(plain))
    file = getattr(module, "__file__", None)
    return f"{inspect.getmodulename(file)}.{name}" if file else name
