"""Whether a file is whole: each leaf is read, and compared with its checksum where the file has one."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import FileError
from .source import Source
from .stored_source import DAMAGED, StoredSource


@dataclass(frozen=True)
class Damage:
    """What was found in a file: a sentence for each problem."""

    title: str
    leaves: int
    with_checksum: int
    of_file: tuple[str, ...]
    """What is wrong beside the leaves."""
    of_leaves: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return self.of_file + self.of_leaves

    def verdict(self) -> str:
        """What was found, in the form `NAME: STATE, LEAVES`."""
        leaves = "1 leaf" if self.leaves == 1 else f"{self.leaves:,} leaves"
        if self.of_leaves:
            return f"{self.title}: damaged or unreadable, {len(self.of_leaves):,} of {leaves}"
        if self.of_file:
            return f"{self.title}: damaged, though {leaves} can be read"
        if self.with_checksum == self.leaves:
            return f"{self.title}: whole, {leaves} with the right checksum"
        without = self.leaves - self.with_checksum
        which = leaves if without == self.leaves else f"{without:,} of {leaves}"
        return f"{self.title}: readable, {which} without a checksum, so that changed numbers would not show"


def damage_of(source: Source) -> Damage:
    """Read all leaves of a source, and compare those that have a checksum."""
    problems: list[str] = []
    with_checksum = 0
    for path in source.leaves:
        has_checksum = source.has_checksum(path)
        with_checksum += has_checksum
        try:
            if source.leaves[path].problem:
                problem = f"{source.shown(path)} {source.leaves[path].problem}"
            elif isinstance(source, StoredSource) and has_checksum:
                problem = _mismatch(source, path)
            else:
                _read_through(source, path)
                problem = ""
        except (FileError, OSError) as error:
            problem = str(error)
        if problem:
            problems.append(problem)
    return Damage(source.title, len(source.leaves), with_checksum, source.damage, tuple(problems))


def _mismatch(source: StoredSource, path: str) -> str:
    return "" if source.is_whole(path) else f"{source.shown(path)} {DAMAGED}"


def _read_through(source: Source, path: str) -> None:
    """Read a leaf to its end: a reader of files of other programs compares the checksums that their formats have."""
    for _ in source.chunks(path):
        pass
