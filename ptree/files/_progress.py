"""A progress bar that counts bytes on a terminal, for a save that takes more than a second."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

_DELAY = 1.0
"""Seconds before there is a bar: most saves are over by then, and a bar that flashes up tells nothing."""


class Progress:
    """Counts bytes; shows a bar on a terminal once it has taken more than a second. Used in `with`."""

    def __init__(self, title: str, total: int, shown: bool):
        # stderr is None in a Windows program without a console
        is_terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self.callback = self._add if is_terminal else None
        """To be called with the number of bytes of each step; None where there is nothing to show."""
        self._title, self._total = title, total
        self._start, self._done = time.monotonic(), 0
        self._bar: tqdm | None = None

    def _add(self, count: int) -> None:
        self._done += count
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
