"""Run the benchmarks one after the other, keep their results, and write the pages that show them.

    python -m benchmarks --list                      names, and when each was measured
    python -m benchmarks paths ties                  run two of them
    python -m benchmarks --all --json                run all, and keep what they found in benchmarks/results/
    python -m benchmarks --all --json --quick        the same in fewer rounds
    python -m benchmarks --tables --headlines        write benchmarks/README.md and the figures in README.md from these files

Each runs as a process of its own. `--json --machine NAME` keeps the results of another machine beside those that are there.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the scripts find each other there too

from _catalogue import BENCHMARKS  # noqa: E402
from _results import RESULTS, read, read_all, read_first, write  # noqa: E402
from _tables import PAGE, README, page, with_figures  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--all", action="store_true", help="run all")
    parser.add_argument("--list", action="store_true", help="name all, and say when each was measured")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--json", action="store_true", help="keep the results in benchmarks/results/")
    parser.add_argument(
        "--machine", default="", metavar="NAME", help="a word for another machine, in the names of its files"
    )
    parser.add_argument("--tables", action="store_true", help="write benchmarks/README.md from the results")
    parser.add_argument("--headlines", action="store_true", help="write the figures between the markers of README.md")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}, but {', '.join(BENCHMARKS)}")
    names = [*BENCHMARKS] if given.all else given.names
    if not (names or given.list or given.tables or given.headlines):
        parser.error("name benchmarks, or give --all, --list, --tables or --headlines")
    if given.list:
        print_list()
    failed = [name for name in names if not run(name, given)]
    if given.tables:
        PAGE.write_text(page(read_all()))
        print(f"wrote {PAGE}")
    if given.headlines:
        write_headlines()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def print_list() -> None:
    results = read_all()
    for name, benchmark in BENCHMARKS.items():
        dates = [
            f"{result.date} ({result.machine.get('name', result.machine['processor'])})"
            for result in results.get(name, [])
        ]
        print(f"{name:16} {benchmark.title:28} {', '.join(dates) or 'not measured yet'}")


def run(name: str, given: argparse.Namespace) -> bool:
    """Run one benchmark as a process, and say what it took; whether it ended well."""
    benchmark = BENCHMARKS[name]
    arguments = benchmark.quick if given.quick else benchmark.full
    suffix = f".{given.machine}" if given.machine else ""
    file = RESULTS / f"{name}{suffix}.json"
    print(f"\n## {name}: {benchmark.title}\n", flush=True)
    start = time.perf_counter()
    command = [sys.executable, str(HERE / benchmark.script), *arguments, *(["--json", str(file)] if given.json else [])]
    done = subprocess.run(command, check=False, env={**os.environ, **dict(benchmark.environment)})
    if done.returncode:
        return False
    print(f"took {time.perf_counter() - start:,.0f} s", flush=True)
    if given.json:
        write(file, replace(read(file), benchmark=name))
    return True


def write_headlines() -> None:
    results = read_first()
    README.write_text(with_figures(README.read_text(), results))
    print(f"wrote the figures in {README}")


if __name__ == "__main__":
    main()
