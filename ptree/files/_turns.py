"""Turns: calls that write to one path run in the order in which they were made, whatever threads they run in."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Lock

from .._stored.operating_system import call_in_forked_child

_lock = Lock()
_turns: dict[str, list[Turn]] = {}
"""Path -> the turns that have not ended, in order."""


class Turn:
    """The turn of a call to write to a path, taken when it is made. Used in `with`, which waits for all earlier turns."""

    def __init__(self, path: Path):
        # too coarse a key makes a call wait without need, too fine a key mixes up two calls: some disks ignore case
        self._key = os.path.realpath(path.parent).casefold() + "/" + path.name.casefold()
        self._ended = Event()
        with _lock:
            turns = _turns.setdefault(self._key, [])
            self._earlier = list(turns)
            turns.append(self)

    def wait(self) -> None:
        """Wait until all earlier turns have ended."""
        for turn in self._earlier:
            turn._ended.wait()

    def __enter__(self) -> None:
        try:
            self.wait()
        except BaseException:  # an interrupt
            self.end()
            raise

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let the next turn begin, once those before this one have ended too."""
        self._earlier = []  # otherwise each turn would keep all before it in memory
        with _lock:
            turns = _turns.get(self._key, [])
            if self in turns:
                turns.remove(self)
            if not turns:
                _turns.pop(self._key, None)
        self._ended.set()


def _forget_turns() -> None:
    """In a forked process, no thread is left that could end the turns of its parent."""
    global _lock
    _lock = Lock()
    _turns.clear()


call_in_forked_child(_forget_turns)
