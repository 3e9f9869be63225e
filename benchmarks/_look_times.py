"""The least time of the processor that each of several functions takes, and a table of these times."""

import time
from collections.abc import Callable, Mapping
from typing import Any

Functions = Mapping[str, Callable[[], Any]]


def least_times(functions: Functions, rounds: int = 5) -> dict[str, float]:
    """Seconds of the processor that each takes, at the least."""
    times = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name] = min(times[name], time.process_time() - start)
    return times


def print_times(title: str, times: Mapping[str, float], base: str, unit: str = "ms") -> None:
    print(f"\n{title}")
    scale = {"ms": 1e3, "us": 1e6}[unit]
    for name, seconds in times.items():
        print(f"  {name:44} {seconds * scale:10.2f} {unit}  {seconds / times[base]:8.3f}")
