"""Standard streams that fail, and the interrupt from the keyboard, answered without a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO


class _Tolerant:
    """A stream that falls silent once it cannot be written, as on a full disk: no work is lost for a line of text."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            settle(self._stream)
            return len(text)

    def flush(self) -> None:
        settle(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tolerant(stream: TextIO | None) -> Any:
    """The stream, made to fall silent where it would fail; that of nothing if it is closed."""
    if stream is None:
        return open(os.devnull, "w")
    return stream if isinstance(stream, _Tolerant) else _Tolerant(stream)


def settle(stream: TextIO | None) -> None:
    """Flushes a stream or, if that fails, points it at nothing, so that the flush at exit does not fail again."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_answers: list[Any] = []


def interruptible(answer: Callable[[], object] | None) -> None:
    """Has Ctrl-C end the process by `answer()`, whatever runs; by KeyboardInterrupt again where there is none.

    An import may take a KeyboardInterrupt for an error of its own. Interrupts that are ignored, as those of a process
    in the background, stay so.
    """
    if answer is None:
        if _answers and signal.getsignal(signal.SIGINT) is _answers[-1]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _answers.clear()
        return

    def end(*_: Any) -> None:
        try:
            answer()
        except SystemExit as ended:
            sys.stdout and settle(sys.stdout)
            os._exit(ended.code if isinstance(ended.code, int) else 1)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
        _answers.append(end)
