"""Claim: `import ptree` costs at most 15 ms over `import jax`.

Run it with `python benchmarks/imports.py`. Each measurement is a fresh process; the first compiles the
bytecode and is shown apart.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile

import jax

CODE = "import jax, time; start = time.perf_counter(); import ptree; print(time.perf_counter() - start)"


def milliseconds(environment: dict[str, str]) -> float:
    out = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, text=True
    ).stdout
    return float(out) * 1e3


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        print(f"first import, bytecode not compiled yet: {milliseconds(environment):5.1f} ms")
        times = [milliseconds(environment) for _ in range(9)]
        print(f"later imports, median of {len(times)}:           {statistics.median(times):5.1f} ms")


if __name__ == "__main__":
    main()
