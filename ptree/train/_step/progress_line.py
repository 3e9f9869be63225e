"""A line of progress: rewritten in place on a terminal, of the width that it has; a line from time to time in a log file."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from ..._words import columns

_SECONDS_ON_TERMINAL = 0.1
_SECONDS_IN_LOG = 10.0
_MOST_SECONDS_IN_LOG = 600.0
_SHARE_IN_LOG = 0.05
"""In a log a line comes when so much of the time since the start has passed again: long runs have few more lines than short ones."""
_WIDTH_WITHOUT_TERMINAL = 80


class ProgressLine:
    """Shows how far a run is: `step 1,200/5,000  loss 0.0312  84.1 steps/s  0:45 left`. Used in `with`.

    Args:
        first: the number of steps before the run.
        last: the number of steps at its end, where it is known.
        stream: where it is written; None for nowhere.
        clock: seconds.
    """

    def __init__(self, first: int, last: int | None, stream: TextIO | None, clock=time.monotonic):
        self._last, self._stream, self._clock = last, stream, clock
        self._is_terminal = stream is not None and stream.isatty()
        self._start = self._shown_at = clock()
        self._measured_from: tuple[int, float] | None = None
        self._now: tuple[int, float] = (first, float("nan"))
        self._written = 0
        """Columns of the line on the terminal, which the next one covers."""

    def show(self, step: int, loss: float) -> None:
        """Tell of a step that has been computed, and write if it is time."""
        self._now = (step, loss)
        now = self._clock()
        if self._measured_from is None:  # the first step takes the time of compiling
            self._measured_from = (step, now)
        elif now - self._shown_at < self._interval(now):
            return
        self._write(now)

    def _interval(self, now: float) -> float:
        if self._is_terminal:
            return _SECONDS_ON_TERMINAL
        return min(max(_SECONDS_IN_LOG, _SHARE_IN_LOG * (now - self._start)), _MOST_SECONDS_IN_LOG)

    def _write(self, now: float) -> None:
        if self._stream is None:
            return
        self._shown_at = now
        text = fitting(self._parts(now), self._width() - 1)  # a full line would wrap
        if self._is_terminal:
            self._stream.write("\r" + text + " " * (self._written - columns(text)))
            self._written = columns(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _width(self) -> int:
        try:
            assert self._stream is not None
            return os.get_terminal_size(self._stream.fileno()).columns
        except (AttributeError, ValueError, OSError):  # no terminal, or a stream without a descriptor
            return _WIDTH_WITHOUT_TERMINAL

    def _parts(self, now: float) -> list[str]:
        """What is said, the most important first."""
        step, loss = self._now
        count = f"step {step:,}" if self._last is None else f"step {step:,}/{self._last:,}"
        parts = [count, f"loss {loss:.4g}"]
        rate = self._rate(now)
        if rate is None:
            return parts
        pace = f"{rate:,.3g} steps/s" if rate >= 1 else f"{1 / rate:,.3g} s a step"
        if self._last is None or step >= self._last:
            return [*parts, pace, f"{duration(now - self._start)} in all"]
        return [*parts, pace, f"{duration((self._last - step) / rate)} left"]

    def _rate(self, now: float) -> float | None:
        """Steps a second, without the first; None until there are some."""
        if self._measured_from is None:
            return None
        first, start = self._measured_from
        count = self._now[0] - first
        return count / (now - start) if count > 0 and now > start else None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._measured_from is None or self._stream is None:
            return
        self._write(self._clock())
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()


def fitting(parts: list[str], width: int) -> str:
    """As many of the parts as fit, at least the first; the last ones are left out.

    >>> fitting(["step 12/500", "loss 0.25", "84 steps/s", "0:05 left"], 40)
    'step 12/500  loss 0.25  84 steps/s'
    """
    text = parts[0][: max(width, 0)]
    for part in parts[1:]:
        longer = f"{text}  {part}"
        if columns(longer) > width:
            break
        text = longer
    return text


def duration(seconds: float) -> str:
    """
    >>> duration(5), duration(3700), duration(200_000)
    ('0:05', '1:01:40', '2 days 7:33:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} {'day' if days == 1 else 'days'} {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def standard_stream() -> TextIO | None:
    """Where progress is written: the standard error of this process, if it has one."""
    return sys.stderr
