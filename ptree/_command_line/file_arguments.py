"""The arguments of the commands that read, check, change and convert files: get, check, rename, tie, convert."""

from __future__ import annotations

import argparse
from types import EllipsisType

from .output import Commands

FORMATS = ("torch", "hf", "ptree", "keras", "keras2", "flax", "mxnet", "tensorflow", "npz", "gguf")
"""The formats that `convert` writes."""


def add_commands(commands: Commands) -> None:
    """Add these commands, in the order of the help."""
    _add_get(commands)
    _add_check(commands)
    _add_rename(commands)
    _add_tie(commands)


def _add_get(commands: Commands) -> None:
    get = commands.add_parser(
        "get",
        help="the numbers of one leaf",
        description="Print a leaf of a file, or a part of it. Of a part only the bytes around it are read; a whole leaf is compared with its checksum.",
    )
    get.add_argument("file", metavar="FILE")
    get.add_argument("path", metavar="PATH", help="of a leaf, a tied name, or one layer of a stack")
    get.add_argument(
        "index", metavar="INDEX", nargs="?", default=(), type=index_of, help="as in NumPy: 3, 0:10, ':,5', '...,-1'"
    )
    get.add_argument("-o", "--out", metavar="FILE.npy", help="write an npy file instead: bf16 and f8 as f32, i4 as i8")


def _add_check(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="checksums and structure",
        description="Read a whole file and compare each leaf with its checksum. Of a folder that holds several files, those that are not checked are named. Exit code 1 if it is damaged, 2 if it cannot be read at all.",
    )
    check.add_argument("file", metavar="FILE")


def _add_rename(commands: Commands) -> None:
    rename = commands.add_parser(
        "rename",
        help="other names, by pattern",
        description="Write a file whose leaves have other names: ptree rename a.safetensors 'h/*/**' 'blocks/*/**' -o b.safetensors",
    )
    rename.add_argument("file", metavar="FILE")
    rename.add_argument("pattern", metavar="PATTERN", help="each wildcard of it is one of NEW")
    rename.add_argument("new", metavar="NEW")
    _add_target(rename)


def _add_tie(commands: Commands) -> None:
    tie = commands.add_parser(
        "tie",
        help="two names for one leaf",
        description="Write a file in which names with equal numbers are one leaf: ptree tie a.safetensors lm_head/weight=wte/weight -o b.safetensors",
    )
    tie.add_argument("file", metavar="FILE")
    tie.add_argument("ties", metavar="ALIAS=SOURCE", nargs="+", help="SOURCE may be transposed(wte/weight)")
    _add_target(tie)
    _add_convert(commands)


def _add_convert(commands: Commands) -> None:
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
    convert.add_argument(
        "--carried", metavar="FILE", help="the file that has what the table carries, to be written back"
    )
    convert.add_argument(
        "--template", metavar="FILE", help="a file of Keras of which OUT is a copy with these arrays: for a .keras"
    )
    convert.add_argument("--to", choices=FORMATS, help="the format; by default what the name OUT ends in says")


def _add_target(command: argparse.ArgumentParser) -> None:
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--out", metavar="FILE", help="the file to write")
    target.add_argument("--in-place", action="store_true", help="replace the file itself")


def index_of(text: str) -> tuple[int | slice | EllipsisType, ...]:
    """Parse an index of NumPy made of whole numbers, slices and `...`.

    >>> index_of("3, 0:10:2, ...")
    (3, slice(0, 10, 2), Ellipsis)

    Raises:
        ArgumentTypeError: it is anything else.
    """
    return tuple(_part_of(part.strip()) for part in text.strip("[]").split(",") if part.strip())


def _part_of(text: str) -> int | slice | EllipsisType:
    if text == "...":
        return ...
    try:
        numbers = [int(number) if number.strip() else None for number in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        return numbers[0]
    if len(numbers) == 2 or (len(numbers) == 3 and numbers[2] != 0):
        return slice(*numbers)
    raise argparse.ArgumentTypeError(f"{text!r} is no part of an index: a whole number, a slice such as 0:10, or '...'")
