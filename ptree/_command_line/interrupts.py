"""What Ctrl-C does while a command writes: an exception, so that a half-written file is removed. Elsewhere it ends the program."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .._garbage_collection import collection_paused


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C in this block, where the console script has made it end the program at once."""
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    handler = _Handler()
    unraisable_hook = sys.unraisablehook
    sys.unraisablehook = handler.report_unraisable
    signal.signal(signal.SIGINT, handler.interrupt)
    try:
        # JAX has a callback there, in which an exception is printed and lost
        with collection_paused():
            yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.unraisablehook = unraisable_hook
    if handler.is_interrupted:
        raise KeyboardInterrupt


class _Handler:
    """Raises KeyboardInterrupt, and remembers it: in a destructor an exception is lost."""

    def __init__(self):
        self.is_interrupted = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        self.is_interrupted = True
        raise KeyboardInterrupt

    def report_unraisable(self, lost: Any) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
