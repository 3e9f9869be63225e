"""The part `diff` of look.py: two files of 500 MB are compared in at most 1.5 times reading both, with 64 MiB at most."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _command import Given
from _results import Aim, Row
from _timing import rows_of_times
from safetensors.numpy import load_file, save_file

import ptree as pt

Leaves = dict[str, np.ndarray]
ROUNDS = 2  # of each process in itself
MANY = 100_000


class Cost(NamedTuple):
    seconds: float
    """Of the processor."""
    peak: float
    """MiB of memory."""


def gpt2_small(shrink: int) -> Leaves:
    """148 leaves; 124,439,808 numbers, 498 MB, if they are not smaller to try this out."""
    draw, width = np.random.default_rng(0), 768 // shrink
    shapes: dict[str, tuple[int, ...]] = {"wte/weight": (50257 // shrink, width), "wpe/weight": (1024, width)}
    kernels = {
        "attn/c_attn": (width, 3 * width),
        "attn/c_proj": (width, width),
        "mlp/c_fc": (width, 4 * width),
        "mlp/c_proj": (4 * width, width),
    }
    for layer in range(12):
        for name, shape in kernels.items():
            shapes |= {f"h/{layer}/{name}/weight": shape, f"h/{layer}/{name}/bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h/{layer}/{name}/weight": (width,), f"h/{layer}/{name}/bias": (width,)}
    shapes |= {"ln_f/weight": (width,), "ln_f/bias": (width,)}
    return {name: 0.02 * draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write_files(folder: Path, shrink: int) -> None:
    """A model, the same again, one that was trained on, one of other names, one in bfloat16, and two of many leaves."""
    from ml_dtypes import bfloat16

    draw, leaves = np.random.default_rng(1), gpt2_small(shrink)
    save_file(leaves, folder / "model.safetensors")
    save_file(leaves, folder / "same.safetensors")
    save_file({f"transformer/{name}": leaf for name, leaf in leaves.items()}, folder / "renamed.safetensors")
    save_file({name: leaf.astype(bfloat16) for name, leaf in leaves.items()}, folder / "bfloat16.safetensors")
    pt.save(folder / "with checksums.safetensors", leaves)
    pt.save(folder / "with checksums, same.safetensors", leaves)
    for leaf in leaves.values():
        leaf += np.float32(2e-4) * draw.standard_normal(leaf.shape, np.float32)
    save_file(leaves, folder / "changed.safetensors")
    many = {f"h/{at // 100}/{at % 100}/w": draw.standard_normal((4, 8), np.float32) for at in range(MANY // shrink)}
    save_file(many, folder / "many.safetensors")
    save_file({name: leaf + 1 for name, leaf in many.items()}, folder / "many, changed.safetensors")


# ------------------------------------------------------------------------ what is measured


def read_both(a: Path, b: Path) -> None:
    """Read all bytes of both files, into one small buffer: the least that anyone must do."""
    buffer = bytearray(1 << 18)
    for path in (a, b):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def load_both(a: Path, b: Path) -> None:
    """Read both files into memory, as most programs do."""
    load_file(a)
    load_file(b)


def by_hand(a: Path, b: Path) -> dict[str, float]:
    """What one writes in NumPy: relative sizes, of files that fit in memory."""
    before, after = load_file(a), load_file(b)
    return {
        name: float(np.linalg.norm(after[name] - leaf) / np.linalg.norm(leaf)) for name, leaf in before.items()
    }  # fmt: skip


def by_ptree(a: Path, b: Path, **options: Any) -> dict[str, float]:
    from ptree.look import diff

    return {row.path: row.relative or 0.0 for row in diff(a, b, **options).rows}


WAYS: Mapping[str, Callable[[Path, Path], object]] = {
    "ptree": by_ptree,
    "ptree, verify=False": lambda a, b: by_ptree(a, b, verify=False),
    "reading both": read_both,
    "loading both": load_both,
    "NumPy by hand": by_hand,
}


# ------------------------------------------------------------------------------- measuring


def measured(way: str, a: Path, b: Path, processes: int) -> Cost:
    """What a way costs in a process of its own, beyond Python and its imports; the least of several processes."""
    command = [sys.executable, __file__, way, str(a), str(b)]
    found = [Cost(*json.loads(subprocess.check_output(command))) for _ in range(processes)]
    return Cost(min(cost.seconds for cost in found), min(cost.peak for cost in found))


def child(way: str, a: str, b: str, *shrink: str) -> None:
    """Measure a way in this process, or write the files and check that all agree."""
    if way == "write":
        write_files(Path(a), int(shrink[0]))
        return check_equal(Path(a), b or None)
    import_module("ptree.look._diff.diff")  # what it imports is no part of the cost
    before = memory("VmRSS")
    seconds = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        WAYS[way](Path(a), Path(b))
        seconds = min(seconds, time.process_time() - start)
    print(json.dumps([seconds, memory("VmHWM") - before]))
    return None


def memory(what: str) -> float:
    """MiB of memory that this process has, or had at most, as Linux says."""
    found = re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measured_program(command: Sequence[str]) -> Cost:
    """What a whole program costs, its interpreter and imports with it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it was waited for
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def check_equal(folder: Path, sft: str | None) -> None:
    """All find the same relative sizes."""
    a, b = folder / "model.safetensors", folder / "changed.safetensors"
    ours, theirs = by_ptree(a, b), by_hand(a, b)
    assert len(ours) == 148
    np.testing.assert_allclose([ours[name] for name in theirs], [*theirs.values()], rtol=1e-3)
    assert by_ptree(a, folder / "same.safetensors") == {}
    if sft is not None:
        found = json.loads(subprocess.check_output([sft, "diff", str(a), str(b), "--delta", "--json"]))["value_diffs"]
        np.testing.assert_allclose([ours[name] for name in found], [row["rel_l2"] for row in found.values()], rtol=1e-3)


