"""Progress of a fit on stderr: a bar on a terminal, plain lines elsewhere."""

import functools
import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0


class _Activity(ProgressColumn):
    """What a fit is at: its loss or, with the seconds since it began, what compiles."""

    def render(self, task) -> Text:
        return Text(f"{task.fields['doing']}, {task.elapsed or 0:.0f} s" if task.fields["doing"] else "")


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
                TextColumn("{task.fields[loss]}"),
                _Activity(),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("fit", total=self.total, loss="", doing="")
            self.bar.start()
        return self

    @contextmanager
    def compiling(self, function: Callable) -> Iterator[None]:
        """A context that tells what is compiled, and for how long: without a terminal, once and only if it takes long.

        `function` is what the user knows it by.
        """
        with _without_collection(), self._telling(f"compiling {title(function)}"):
            yield

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        if self.bar is not None:
            self.bar.update(self.task, doing=what)
            yield
            self.bar.reset(self.task, loss="", doing="")
            return
        line = f"{what}, {_SECONDS_BETWEEN_LINES:.0f} s so far"
        late = threading.Timer(_SECONDS_BETWEEN_LINES, lambda: print(line, file=sys.stderr, flush=True))
        late.daemon = True
        if self.shown:
            late.start()
        try:
            yield
        finally:
            late.cancel()

    def show(self, step: int, loss: float, *, last: bool = False) -> None:
        """Tell that `step` steps are done and what the loss was; `last`, that there are no more."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=f"loss {loss:.4g}")
        elif self.shown and (last or step == self.total or time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES):
            print(f"step {step}/{self.total}  loss {loss:.4g}", file=sys.stderr, flush=True)
            self.last_line = time.monotonic()

    def say(self, message: str) -> None:
        """Show a line on stderr, such as how a fit ended."""
        if self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        elif self.shown:
            print(message, file=sys.stderr, flush=True)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def _without_collection() -> Iterator[None]:
    """A context without garbage collection: tracing makes objects and keeps them, through which it goes in vain."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
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
