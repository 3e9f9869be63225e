"""One measurement by many, each in a process of its own, which take turns in an order that changes at random."""

import argparse
import difflib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

Facts = dict[str, Any]
Made = tuple[Facts, Callable[[], Facts]]
"""What making it took, with what must be equal for all under "check"; and a turn, which says what it took."""


class Column(NamedTuple):
    """One number of each who: the sum of the facts of these names, and whether the first who is divided by it."""

    title: str
    names: tuple[str, ...]
    scale: float
    digits: int
    ratio: bool = False


def run(
    script: str,
    make: Callable[[str, int], Made],
    who: Sequence[str],
    sizes: Sequence[int],
    columns: Sequence[Column],
    *,
    rounds: int = 3,
    turns: int = 5,
    tolerance: float = 2e-3,
    packages: Sequence[str] = ("flax", "equinox", "dm-haiku", "torch"),
    options: Sequence[str] = (),
) -> None:
    """Measure `make(who, size)` for all, and print a table; `--json FILE` keeps the numbers.

    In each round all are made, one after the other, in a process each; then all take turns. A ratio is the median of
    the ratios of one round or one turn.
    """
    arguments = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    arguments.add_argument("--rounds", type=_positive, default=rounds, help="how often all are made")
    arguments.add_argument("--turns", type=_positive, default=turns, help="how often all run in each round")
    arguments.add_argument("--sizes", type=_positive, nargs="+", default=list(sizes))
    arguments.add_argument("--who", nargs="+", default=list(who), metavar="NAME", help=", ".join(who))
    arguments.add_argument("--json", type=_writable, help="a file for all the numbers")
    arguments.add_argument(
        "--child", nargs=2, metavar=("WHO", "SIZE"), help="one process: a turn for each line of input"
    )
    given = arguments.parse_args()
    if given.child:
        return _serve(make, given.child[0], int(given.child[1]))
    unknown = [_unknown(name, who) for name in given.who if name not in who]
    if unknown:
        arguments.error(f"{'; '.join(unknown)} (there are {', '.join(map(repr, who))})")
    random.seed(0)
    machine = _machine(packages)
    print(machine, flush=True)
    print("| size | who | " + " | ".join(column.title for column in columns) + " |")
    print("| ---: | --- |" + " ---: |" * len(columns), flush=True)
    found: dict[str, dict[str, list[Facts]]] = {}
    for size in given.sizes:
        ours = found[str(size)] = {name: [] for name in given.who}
        for _ in range(given.rounds):
            _round([script, *options], size, given.turns, ours)
        _check(ours, tolerance)
        for name, runs in ours.items():
            cells = [_cell(column, ours[given.who[0]], runs) for column in columns]
            print(f"| {size} | {name} | " + " | ".join(cells) + " |", flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"machine": machine, "runs": found}, file, indent=1)
    return None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return number


def _writable(text: str) -> str:
    """The path of a file in a folder that is there: checked before the measurements, which may take hours."""
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return text


def _unknown(name: str, who: Sequence[str]) -> str:
    """The message for a name that nobody has, with those that were likely meant: one may be a part of theirs."""
    holding = [there for there in who if name.lower() in there.lower()]
    near = holding or difflib.get_close_matches(name, who, n=1)
    return f"nobody is called {name!r}" + (f", did you mean {' or '.join(map(repr, near))}?" if near else "")


def _round(script: Sequence[str], size: int, turns: int, found: dict[str, list[Facts]]) -> None:
    with ExitStack() as stack:
        children: dict[str, subprocess.Popen[str]] = {}
        for name in random.sample(list(found), len(found)):
            command = [sys.executable, *script, "--child", name, str(size)]
            pipe = subprocess.PIPE
            apart = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=apart)
            children[name] = stack.enter_context(child)
            found[name].append({**_answer(child, name), "turns": []})
        for _ in range(turns):
            for name in random.sample(list(children), len(children)):
                child = children[name]
                assert child.stdin is not None
                child.stdin.write("\n")
                child.stdin.flush()
                found[name][-1]["turns"].append(_answer(child, name))


def _answer(child: "subprocess.Popen[str]", name: str) -> Facts:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"{name} stopped: see above")


def _serve(make: Callable[[str, int], Made], who: str, size: int) -> None:
    try:
        facts, turn = make(who, size)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{who} needs the package {error.name!r}, which is not installed") from None
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        taken = turn()
        print(json.dumps({**taken, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def _check(found: dict[str, list[Facts]], tolerance: float) -> None:
    first = next(iter(found.values()))[0]["check"]
    for name, runs in found.items():
        for facts in runs:
            np.testing.assert_allclose(facts["check"], first, rtol=tolerance, err_msg=name)


def _numbers(runs: list[Facts], names: Sequence[str]) -> list[float]:
    return [
        sum(known[name] for name in names)
        for facts in runs
        for known in [facts, *facts["turns"]]
        if all(name in known for name in names)
    ]


def _cell(column: Column, ours: list[Facts], runs: list[Facts]) -> str:
    numbers = _numbers(runs, column.names)
    if not numbers:
        return ""
    text = f"{statistics.median(numbers) * column.scale:,.{column.digits}f}"
    if column.ratio and runs is not ours:
        text += f" ({statistics.median(a / b for a, b in zip(_numbers(ours, column.names), numbers)):.2f})"
    return text


def _machine(packages: Sequence[str]) -> str:
    versions = ", ".join(map(_version, ("jax", "jaxlib", *packages)))
    kind = jax.devices()[0].device_kind
    return f"{platform.machine()}, {os.cpu_count()} cores, {kind}, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # whoever needs it says so
        return f"no {package}"
