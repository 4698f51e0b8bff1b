"""A plot of a fit that is redrawn on the terminal while the fit runs."""

import time
from datetime import timedelta

import numpy as np
import optax
from jaxtyping import Bool, Float
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .._errors import InputError
from .loggers import rates_of
from .options import FitProgress

SECONDS_BETWEEN_FRAMES = 0.1
SECONDS_BETWEEN_LINES = 5.0  # where there is no terminal
LOSS, VALIDATION = "cyan", "yellow"
MARGIN = 10  # characters to the left of the curve, for the numbers of its axis
# The bits of a braille character, whose dots are 4 rows of 2.
BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


class LivePlot:
    """A callback of a fit that draws the loss on the terminal while the fit runs.

    It draws the loss of the steps, on a logarithmic scale if all are positive, and averaged on that scale where several
    share a column; the validation losses as dots; and a line of numbers: step, loss, validation loss, learning rate,
    steps per second since the first call, and the time left at this pace. Without a terminal that can show it, it
    prints that line every five seconds and after the last step. Use it as a context, and turn the fit's own progress
    bar off, which draws in the same place.

    Args:
        learning_rate: The schedule of the optimizer, if the rate is to be shown too. It counts all steps, also those
            that are dropped.
        height: The number of lines of the curve.
        console: Where to draw; by default stderr.

    Raises:
        InputError: For a height below 2, and if it is called outside of its context.

    Examples:
        >>> loss, batches = lambda x, _: x**2, jnp.zeros(200)
        >>> with ds.train.LivePlot() as plot:
        ...     x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(1e-2), batches, progress=False, callback=plot)
    """

    def __init__(
        self, *, learning_rate: optax.Schedule | None = None, height: int = 12, console: Console | None = None
    ):
        if height < 2:
            raise InputError(f"height={height}: a curve has at least 2 lines")
        self.learning_rate, self.height = learning_rate, height
        self.console = Console(stderr=True) if console is None else console
        self.live: Live | None = None

    def __enter__(self) -> "LivePlot":
        self.losses: list[np.ndarray] = []
        self.validation: list[tuple[int, float]] = []
        self.progress: FitProgress | None = None
        self.first_step, self.first_time, self.last_frame = 0, 0.0, -np.inf
        self.live = Live(console=self.console, auto_refresh=False)
        if self._can_draw():
            self.live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.live is not None:
            if self.progress is not None and self._can_draw():
                self.live.update(self.frame(self.progress), refresh=True)
            self.live.stop()
        self.live = None

    def __call__(self, progress: FitProgress) -> None:
        if self.live is None:
            raise InputError("this plot is not open: use it as `with ds.train.LivePlot() as plot: ds.fit(...)`")
        self.now = time.monotonic()
        if self.progress is None:
            self.first_step, self.first_time = progress.step, self.now
        self.progress = progress
        self.losses.append(np.asarray(progress.losses, float))
        if progress.validation is not None:
            self.validation.append((progress.step, progress.validation))
        interval = SECONDS_BETWEEN_FRAMES if self._can_draw() else SECONDS_BETWEEN_LINES
        if progress.step != progress.total and self.now - self.last_frame < interval:
            return
        self.last_frame = self.now
        if self._can_draw():
            self.live.update(self.frame(progress), refresh=True)
        else:
            self.console.print(self.numbers(progress), soft_wrap=True)

    def frame(self, progress: FitProgress) -> Group:
        """The curve, its axes, and the line of numbers below."""
        width = max(self.console.width - MARGIN - 2, 10)
        losses = np.concatenate(self.losses)
        first, last = progress.step - len(losses) + 1, progress.step
        values = np.array([value for _, value in self.validation])
        finite = np.concatenate([losses, values])[np.isfinite(np.concatenate([losses, values]))]
        scale, inverse = (np.log10, lambda y: 10.0**y) if np.all(finite > 0) else (np.asarray, np.asarray)
        with np.errstate(invalid="ignore"):
            curve, dots = averages(scale(losses), 2 * width), scale(values)
        low, high = limits(np.concatenate([curve, dots]))
        lines = braille(line_of_dots((curve - low) / (high - low), 4 * self.height))
        # The column and the line of each validation loss.
        columns = [(step - first) * (width - 1) // max(last - first, 1) for step, _ in self.validation]
        rows = (self.height - 1) * (high - dots) / (high - low)
        marks = {(round(row), column) for row, column in zip(rows, columns, strict=True) if np.isfinite(row)}
        text = Text(no_wrap=True)
        labels = {0: f"{inverse(high):.3g}", self.height - 1: f"{inverse(low):.3g}"}
        for row, line in enumerate(lines):
            text.append(f"{labels.get(row, ''):>{MARGIN - 1}} {'┤' if row in labels else '│'}", "dim")
            start = len(text)
            text.append("".join("●" if (row, at) in marks else line[at] for at in range(width)) + "\n", LOSS)
            for _, column in filter(lambda mark, row=row: mark[0] == row, marks):
                text.stylize(VALIDATION, start + column, start + column + 1)
        text.append(f"{'':>{MARGIN}}└{'─' * width}\n{'':>{MARGIN}} {first:<{width // 2}}", "dim")
        text.append(f"{last:>{width - width // 2}}", "dim")
        return Group(text, self.numbers(progress))

    def numbers(self, progress: FitProgress) -> Text:
        """The line of numbers: step, loss, validation loss, learning rate, pace and time left."""
        step, total = progress.step, progress.total
        phrases = [
            f"step {step}" if total is None else f"step {step}/{total}",
            Text(f"loss {progress.losses[-1]:.4g}", LOSS),
        ]
        if progress.validation is not None:
            phrases.append(Text(f"validation {progress.validation:.4g}", VALIDATION))
        if self.learning_rate is not None:
            phrases.append(f"rate {rates_of(self.learning_rate, step - 1, step)[0]:.3g}")
        if step > self.first_step and self.now > self.first_time:
            pace = (step - self.first_step) / (self.now - self.first_time)
            phrases.append(f"{pace:.0f} steps/s" if pace > 100 else f"{pace:.3g} steps/s")
            if total is not None:
                phrases.append(f"{timedelta(seconds=round(max(total - step, 0) / pace))} left")
        return Text("  ").join(phrase if isinstance(phrase, Text) else Text(phrase) for phrase in phrases)

    def _can_draw(self) -> bool:
        return self.console.is_terminal and not self.console.options.ascii_only


def averages(values: Float[np.ndarray, " n"], columns: int) -> Float[np.ndarray, " columns"]:
    """Values spread over columns: means where several share one, straight lines where there are fewer."""
    if len(values) <= columns:
        return np.interp(np.linspace(0, len(values) - 1, columns), np.arange(len(values)), values)
    starts = np.arange(columns) * len(values) // columns
    is_finite = np.isfinite(values)
    counts = np.add.reduceat(is_finite.astype(float), starts)
    sums = np.add.reduceat(np.where(is_finite, values, 0.0), starts)
    return np.divide(sums, counts, out=np.full(columns, np.nan), where=counts > 0)


def limits(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The least and the greatest finite value, apart from each other."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def line_of_dots(heights: Float[np.ndarray, " columns"], rows: int) -> Bool[np.ndarray, "rows columns"]:
    """The dots of a curve whose heights lie between 0 and 1, without gaps except at NaN."""
    dots = np.zeros((rows, len(heights)), bool)
    previous = None
    for column, height in enumerate(heights):
        if not np.isfinite(height):
            previous = None
            continue
        row = round((1.0 - height) * (rows - 1))
        start = row if previous is None or abs(previous - row) < 2 else previous + (1 if row > previous else -1)
        dots[min(row, start) : max(row, start) + 1, column] = True
        previous = row
    return dots


def braille(dots: Bool[np.ndarray, "rows columns"]) -> list[str]:
    """Lines of braille characters, each of 4 rows and 2 columns of dots."""
    rows, columns = dots.shape
    cells = dots.reshape(rows // 4, 4, columns // 2, 2)
    codes = 0x2800 + np.einsum("rick,ik->rc", cells.astype(int), BRAILLE)
    return ["".join(map(chr, line)) for line in codes]
