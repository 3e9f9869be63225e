"""What a benchmark found: its rows, with targets, and the machine, versions and command, kept as a JSON file."""

import json
import math
import os
import platform
import re
import resource
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
SMALLEST_MISS = 0.0005  # a share of the limit; less would be shown as 0.0 %


@dataclass(frozen=True)
class Aim:
    """The target of a row: a limit of its ratio, or of its value."""

    limit: float
    of: Literal["ratio", "value"] = "ratio"
    bound: Literal["at most", "at least"] = "at most"


@dataclass(frozen=True)
class Row:
    """One number of one contestant.

    `ratio` is the value of `ratio_of`, which is ptree or a way to use it, over the value of this row: below 1 ptree takes less.
    """

    what: str
    who: str
    value: float | None
    """None where a ratio alone was kept."""
    unit: str
    """`s`, `B` for bytes, `%`, or any other word; empty for a count."""
    size: str = ""
    ratio: float | None = None
    ratio_of: str = "ptree"
    spread: float | None = None
    """Half the distance between the quartiles of the ratios."""
    aim: Aim | None = None
    in_file_only: bool = False
    """The tables for readers leave it out."""

    @property
    def missed_by(self) -> float | None:
        """By which share of the limit the target is missed; None if it is met, or if there is none."""
        if self.aim is None:
            return None
        found = self.ratio if self.aim.of == "ratio" else self.value
        assert found is not None, f"{self.what}, {self.who}: a target for a number that is not there"
        over = found / self.aim.limit - 1 if self.aim.limit else found
        if self.aim.bound == "at least":
            over = -over
        return over if over >= SMALLEST_MISS else None


@dataclass(frozen=True)
class Result:
    benchmark: str
    command: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[Row]
    seconds: float | None = None
    """Of wall time, for all of it."""
    processor_seconds: float | None = None
    """Of all its processes."""
    note: str = ""
    """Where the numbers come from, if the script did not write this file itself."""


# ------------------------------------------------------------------------------------ files


def write(path: Path, result: Result) -> None:
    """Write a result as JSON, one row a line, so that a change of a number is a change of a line."""
    found = {name: value for name, value in asdict(result).items() if value not in (None, "")}
    rows = [json.dumps(_compact(row)) for row in result.rows]
    head = json.dumps({**found, "rows": []}, indent=1)
    text = head.replace('"rows": []', '"rows": [\n  ' + ",\n  ".join(rows) + "\n ]")
    path.write_text(text + "\n")


def _compact(row: Row) -> dict[str, Any]:
    """The fields that differ from their defaults, numbers to five digits; and whether the target is met."""
    found: dict[str, Any] = {}
    for each in fields(row):
        value = getattr(row, each.name)
        if value == each.default:
            continue
        if isinstance(value, float):
            value = float(f"{value:.5g}")
        found[each.name] = asdict(value) if isinstance(value, Aim) else value
    if row.aim is not None:
        found["met"] = row.missed_by is None
    return found


def read(path: Path) -> Result:
    found = json.loads(path.read_text())
    rows = []
    for row in found["rows"]:
        if "aim" in row:
            row["aim"] = Aim(**row["aim"])
        row.pop("met", None)  # which follows from the target
        rows.append(Row(**row))
    return Result(**{**found, "rows": rows})


def read_all(folder: Path = RESULTS) -> dict[str, list[Result]]:
    """Benchmark -> its results, that of this project's usual machine (`NAME.json`) before those of others (`NAME.MACHINE.json`)."""
    found: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.name.count("."), path.name)):
        result = read(path)
        found.setdefault(result.benchmark, []).append(result)
    return found


def read_first(folder: Path = RESULTS) -> dict[str, Result]:
    """Benchmark -> its result on this project's usual machine, or else on another one."""
    return {name: results[0] for name, results in read_all(folder).items()}


# -------------------------------------------------------------------------- where it was measured


def machine() -> dict[str, Any]:
    """The processor, its cores and how many of them this process may use, the system, and the accelerator that JAX finds."""
    import jax

    device = jax.devices()[0]
    accelerator = "none" if device.platform == "cpu" else device.device_kind
    system = f"{platform.system()} {platform.machine()}"
    cores = {"cores": os.cpu_count(), "cores_used": _usable_cores()}
    return {"processor": _processor(), **cores, "system": system, "accelerator": accelerator}


def _usable_cores() -> int | None:
    """The cores that the system gives this process."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    """The name of the processor's model, as Linux knows it."""
    about = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", about.read_text()) if about.exists() else None
    return found[1] if found else platform.processor() or "not known"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # whoever needs it says so
    return found


