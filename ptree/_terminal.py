"""The width of the terminal that a table is printed to."""

from __future__ import annotations

import os
import sys

_WITHOUT = 80
_LEAST = 40


def terminal_width() -> int:
    """The columns of the terminal that Python prints to, at least 40; 80 where there is none, as in a pipe or a test."""
    try:
        if not sys.stdout.isatty():
            return _WITHOUT
        return max(_LEAST, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (AttributeError, ValueError, OSError):  # stdout is None, closed, or an object that has no descriptor
        return _WITHOUT
