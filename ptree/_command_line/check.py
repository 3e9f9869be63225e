"""The command check: whether a file is whole, and each leaf is what its checksum says."""

from __future__ import annotations

import argparse

from .output import Commands


def add_commands(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="checksums and structure",
        description="Read a whole file and compare each leaf with its checksum. Exit code 1 if it is damaged.",
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(run=run_check)


def run_check(given: argparse.Namespace) -> int:
    from .._words import printable
    from ..look._sources.integrity import damage_of
    from ..look._sources.source_of import source_of

    with source_of(given.file) as source:
        found = damage_of(source)
    for problem in found.problems:
        print(printable(problem))
    print(found.verdict())
    return 1 if found.problems else 0
