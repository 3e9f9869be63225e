"""The command get: the numbers of one leaf, or a part of them, as text or as an npy file."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from .output import Commands

_MOST_PRINTED = 1000


def add_commands(commands: Commands) -> None:
    get = commands.add_parser(
        "get",
        help="the numbers of one leaf",
        description="Print a leaf of a file, or a part of it; of which only the bytes around it are read.",
    )
    get.add_argument("file", metavar="FILE")
    get.add_argument("path", metavar="PATH", help="of a leaf, a tied name, or one layer of a stack")
    get.add_argument(
        "index", metavar="INDEX", nargs="?", default=(), type=index_of, help="as in NumPy: 3, 0:10, ':,5', '...,-1'"
    )
    get.add_argument("-o", "--out", metavar="FILE.npy", help="write an npy file instead: bf16 and f8 as f32, i4 as i8")
    get.set_defaults(run=run_get)


def index_of(text: str) -> tuple[Any, ...]:
    """Parse an index of NumPy made of whole numbers, slices and `...`.

    >>> index_of("3, 0:10:2, ...")
    (3, slice(0, 10, 2), Ellipsis)

    Raises:
        ArgumentTypeError: it is anything else.
    """
    return tuple(_part_of(part.strip()) for part in text.strip("[]").split(",") if part.strip())


def _part_of(text: str) -> Any:
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


def _of_numpy(part: np.ndarray) -> np.ndarray:
    """An array of a dtype that npy has: others would be read again as bytes without a meaning. Each number stays what it is."""
    is_of_ml_dtypes = part.dtype.kind == "V" and part.dtype.type is not np.void
    if not is_of_ml_dtypes:
        return part
    if part.dtype.name.startswith("int"):
        return part.astype(np.int8)
    if part.dtype.name.startswith("uint"):
        return part.astype(np.uint8)
    return part.astype(np.float32)


def run_get(given: argparse.Namespace) -> int:
    from ..look._sources.reading import read_path
    from ..look._sources.source_of import source_of

    with source_of(given.file) as source:
        part = read_path(source, given.path, given.index)
    if given.out is not None:
        with open(given.out, "wb") as file:
            np.save(file, _of_numpy(part), allow_pickle=False)
        return 0
    print(np.array2string(np.asarray(part), threshold=_MOST_PRINTED, separator=", "))
    return 0
