"""What commands say of damaged files, and their exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .._words import printable
from ..look._sources.source import Source

DAMAGED = 1
"""Exit code where a file is damaged."""


def code_of_files(*sources: Source) -> int:
    """The exit code for files as wholes; what is wrong with them is written to stderr, as it is no part of a result."""
    problems = [problem for source in sources for problem in source.damage]
    for problem in problems:
        print(f"ptree: {printable(problem)}", file=sys.stderr)
    return DAMAGED if problems else 0


def code_of_leaves(source: Source, paths: Iterable[str]) -> int:
    """The exit code for leaves of a file; the paths may be of its tied names and layers too, which are passed over."""
    leaves = source.leaves
    return DAMAGED if any(path in leaves and leaves[path].is_damaged for path in paths) else 0
