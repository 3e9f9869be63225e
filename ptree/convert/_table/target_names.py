"""TargetNames: how paths are written as names of the target, with dots or slashes, and which names of `like` a pattern matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ..._edit import paths
from ..._paths.dotted_names import paths_of_names
from ..._tree import PyTree
from ..._words import quoted
from .names import NamePattern
from .row import Row

T = TypeVar("T")


class TargetNames:
    """The names of the target: those of `like`, or else written as the patterns of the rows are."""

    def __init__(self, rows: Sequence[Row], like: PyTree):
        self._names: dict[str, str] = {}
        """Path -> name, of all names in `like`."""
        self._has_like = like is not None
        if like is not None:
            self._names = paths_of_names(paths(like, aliases=True))
        patterns = [pattern for row in rows for pattern in row.targets]
        dotted = [pattern for pattern in patterns if pattern.is_dotted]
        slashed = [pattern for pattern in patterns if "/" in pattern.text]
        by_like = any(path != name for path, name in self._names.items())
        self._is_dotted = by_like if self._has_like else bool(dotted)
        self._of_both_kinds = (dotted[0].text, slashed[0].text) if dotted and slashed else None

    def problems(self) -> list[str]:
        """A sentence where rows write names with dots and others with slashes, and no `like` says which are right."""
        if self._has_like or self._of_both_kinds is None:
            return []
        dotted, slashed = self._of_both_kinds
        return [
            f"the rows write names with dots, such as {quoted(dotted)}, and names with slashes, such as {quoted(slashed)}: write"
            " all in one way, or give `like`, whose names they then get"
        ]

    def name_of(self, path: str, pattern: NamePattern | None = None) -> str:
        """The name of a path in the target, which a pattern wrote."""
        if pattern is not None and pattern.text in self._names:  # a dot in it may be a part of the name
            return self._names[pattern.text]
        if path in self._names:
            return self._names[path]
        return path.replace("/", ".") if self._is_dotted else path

    def required(self, pattern: NamePattern) -> list[str]:
        """The names that a constant is written to: those of `like` that a pattern matches; without `like` all that it can match.

        None of a pattern with `*`, which may stand for anything.
        """
        if self._has_like:
            return [name for path, name in self._names.items() if pattern.read(path) is not None]
        return [self.name_of(path) for path in pattern.all_paths()]

    def matching(self, pattern: NamePattern, values: Mapping[str, T]) -> dict[str, tuple[str, T]]:
        """The values whose names a pattern matches: their name as it is given -> the name in the target, and the value."""
        found: dict[str, tuple[str, T]] = {}
        for path, name in paths_of_names(values).items():
            if pattern.read(path) is not None:
                found[name] = (self.name_of(path), values[name])
        return found
