"""Clocks: seconds since the last look, the least of several turns, and ratios of turns beside each other."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from _results import Aim, Row

Functions = Mapping[str, Callable[[], Any]]
NO_AIMS: Mapping[str, float] = {}


class Clock:
    """Seconds of wall time since the last look."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        self.last, taken = now, now - self.last
        return taken


def least_times(functions: Functions, rounds: int) -> dict[str, float]:
    """Seconds of the processor that each takes, at the least; they take turns, so that a busy machine is busy for all."""
    times = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            result = function()
            times[name] = min(times[name], time.process_time() - start)
            del result  # outside of the time, and before the next one needs the memory
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """The median of the ratios of turns that were neighbours, and half the distance between their quartiles."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    if len(ratios) < 5:
        return statistics.median(ratios), None
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, (high - low) / 2


def rows_of_times(
    what: str,
    times: Mapping[str, float],
    *,
    size: str = "",
    ours: str = "ptree",
    ratios: Mapping[str, float] = NO_AIMS,
    values: Mapping[str, float] = NO_AIMS,
) -> list[Row]:
    """A row for each time in seconds, with the ratio of `ours` to it.

    Args:
        ratios: for whom there is a target for the ratio, and the most that it is to be.
        values: the same for the time itself.
    """
    rows: list[Row] = []
    for who, seconds in times.items():
        aim = None
        if who in ratios:
            aim = Aim(ratios[who])
        if who in values:
            aim = Aim(values[who], "value")
        share = None if who == ours else times[ours] / seconds
        rows.append(Row(what, who, seconds, "s", size, ratio=share, aim=aim))
    return rows


def other_ways(
    what: str, times: Mapping[str, float], base: str, ways: Sequence[str], limit: float | None = None
) -> list[Row]:
    """Rows of `base` again, with the ratios to it of other ways to use ptree."""
    aim = None if limit is None else Aim(limit)
    return [Row(what, base, times[base], "s", ratio=times[way] / times[base], ratio_of=way, aim=aim) for way in ways]