PAIRS = (
    ("two files of 498 MB, the same", "model", "same", WAYS),
    ("two files of 498 MB, all numbers changed", "model", "changed", WAYS),
    ("two files of 498 MB, renamed", "model", "renamed", ("ptree", "reading both")),
    ("a file of 498 MB and one in bfloat16", "model", "bfloat16", ("ptree", "reading both")),
    (
        "two files of 498 MB with checksums, the same",
        "with checksums",
        "with checksums, same",
        ("ptree", "ptree, verify=False", "reading both"),
    ),
    (f"two files of {MANY:,} leaves, all changed", "many", "many, changed", ("ptree", "reading both")),
)


def diff_part(given: Given) -> Iterator[Row]:
    """Rows of time and memory; sft-cli is among them where `sft` is on the PATH."""
    sft = shutil.which("sft")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: the memory of this one counts as that of the programs that it starts
        subprocess.run([sys.executable, __file__, "write", name, sft or "", str(given.shrink)], check=True)
        for title, a, b, ways in PAIRS:
            files = (folder / f"{a}.safetensors", folder / f"{b}.safetensors")
            costs = {way: measured(way, *files, processes=min(2, given.rounds)) for way in ways}
            has_aim = title.startswith("two files of 498 MB") or "bfloat16" in title
            ratios = {"reading both": 1.5} if has_aim else {}
            times = {way: cost.seconds for way, cost in costs.items()}
            yield from rows_of_times(f"diff of {title}", times, ratios=ratios)
            for way, cost in costs.items():
                aim = Aim(64 * 2**20, "value") if way == "ptree" else None
                memory = cost.peak * 2**20
                yield Row(f"diff of {title}, memory", way, memory, "B", aim=aim, in_file_only=way != "ptree")
        paths = [str(folder / "model.safetensors"), str(folder / "changed.safetensors")]
        programs = {"ptree": [sys.executable, "-m", "ptree", "diff", *paths]}
        if sft is not None:
            programs["sft diff --delta"] = [sft, "diff", *paths, "--delta"]
        times = {title: measured_program(command).seconds for title, command in programs.items()}
        yield from rows_of_times("diff, a whole program", times)


if __name__ == "__main__":
    child(*sys.argv[1:])
