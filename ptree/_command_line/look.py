"""Run the commands that look at files: show, diff, report, plot."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from .. import look
from .._errors import FileError, PathError
from .._stored.drafts import draft
from .._words import printable, quoted
from ..look._sources.source_of import source_of
from .damage import DAMAGED, code_of_files, code_of_leaves
from .interrupts import interrupts_raised
from .output import write


def run_show(given: argparse.Namespace) -> int:
    with source_of(given.file) as source:
        found = look.summary(source, given.patterns or None, depth=given.depth, fold=not given.no_fold)
        write(found, given)
        return code_of_files(source) or code_of_leaves(source, [row.path for row in found.rows])


def run_diff(given: argparse.Namespace) -> int:
    with source_of(given.before) as before, source_of(given.after) as after:
        found = look.diff(before, after, tolerance=given.tolerance, selector=given.patterns or None)
        write(found, given)
        return code_of_files(before, after) or found.exit_code


def run_report(given: argparse.Namespace) -> int:
    with ExitStack() as opened:
        sources = [opened.enter_context(source_of(path)) for path in (given.file, given.other) if path is not None]
        from ..look._report.report import write_report  # imported outside of the block

        thing, other = (*sources, None)[:2]
        with interrupts_raised():
            page = write_report(thing, other, None, None, given.out)
        print(printable(str(page.path)))
        for problem in page.damaged:
            print(f"ptree: {printable(problem)}", file=sys.stderr)
        return code_of_files(*sources) or (DAMAGED if page.damaged else 0)


def run_plot(given: argparse.Namespace) -> int:
    if given.kind == "kernels":
        if len(given.patterns) != 1:
            raise PathError("a picture of kernels is of one leaf: ptree plot FILE PATH --kind kernels")
        figure = look.plot_kernels(given.file, given.patterns[0])
    elif given.kind == "singular-values":
        figure = look.plot_singular_values(given.file, given.patterns or None)
    else:
        figure = look.plot_distributions(given.file, given.patterns or None)
    endings = figure.canvas.get_supported_filetypes()
    ending = os.path.splitext(given.out)[1].lstrip(".").lower()
    if ending not in endings:
        raise FileError(f"cannot draw {quoted(given.out)}: the ending of a picture is one of {', '.join(endings)}")
    with interrupts_raised(), draft(Path(given.out)) as descriptor, open(descriptor, "wb", closefd=False) as file:
        figure.savefig(file, format=ending)
    print(printable(given.out))
    return 0
