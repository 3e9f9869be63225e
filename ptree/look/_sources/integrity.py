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
    problems = {path: _problem(source, path) for path in source.leaves}
    of_leaves = tuple(f"{source.shown(path)} {problem}" for path, problem in problems.items() if problem)
    with_checksum = sum(map(source.has_checksum, source.leaves))
    return Damage(source.title, len(source.leaves), with_checksum, source.damage, of_leaves)


def _problem(source: Source, path: str) -> str:
    """What is wrong with a leaf, to follow its path: "is damaged: ..."; "" where it can be read and has its checksum."""
    known = source.leaves[path].problem
    if known:
        return known
    try:
        if isinstance(source, StoredSource) and source.has_checksum(path):
            return "" if source.is_whole(path) else DAMAGED
        # to its end: a reader of files of other programs compares the checksums that their formats have
        for _ in source.chunks(path):
            pass
    except FileError as error:
        return f"is damaged: {error.damage}" if error.damage else f"cannot be read: {error}"
    except OSError as error:
        return f"cannot be read: {error}"
    return ""
