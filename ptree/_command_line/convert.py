"""The command convert: a file of one framework as a file of another, by a table where names and layouts change."""

from __future__ import annotations

import argparse
import os
import shutil
from typing import TYPE_CHECKING

from .._errors import FileError
from .._words import in_bytes, printable, quoted
from .output import Commands

if TYPE_CHECKING:
    from ..convert import Table

_FORMATS = ("torch", "hf", "ptree", "keras", "keras2", "flax", "mxnet", "tensorflow", "npz", "gguf")


def add_commands(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="a file for another framework",
        description="Write a file for another framework: ptree convert model.pt model.safetensors --table table.json. Names and"
        " layouts change only by a table; without one the arrays stay as they are.",
    )
    convert.add_argument("file", metavar="IN")
    convert.add_argument("out", metavar="OUT", nargs="?", help="the file to write; with --plan none")
    convert.add_argument("--plan", action="store_true", help="print what would be done, and write nothing")
    convert.add_argument("--table", metavar="FILE", help="a table as JSON, which ptree.convert.Table.save writes")
    convert.add_argument("--inverse", action="store_true", help="the way back of the table")
    convert.add_argument("--carried", metavar="FILE", help="the file that has what the table carries, to be written back")
    convert.add_argument("--to", choices=_FORMATS, help="the format; by default what the name OUT ends in says")
    convert.set_defaults(run=run_convert)


def run_convert(given: argparse.Namespace) -> int:
    from ..convert import Table

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
    from ..convert import write

    carried = table.inverse.carried(given.carried) if given.carried else None
    arrays = table.apply(given.file, carried=carried)
    _refuse_input(given)
    write(given.out, arrays, to=given.to)
    nbytes = sum(array.nbytes for array in arrays.values())
    print(f"{printable(os.path.basename(given.out))}: {len(arrays)} arrays, {in_bytes(nbytes)}")
    return 0


def _refuse_input(given: argparse.Namespace) -> None:
    """Refuse to write over the file that is read, whose mapped memory the arrays may use."""
    if os.path.exists(given.out) and os.path.samefile(given.file, given.out):
        raise FileError(f"cannot write {quoted(given.out)}: it is the file that is read; write another, then move it")
