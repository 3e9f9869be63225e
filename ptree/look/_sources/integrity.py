"""Whether a file is whole: each leaf is read, and compared with its checksum where the file has one."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import FileError
from ..._words import quoted
from .source import Source
from .stored_source import StoredSource


@dataclass(frozen=True)
class Damage:
    """What was found in a file: a sentence for each leaf that is damaged or cannot be read."""

    title: str
    leaves: int
    with_checksum: int
    problems: tuple[str, ...]

    def verdict(self) -> str:
        if self.problems:
            return f"{self.title}: {len(self.problems)} of {self.leaves} leaves are damaged or cannot be read"
        if self.with_checksum == self.leaves:
            return f"{self.title}: whole, {self.leaves} leaves are what their checksums say"
        without = self.leaves - self.with_checksum
        return f"{self.title}: {self.leaves} leaves can be read; {without} of them have no checksum, so changed numbers would not show"


def damage_of(source: Source) -> Damage:
    """Read all leaves of a source, and compare those that have a checksum."""
    problems: list[str] = []
    with_checksum = 0
    for path in source.leaves:
        has_checksum = isinstance(source, StoredSource) and source.checksum(path) != ""
        with_checksum += has_checksum
        try:
            if isinstance(source, StoredSource) and has_checksum:
                problem = _mismatch(source, path)
            else:
                problem = _read_through(source, path)
        except (FileError, OSError) as error:
            problem = str(error)
        if problem:
            problems.append(problem)
    return Damage(source.title, len(source.leaves), with_checksum, tuple(problems))


def _mismatch(source: StoredSource, path: str) -> str:
    return "" if source.is_whole(path) else f"{quoted(path)} is damaged: its bytes are not what its checksum says"


def _read_through(source: Source, path: str) -> str:
    """Read a leaf without a checksum to its end; the checksums of an archive and of Orbax are compared by the reader."""
    if source.leaves[path].problem:
        return f"{quoted(path)} {source.leaves[path].problem}"
    for _ in source.chunks(path):
        pass
    return ""
