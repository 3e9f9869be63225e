"""Run the command check: whether a file is whole, and each leaf is what its checksum says."""

from __future__ import annotations

import argparse

from .._words import printable
from ..look._sources.integrity import damage_of
from ..look._sources.source_of import source_of


def run_check(given: argparse.Namespace) -> int:
    with source_of(given.file) as source:
        found = damage_of(source)
    for problem in found.problems:
        print(printable(problem))
    print(found.verdict())
    return 1 if found.problems else 0
