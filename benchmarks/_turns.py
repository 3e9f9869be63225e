"""One measurement by many, each in a process of its own, which take turns in an order that changes at random."""

import difflib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from _command import Given, Option, keep_rows, parser_of, positive
from _results import Aim, Row
from _timing import NO_AIMS, ratio

Facts = dict[str, Any]
Made = tuple[Facts, Callable[[], Facts]]
"""What making it took, with what must be equal for all under "check"; and a turn, which says what it took."""
Runs = dict[str, list[Facts]]
"""Who -> the facts of each round."""


class Column(NamedTuple):
    """One number of each who: the sum of the facts of these names; for some, the target for ptree's over this one's."""

    what: str
    names: tuple[str, ...]
    unit: str = "s"
    aims: Mapping[str, float] = NO_AIMS
    most: float | None = None
    """The target for ptree's own value."""
    in_file_only: bool = False
    only: Sequence[str] = ()
    """Of whom it is said; of all, if it is empty."""


def run(
    script: str,
    make: Callable[[str, int], Made],
    who: Sequence[str],
    sizes: Sequence[int],
    columns: Sequence[Column],
    *,
    noun: str = "blocks",
    over: Mapping[str, str] | None = None,
    aims_from: int = 0,
    shown: Sequence[int] = (),
    further: Callable[[dict[int, Runs]], Iterable[Row]] = lambda found: [],
    after: Callable[[Given], Iterable[Row]] = lambda given: [],
    rounds: int = 3,
    turns: int = 5,
    tolerance: float = 2e-3,
    packages: Sequence[str] = ("optax", "flax", "equinox", "dm-haiku", "torch"),
    options: Sequence[str] = (),
) -> None:
    """Measure `make(who, size)` for all, and print a table; `--json FILE` keeps the rows.

    In each round all are made, one after the other, in a process each; then all take turns. A ratio is the median of
    the ratios of one round or one turn.

    Args:
        noun: what the sizes count.
        over: for whom another way to use ptree than the first of `who` is the one that stands in the ratio.
        aims_from: the smallest size that the targets are for.
        shown: the sizes that tables for readers show; all, if it is empty.
        further: more rows, from the facts of all sizes.
        after: more rows, measured when all others are there, from the options.
        options: of the script, for its processes.
    """
    if sys.argv[1:2] == ["--child"]:
        return _serve(make, sys.argv[2], int(sys.argv[3]))
    often = [
        Option("--rounds", rounds, "how often all are made"),
        Option("--turns", turns, "how often they run in a round"),
    ]
    parser = parser_of(often)
    parser.add_argument("--sizes", type=positive, nargs="+", default=list(sizes), help=noun)
    parser.add_argument("--who", nargs="+", default=list(who), metavar="NAME", help=", ".join(who))
    given = parser.parse_args()
    unknown = [_unknown(name, who) for name in given.who if name not in who]
    if unknown:
        parser.error(f"{'; '.join(unknown)} (there are {', '.join(map(repr, who))})")
    random.seed(0)

    def rows() -> Iterator[Row]:
        found: dict[int, Runs] = {}
        for size in given.sizes:
            runs = found[size] = {name: [] for name in given.who}
            for _ in range(given.rounds):
                _round([script, *options], size, given.turns, runs)
            _check(runs, tolerance)
            for row in _rows(runs, size_text(size, noun), columns, over or {}, has_aims=size >= aims_from):
                is_shown = not row.in_file_only and (not shown or size in shown)
                yield replace(row, in_file_only=not is_shown)
        yield from further(found)
        yield from after(given)

    keep_rows(rows(), given.json, packages)
    return None


def size_text(size: int, noun: str) -> str:
    return f"1 {noun.removesuffix('s')}" if size == 1 else f"{size} {noun}"


def _unknown(name: str, who: Sequence[str]) -> str:
    """The message for a name that nobody has, with those that were likely meant: one may be a part of theirs."""
    holding = [there for there in who if name.lower() in there.lower()]
    near = holding or difflib.get_close_matches(name, who, n=1)
    return f"nobody is called {name!r}" + (f", did you mean {' or '.join(map(repr, near))}?" if near else "")


# ------------------------------------------------------------------------------ processes


def _round(script: Sequence[str], size: int, turns: int, found: Runs) -> None:
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


# ------------------------------------------------------------------------------ rows


def _rows(runs: Runs, size: str, columns: Sequence[Column], over: Mapping[str, str], has_aims: bool) -> Iterator[Row]:
    first = next(iter(runs))
    for column in columns:
        times = {name: numbers(runs[name], column.names) for name in column.only or runs if name in runs}
        for name, values in times.items():
            if not values:
                continue
            row = Row(column.what, name, statistics.median(values), column.unit, size, in_file_only=column.in_file_only)
            ours = over.get(name, first)
            if name != ours and times.get(ours) and min(*times[ours], *values) > 0:  # extra memory may be none at all
                share, spread = ratio(times[ours], values)
                row = replace(row, ratio=share, ratio_of=ours, spread=spread)
            yield replace(row, aim=_aim(column, row, first)) if has_aims else row


def _aim(column: Column, row: Row, first: str) -> Aim | None:
    if column.most is not None and row.who == first:
        return Aim(column.most, "value")
    if row.ratio is not None and row.who in column.aims:
        return Aim(column.aims[row.who])
    return None


def numbers(runs: list[Facts], names: Sequence[str]) -> list[float]:
    """The sums of the facts of these names, of each round or turn that has them all."""
    found: list[float] = []
    for facts in runs:
        for taken in [facts, *facts["turns"]]:
            if all(name in taken for name in names):
                found.append(sum(taken[name] for name in names))
    return found