def command() -> str:
    """The command line of this process, without the option that names the file of results."""
    arguments = list(sys.argv[1:])
    if "--json" in arguments:
        at = arguments.index("--json")
        del arguments[at : at + 2]
    folder = os.environ.get("TMPDIR")  # on which disk files are written
    before = f"TMPDIR={shlex.quote(folder)} " if folder else ""
    return before + shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])


def processor_seconds() -> float:
    """Seconds of the processor that this process and the ones that it waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def today() -> str:
    return date.today().isoformat()


# ---------------------------------------------------------------------------------- as text

SCALES = {
    "s": [(1, "s"), (1e-3, "ms"), (1e-6, "us")],
    "B": [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")],
}
HEAD = "| what | who | measured | ptree / this | target | off target by |\n| --- | --- | ---: | ---: | ---: | ---: |"


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit, as people write it: `6.1 us`, `475 MiB`, `148`; nothing for None.

    >>> quantity(0.0061, "s"), quantity(475 * 2**20, "B"), quantity(124_439_808, "")
    ('6.1 ms', '475 MiB', '124,439,808')
    """
    if value is None:
        return ""
    for scale, name in SCALES.get(unit, []):
        if value >= scale:
            return f"{number(value / scale)} {name}"
    if unit in SCALES:
        scale, name = SCALES[unit][-1]
        return f"{number(value / scale)} {name}"
    return f"{number(value)} {unit}".strip()


def number(value: float) -> str:
    """Three digits, or all before the point.

    >>> [number(value) for value in (0.123456, 12.3, 7_879.2, 0, 3.6e-6)]
    ['0.123', '12.3', '7,879', '0', '3.6e-06']
    """
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratio_text(row: Row) -> str:
    if row.ratio is None:
        return ""
    text = share_text(row.ratio)
    if row.spread is not None:
        text += f" ± {row.spread:.2g}"
    return text if row.ratio_of == "ptree" else f"{text} ({row.ratio_of})"


def share_text(share: float) -> str:
    """Two digits after the point; three where targets are close; two that are not 0 below 0.1.

    >>> [share_text(share) for share in (14.234, 1.2345, 1.0234, 0.5678, 0.04321, 0.0000592)]
    ['14.23', '1.23', '1.023', '0.57', '0.043', '0.000059']
    """
    if 0.9 <= share < 1.1:
        return f"{share:.3f}"
    if share >= 0.1 or share <= 0:
        return f"{share:.2f}"
    digits = 1 - math.floor(math.log10(share))
    return f"{share:.{digits}f}"


def aim_text(row: Row) -> str:
    if row.aim is None:
        return ""
    limit = quantity(row.aim.limit, row.unit) if row.aim.of == "value" else number(row.aim.limit)
    return f"{row.aim.bound} {limit}"


def missed_text(row: Row) -> str:
    if row.missed_by is None:
        return ""
    share = 100 * row.missed_by
    return f"{share:.1f} %" if share < 1 else f"{share:,.0f} %"


def line(row: Row) -> str:
    """A row of the Markdown table under `HEAD`."""
    what = f"{row.what}, {row.size}" if row.size else row.what
    cells = [what, row.who, quantity(row.value, row.unit), ratio_text(row), aim_text(row), missed_text(row)]
    return "| " + " | ".join(cells) + " |"


def table(rows: Sequence[Row]) -> str:
    return "\n".join([HEAD, *map(line, rows)])


def cores_text(place: dict[str, Any]) -> str:
    """The cores of a machine; of one on which the benchmark could use a part of them, how many.

    >>> cores_text({"cores": 2}), cores_text({"cores": 16, "cores_used": 2})
    ('2 cores', '2 of 16 cores')
    """
    cores = place["cores"]
    used = place.get("cores_used", cores)
    return f"{cores} cores" if used == cores else f"{used} of {cores} cores"


def place_text(result: Result) -> str:
    """The machine, the versions and the date, in a line."""
    place = result.machine
    parts = [f"{place['processor']}, {cores_text(place)}", place["system"]]
    if place.get("accelerator", "none") != "none":
        parts.insert(0, place["accelerator"])
    if place.get("load", 0) > 1:
        parts.append(f"busy with {place['load']:.1f} other processes at the start")
    parts += [f"{name} {release}" for name, release in result.versions.items()]
    return ", ".join([*parts, result.date])
