"""The command line of a benchmark: which parts, how often, and where the results are kept."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _results import HEAD, Result, Row, command, line, machine, place_text, processor_seconds, today, versions, write

Given = argparse.Namespace
START = time.perf_counter()  # of the script, which may measure before it has rows
"""The options, by name; with `shrink`, by which sizes are divided to try a script out."""
Part = Callable[[Given], Iterable[Row]]
"""Measures, and gives rows as they come."""


class Option(NamedTuple):
    """An option whose value is a number, or several if the default is a list; `--rounds` is at least 1."""

    name: str
    default: Any
    help: str


def main(parts: Part | Mapping[str, Part], options: Sequence[Option] = (), packages: Sequence[str] = ()) -> Given:
    """Measure the parts that the command line names, or all; print their rows as a table; `--json FILE` keeps them.

    Args:
        parts: one, or name -> part.
        packages: those whose versions matter, beside JAX.

    Returns:
        The options that were given.
    """
    parser = parser_of(options)
    if isinstance(parts, Mapping):
        parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    given = parser.parse_args()
    keep_rows(chosen_rows(parser, parts, given), given.json, packages)
    return given


def parser_of(options: Sequence[Option]) -> argparse.ArgumentParser:
    """Parser of these options, of `--shrink` and of `--json`; its help is the docstring of the script."""
    about = sys.modules["__main__"].__doc__
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in options:
        if isinstance(option.default, list) and isinstance(option.default[0], str):
            parser.add_argument(
                option.name, default=option.default, choices=option.default, nargs="+", help=option.help
            )
        elif isinstance(option.default, list):
            parser.add_argument(option.name, default=option.default, type=positive, nargs="+", help=option.help)
        else:
            parser.add_argument(option.name, default=option.default, type=positive, help=option.help)
    parser.add_argument("--shrink", type=positive, default=1, help="divide the sizes by this, to try the script out")
    parser.add_argument("--json", type=writable, metavar="FILE", help="keep rows, machine and versions in this file")
    return parser


def chosen_rows(parser: argparse.ArgumentParser, parts: Part | Mapping[str, Part], given: Given) -> Iterable[Row]:
    if not isinstance(parts, Mapping):
        return parts(given)
    unknown = [name for name in given.parts if name not in parts]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}, but {', '.join(parts)}")
    chosen = given.parts or [*parts]
    return (row for name in chosen for row in parts[name](given))


def keep_rows(rows: Iterable[Row], file: Path | None, packages: Sequence[str]) -> None:
    """Print each row when it comes, and where all was measured; write them to the file, if there is one."""
    load = os.getloadavg()[0]
    print(HEAD, flush=True)
    found: list[Row] = []
    for row in rows:
        print(line(row), flush=True)
        found.append(row)
    result = Result(
        benchmark=Path(sys.argv[0]).stem,
        command=command(),
        date=today(),
        machine={**machine(), "load": round(load, 2)},
        versions=versions(("jax", "jaxlib", "numpy", *packages)),
        rows=found,
        seconds=round(time.perf_counter() - START, 1),
        processor_seconds=round(processor_seconds(), 1),
    )
    print(f"\n{place_text(result)}")
    if file is not None:
        write(file, result)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return number


def writable(text: str) -> Path:
    """The path of a file in a folder that is there: checked before the measurements, which may take hours."""
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return Path(text)
