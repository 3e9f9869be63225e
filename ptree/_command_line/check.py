"""Run the command check: whether a file is whole, and each leaf is what its checksum says."""

from __future__ import annotations

import argparse
import os

from .._words import listed, printable
from ..look._sources.folder_files import files_not_read
from ..look._sources.integrity import damage_of
from ..look._sources.source import Source
from ..look._sources.source_of import source_of


def run_check(given: argparse.Namespace) -> int:
    with source_of(given.file) as source:
        found = damage_of(source)
    for problem in found.problems:
        print(printable(problem))
    print(printable(found.verdict()))
    if os.path.isdir(given.file):
        _name_others(given.file, source)
    return 1 if found.problems else 0


def _name_others(folder: str, source: Source) -> None:
    """Print which files of a folder are not checked: one of them is."""
    others = files_not_read(folder, source)
    if others:
        count = "1 other file" if len(others) == 1 else f"{len(others):,} other files"
        print(printable(f"{os.path.basename(os.path.abspath(folder))}: not checked, {count}: {listed(others)}"))
