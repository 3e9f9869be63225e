"""Run the commands that look at files: show, stats, diff, report, plot."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import look
from .._errors import FileError, PathError
from .._stored.drafts import draft
from .._words import printable, quoted
from .interrupts import interrupts_raised
from .output import write


def run_show(given: argparse.Namespace) -> int:
    write(look.summary(given.file, given.patterns or None, depth=given.depth, fold=not given.no_fold), given)
    return 0


def run_stats(given: argparse.Namespace) -> int:
    write(look.stats(given.file, given.patterns or None, relative_to=given.relative_to), given)
    return 0


def run_diff(given: argparse.Namespace) -> int:
    found = look.diff(given.before, given.after, tolerance=given.tolerance, selector=given.patterns or None)
    write(found, given)
    return found.exit_code


def run_report(given: argparse.Namespace) -> int:
    report = look.report  # imported outside of the block
    with interrupts_raised():
        page = report(given.file, given.other, out=given.out)
    print(printable(str(page)))
    return 0


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
