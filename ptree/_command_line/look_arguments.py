"""The arguments of the commands that look at files: show, stats, diff, report, plot."""

from __future__ import annotations

import argparse
import math

from .output import Commands, add_output_arguments

_FILE = "a .safetensors, .npz, .pt or other framework's file, an index of shards, a folder of either, of checkpoints, or of Orbax; or a URL of safetensors or an index"
_PATTERNS = "which leaves: 'h/*/attn', '**/bias', '!**/bias' takes away"


def add_commands(commands: Commands) -> None:
    """Add these commands, in the order of the help."""
    _add_show(commands)
    _add_stats(commands)
    _add_diff(commands)
    _add_report(commands)
    _add_plot(commands)


def _add_show(commands: Commands) -> None:
    show = commands.add_parser(
        "show",
        help="names, shapes and sizes",
        description="Show each parameter of a file: names, shapes, sizes. Blocks that repeat are one row.",
    )
    _add_file_and_patterns(show)
    show.add_argument("--depth", type=depth_of, metavar="LEVELS", help="show so many levels, and add up what is below")
    show.add_argument("--no-fold", action="store_true", help="a row for each leaf")
    add_output_arguments(show)


def _add_stats(commands: Commands) -> None:
    stats = commands.add_parser(
        "stats", help="mean, spread, zeros, NaN", description="Statistics of each parameter of a file, read in chunks."
    )
    _add_file_and_patterns(stats)
    stats.add_argument("--relative-to", metavar="FILE", help="how much it has changed since this one")
    add_output_arguments(stats)


def _add_diff(commands: Commands) -> None:
    diff = commands.add_parser(
        "diff",
        help="what has changed from one file to another",
        description="Compare two files: what changed, was renamed, added or removed. Exit code 1 if anything differs.",
    )
    diff.add_argument("before", metavar="A", help=_FILE)
    diff.add_argument("after", metavar="B", help=_FILE)
    diff.add_argument("patterns", nargs="*", default=[], metavar="PATTERN", help=_PATTERNS)
    diff.add_argument("--tolerance", type=tolerance_of, default=0.0, help="the relative change that counts as none")
    add_output_arguments(diff)


def _add_report(commands: Commands) -> None:
    report = commands.add_parser(
        "report",
        help="a page to look at a file, or two, in a browser",
        description="Write one HTML page that works offline.",
    )
    report.add_argument("file", metavar="FILE", help=_FILE)
    report.add_argument("other", metavar="OTHER", nargs="?", help="a second file, to see what differs")
    report.add_argument("-o", "--out", default="report.html", metavar="PAGE")


def _add_plot(commands: Commands) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw distributions, kernels, singular values",
        description="Draw parameters as a picture (needs matplotlib).",
    )
    _add_file_and_patterns(plot)
    plot.add_argument("--kind", choices=("distributions", "kernels", "singular-values"), default="distributions")
    plot.add_argument("-o", "--out", default="plot.png", metavar="PICTURE", help="its ending says the format")


def _add_file_and_patterns(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=_FILE)
    command.add_argument("patterns", nargs="*", default=[], metavar="PATTERN", help=_PATTERNS)


def depth_of(text: str) -> int:
    """Parse a number of levels.

    Raises:
        ArgumentTypeError: it is no whole number of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of levels: a whole number from 1 on")
    return int(text)


def tolerance_of(text: str) -> float:
    """Parse a relative change.

    Raises:
        ArgumentTypeError: it is no finite number from 0 on.
    """
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:  # False of NaN
        raise argparse.ArgumentTypeError(f"{text!r} is no tolerance: a number from 0 on, such as 1e-3")
    return tolerance
