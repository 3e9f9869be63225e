"""The command convert: a file of one framework as a file of another, by a table where names and layouts change."""

from __future__ import annotations

import argparse
import os
import shutil

import numpy as np

from .._errors import FileError
from .._words import in_bytes, listed, printable, quoted
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
    plan = table.plan(given.file, carried=_carried(given, table))
    print(plan.text(shutil.get_terminal_size().columns))
    return 0 if plan.ok else 1


def _write(given: argparse.Namespace, table: Table) -> int:
    refuse_existing(given.out)  # also the file that is read, whose mapped memory the arrays may use
    arrays = table.apply(given.file, carried=_carried(given, table))
    write(given.out, arrays, to=given.to, template=given.template)
    nbytes = sum(array.nbytes for array in arrays.values())
    count = f"{len(arrays)} array{'s' * (len(arrays) != 1)}"
    print(f"{printable(os.path.basename(given.out))}: {count}, {in_bytes(nbytes)}")
    kept = table.carried(given.file)
    if kept:
        print(f"not in it, as the table keeps them, {len(kept)}: {listed(kept)}")
        print(f"the way back takes them from there: --inverse --carried {printable(given.file)}")
    return 0


def _carried(given: argparse.Namespace, table: Table) -> dict[str, np.ndarray] | None:
    """The arrays that are written back, from the file that has them.

    Raises:
        FileError: arrays are to be written back, and the file that has them is not given or has none of them.
    """
    waiting = [row.targets[0].text for row in table.rows if row.operation.is_written_back]
    if not given.carried:
        if waiting:
            raise FileError(f"--carried FILE is missing: the file that has what the table carries, {listed(waiting)}")
        return None
    carried = table.inverse.carried(given.carried)
    if waiting and not carried:
        raise FileError(f"{quoted(given.carried)} has nothing of what the table carries, {listed(waiting)}")
    return carried
