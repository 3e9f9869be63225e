"""Part files of a history: numbers of consecutive steps as safetensors, `[step, leaf]` for each statistic; written, read, cut, merged."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..._errors import FileError
from ..._stored.stored import open_stored
from .._sources.stored_source import StoredSource

Group: TypeAlias = tuple[str, tuple[str, ...], tuple[int, ...]]
"""The name of a group, the paths of its leaves, and how many numbers each has."""

STATISTICS = ("mean", "norm", "largest")
"""Of each leaf of each group of `observe`."""

_LARGEST = 32 << 20
"""Bytes of a part: so much is in memory at a time."""
_NAME = re.compile(r"steps-(\d{12})-(\d{12})\.safetensors")
_SCALARS = "scalars/"


@dataclass(frozen=True)
class Part:
    """What was recorded in some steps, in the order of the steps."""

    steps: np.ndarray
    groups: tuple[Group, ...]
    numbers: Mapping[str, np.ndarray]
    """`grads/norm` -> f32[step, leaf]."""
    scalars: Mapping[str, np.ndarray]
    """`loss` -> f64[step]."""

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.steps, *self.numbers.values(), *self.scalars.values()))

    def fits(self, other: Part) -> bool:
        """Whether both hold the same leaves and scalars, so that one file can hold them."""
        return self.groups == other.groups and self.scalars.keys() == other.scalars.keys()

    def cut(self, step: int) -> Part:
        """The steps before this one."""
        return self._with_rows(slice(0, int(np.searchsorted(self.steps, step))))

    def _with_rows(self, rows: slice) -> Part:
        numbers = {name: array[rows] for name, array in self.numbers.items()}
        return Part(self.steps[rows], self.groups, numbers, {name: array[rows] for name, array in self.scalars.items()})


def joined(first: Part, second: Part) -> Part:
    """Two parts of the same leaves as one."""
    return Part(
        np.concatenate([first.steps, second.steps]),
        first.groups,
        {name: np.concatenate([array, second.numbers[name]]) for name, array in first.numbers.items()},
        {name: np.concatenate([array, second.scalars[name]]) for name, array in first.scalars.items()},
    )


@dataclass(frozen=True)
class PartFile:
    """A part on the disk: its path and the range of its steps."""

    path: Path
    first: int
    last: int

    def read(self, only: Collection[str] | None = None) -> Part:
        """The part; of its numbers only these statistics, such as `grads/norm`, where they are given."""
        stored = open_stored(str(self.path), verify=True, mmap=False)
        with StoredSource(stored) as source:
            groups = _groups_in(stored.metadata, self.path)
            names = names_of_numbers(groups)
            numbers = {name: source.values(name) for name in names if only is None or name in only}
            scalars = {
                name.removeprefix(_SCALARS): source.values(name) for name in source.leaves if name.startswith(_SCALARS)
            }
            return Part(source.values("step"), groups, numbers, scalars)


def names_of_numbers(groups: Sequence[Group]) -> list[str]:
    """`params/mean`, `params/norm`, ..."""
    return [f"{name}/{statistic}" for name, _, _ in groups for statistic in STATISTICS]


def _groups_in(metadata: Mapping[str, str], path: Path) -> tuple[Group, ...]:
    try:
        stated = json.loads(metadata["history"])
        return tuple((name, tuple(paths), tuple(counts)) for name, paths, counts in stated)
    except (KeyError, ValueError, TypeError) as error:
        raise FileError(f"{str(path)!r} is no part of a history: it does not name its leaves") from error


def write_part(folder: Path, part: Part) -> PartFile:
    """Write a part; a crash leaves a whole file or none."""
    from ...files import save  # with JAX, which reading does without

    first, last = int(part.steps[0]), int(part.steps[-1])
    path = folder / f"steps-{first:012d}-{last:012d}.safetensors"
    tree = {"step": part.steps, **part.numbers, **{_SCALARS + name: array for name, array in part.scalars.items()}}
    save(path, tree, metadata={"history": json.dumps(part.groups)})
    return PartFile(path, first, last)


def part_files(folder: Path) -> list[PartFile]:
    """The parts in a folder by step. A part inside the range of another was merged into it before a crash."""
    found: list[PartFile] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name:
            found.append(PartFile(path, int(name[1]), int(name[2])))
    found.sort(key=lambda file: (file.first, -file.last))
    kept: list[PartFile] = []
    for file in found:
        if not kept or file.last > kept[-1].last:
            kept.append(file)
    return kept


def add_part(folder: Path, part: Part) -> None:
    """Write a part, after those that there are, and merge the last ones, so that there are few files.

    Two are merged where the later one is at least half as large: a number is written again a few times in all.
    """
    write_part(folder, part)
    files = part_files(folder)
    while len(files) > 1 and _should_merge(files[-2], files[-1]):
        earlier, later = files[-2].read(), files[-1].read()
        if not earlier.fits(later):
            return
        write_part(folder, joined(earlier, later))
        for file in files[-2:]:
            file.path.unlink()
        files = part_files(folder)


def _should_merge(earlier: PartFile, later: PartFile) -> bool:
    before, after = earlier.path.stat().st_size, later.path.stat().st_size
    return 2 * after >= before and before + after <= _LARGEST


def drop_from(folder: Path, step: int) -> None:
    """Remove this step and all later ones: a run that went back to an earlier checkpoint records them again."""
    for file in reversed(part_files(folder)):
        if file.last < step:
            return
        if file.first < step:
            write_part(folder, file.read().cut(step))
        file.path.unlink()


def read_parts(folder: Path, only: Collection[str] | None) -> Iterator[Part]:
    """All parts on the disk by step, one in memory at a time."""
    for file in part_files(folder):
        yield file.read(only)
