"""A progress bar on a terminal, for what takes more than a second."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

_DELAY = 1.0
"""Seconds before there is a bar."""


class Progress:
    """Counts bytes; shows a bar on a terminal once it has taken more than a second. Used in `with`."""

    def __init__(self, title: str, total: int, shown: bool):
        self._title, self._total = title, total
        self._is_shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._start, self._done = time.monotonic(), 0
        self._bar: tqdm | None = None

    def add(self, count: int) -> None:
        """Count so many bytes more."""
        self._done += count
        if not self._is_shown:
            return
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._start > _DELAY:
            from tqdm import tqdm  # it takes 20 ms to import

            self._bar = tqdm(
                total=self._total, initial=self._done, desc=self._title, unit="B", unit_scale=True, leave=False
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
