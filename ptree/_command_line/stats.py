"""Run the command stats: statistics of the leaves of a file."""

from __future__ import annotations

import argparse

from .. import look
from .._words import printable
from ..look._sources.source import Source
from ..look._sources.source_of import source_of
from ..look._stats.layer_moments import problem_of_numbers
from .damage import DAMAGED, code_of_files, code_of_leaves
from .output import write


def run_stats(given: argparse.Namespace) -> int:
    with source_of(given.file) as source:
        found = look.stats(source, given.patterns or None, relative_to=given.relative_to)
        write(found, given)
        changed = [row for row in found.rows if row.problem and _is_found_by_reading(source, row)]
        code = DAMAGED if changed else code_of_leaves(source, [row.path for row in found.rows])
        return code_of_files(source) or code


def _is_found_by_reading(source: Source, row: look.LeafStats) -> bool:
    """Whether a problem of a leaf was not known before its numbers were read: its checksum differs, or it cannot be unpacked."""
    return row.problem != printable(problem_of_numbers(source.leaves[row.path]))
