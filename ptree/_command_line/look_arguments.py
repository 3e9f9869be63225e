"""The arguments of the commands that look at files: show, stats, diff, report, plot, plan."""

from __future__ import annotations

import argparse
import math

from .output import Commands, add_output_arguments

_FILE = "a .safetensors, .npz, .pt or other framework's file, an index of shards, a folder of either, of checkpoints, or of Orbax; or a URL of safetensors or an index"
_PATTERNS = "which leaves: 'h/*/attn', '**/bias', '!**/bias' leaves out"


def add_commands(commands: Commands) -> None:
    """Add these commands, in the order of the help."""
    _add_show(commands)
    _add_stats(commands)
    _add_diff(commands)
    _add_report(commands)
    _add_plot(commands)
    _add_plan(commands)


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
        "stats",
        help="mean, standard deviation, zeros, NaN",
        description="Statistics of each parameter of a file, read in chunks.",
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


_PLAN = """Plan where the parameters of a file live on the devices of a mesh: what each device holds, the biggest leaves, what
every device holds whole. Only the header of the file is read, and no device is needed; JAX is imported, for its shardings."""
_PLAN_EXAMPLE = """example: ptree plan llama/ --mesh data=8,model=4 --auto -o rules.json
         ptree plan llama/ --mesh data=8,model=4 --rules rules.json
rules.json has for each selector the axes of the mesh that divide its dimensions:
  {"**/{q,k,v}_proj/weight": ["model", "data"], "**/o_proj/weight": [null, "model"], "**": []}
A list in the place of a name is of several axes: [["data", "model"]]. The first selector that matches a leaf counts."""


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser(
        "plan",
        help="where parameters live on many devices",
        description=_PLAN,
        epilog=_PLAN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("file", metavar="FILE", help=_FILE)
    plan.add_argument("--mesh", type=mesh_of, required=True, metavar="AXES", help="its axes: data=8,model=4")
    rules = plan.add_mutually_exclusive_group(required=True)
    rules.add_argument("--rules", metavar="RULES.json", help="selector -> the axes that divide each dimension")
    rules.add_argument("--auto", action="store_true", help="propose rules, as ptree.shard.auto does")
    plan.add_argument(
        "--min-size", type=count_of, metavar="NUMBERS", help="with --auto: split leaves of so many numbers"
    )
    plan.add_argument("--axes", type=roles_of, metavar="ROLES", help="with --auto: what axes are for, fsdp=x,tensor=y")
    plan.add_argument(
        "--kernels", choices=("in_out", "out_in"), help="with --auto: the axes of kernels, where names do not tell"
    )
    plan.add_argument("-o", "--out", metavar="RULES.json", help="with --auto: write the rules, to edit them")
    plan.add_argument(
        "--replicate",
        action="store_true",
        help="what cannot be divided stays whole, and is marked; else it is an error",
    )
    add_output_arguments(plan)


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


def count_of(text: str) -> int:
    """Parse how many numbers a leaf has.

    Raises:
        ArgumentTypeError: it is no whole number.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no count: a whole number, such as 1048576")
    return int(text)


def mesh_of(text: str) -> dict[str, int]:
    """Parse the axes of a mesh.

    >>> mesh_of("data=8,model=4")
    {'data': 8, 'model': 4}

    Raises:
        ArgumentTypeError: it is no list of names with sizes.
    """
    sizes: dict[str, int] = {}
    for name, size in _pairs_of(text, "mesh", "data=8,model=4"):
        if not size.isdecimal() or int(size) < 1:
            raise argparse.ArgumentTypeError(f"the axis {name!r} of a mesh has a size from 1 on, not {size!r}")
        sizes[name] = int(size)
    return sizes


def roles_of(text: str) -> dict[str, tuple[str, ...]]:
    """Parse what the axes of a mesh are for; several axes of one role are joined by `+`.

    >>> roles_of("fsdp=x+y,tensor=z")
    {'fsdp': ('x', 'y'), 'tensor': ('z',)}

    Raises:
        ArgumentTypeError: it is no list of roles with axes.
    """
    return {role: tuple(names.split("+")) for role, names in _pairs_of(text, "list of roles", "fsdp=data,tensor=model")}


def _pairs_of(text: str, what: str, example: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not name or not equals or not value:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}: write it as {example}")
        if name in dict(pairs):
            raise argparse.ArgumentTypeError(f"{text!r} has {name!r} twice")
        pairs.append((name, value))
    return pairs
