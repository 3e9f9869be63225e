"""Claim: `import ptree` costs at most 15 ms over `import jax`.

Run it with `python benchmarks/imports.py`. Each measurement is a fresh process, in seconds of the processor; the first compiles
the bytecode and is shown apart.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from statistics import median

from _command import Given, Option, main
from _results import Aim, Row

CODE = "import jax, time; start = time.process_time(); import ptree; print(time.process_time() - start)"


def seconds(environment: dict[str, str]) -> float:
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def rows(given: Given) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        yield Row("`import ptree` after `import jax`, bytecode not compiled yet", "ptree", seconds(environment), "s")
        times = [seconds(environment) for _ in range(given.rounds)]
        yield Row("`import ptree` after `import jax`", "ptree", median(times), "s", aim=Aim(0.015, "value"))


if __name__ == "__main__":
    main(rows, [Option("--rounds", 9, "how many processes import it")])
