"""The command convert: a file of one framework as a file of another, by a table where names and layouts change."""

from __future__ import annotations

import argparse
import os
import shutil

from .._errors import FileError
from .._words import in_bytes, printable
from ..convert import Table, write
from .output import refuse_existing


def run_convert(given: argparse.Namespace) -> int:
    _check_options(given)
    table = Table.load(given.table) if given.table else Table({"**": "**"})
    if given.inverse:
        table = table.inverse
    if given.plan:
        return _print_plan(given, table)
    return _write(given, table)


def _check_options(given: argparse.Namespace) -> None:
    if given.out is None and not given.plan:
        raise FileError("convert IN OUT: the file to write is missing; --plan writes none")
    if given.table is None and (given.inverse or given.carried):
        raise FileError("--inverse and --carried need --table")


def _print_plan(given: argparse.Namespace, table: Table) -> int:
    plan = table.plan(given.file)
    print(plan.text(shutil.get_terminal_size().columns))
    return 0 if plan.ok else 1


def _write(given: argparse.Namespace, table: Table) -> int:
    refuse_existing(given.out)  # also the file that is read, whose mapped memory the arrays may use
    carried = table.inverse.carried(given.carried) if given.carried else None
    arrays = table.apply(given.file, carried=carried)
    write(given.out, arrays, to=given.to)
    nbytes = sum(array.nbytes for array in arrays.values())
    print(f"{printable(os.path.basename(given.out))}: {len(arrays)} arrays, {in_bytes(nbytes)}")
    return 0
