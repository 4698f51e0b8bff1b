"""Standard streams whose errors are ignored, and Ctrl-C without a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO


class _WithoutWriteErrors:
    """A stream that discards what it cannot write, for example on a full disk, so that the work continues."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            flush_or_discard(self._stream)
            return len(text)

    def flush(self) -> None:
        flush_or_discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def without_write_errors(stream: TextIO | None) -> Any:
    """Returns a stream that discards what it cannot write; for None, a stream to the null device."""
    if stream is None:
        return open(os.devnull, "w")
    return stream if isinstance(stream, _WithoutWriteErrors) else _WithoutWriteErrors(stream)


def flush_or_discard(stream: TextIO | None) -> None:
    """Flushes a stream or, if that fails, redirects it to the null device, so that the flush at exit succeeds."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_handlers: list[Any] = []


def on_interrupt(handler: Callable[[], object] | None) -> None:
    """Makes Ctrl-C call `handler()`; with None, Ctrl-C raises KeyboardInterrupt again.

    This is for the time of imports, which may catch a KeyboardInterrupt as an error of their own. Interrupts that are
    ignored, as in a background process, stay ignored.

    Args:
        handler: A function that ends the process by SystemExit.
    """
    if handler is None:
        if _handlers and signal.getsignal(signal.SIGINT) is _handlers[-1]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _handlers.clear()
        return

    def end(*_: Any) -> None:
        try:
            handler()
        except SystemExit as ended:
            flush_or_discard(sys.stdout)
            os._exit(ended.code if isinstance(ended.code, int) else 1)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
        _handlers.append(end)
