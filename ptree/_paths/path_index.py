"""Suggest the pattern that was likely meant where one matches no path: PathIndex."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from .._words import nearest
from .pattern_syntax import escape
from .patterns import Pattern, compile

# Bounds on one suggestion: 50 misspelt patterns for 20,000 leaves are to take less than a second together.
_MOST_SEGMENTS = 32
_MOST_CHARACTERS = 1000
_MOST_PATHS = 300
_MOST_NAMES = 500
_MOST_LOOKUPS = 20_000
_MOST_COMPARED = 20


class PathIndex:
    """The names in a list of paths, for suggestions about many patterns.

    The names are indexed at the first suggestion. Each suggestion then takes a few milliseconds at most, however many
    paths there are: only so many names and paths are tried.

    >>> index = PathIndex(["blocks/0/attn/kernel", "blocks/0/attn/bias"])
    >>> index.suggest("blocks/*/atn/kernel"), index.suggest("kernel"), index.suggest("optimiser")
    ('blocks/*/attn/kernel', '**/kernel', None)
    """

    def __init__(self, paths: Sequence[str]):
        self._paths = paths

    def suggest(self, text: str) -> str | None:
        """A pattern near to this one that matches a path: deeper, or with the nearest of the names that are there.

        Braces are not looked into: a pattern with braces is only tried deeper.

        Raises:
            PatternError: the text is no pattern.
        """
        if len(text) > _MOST_CHARACTERS or text.count("/") >= _MOST_SEGMENTS:
            return None
        mended = self._mend(text)
        candidates = dict.fromkeys((f"**/{text}", mended, f"**/{mended}"))
        for candidate in candidates:
            if candidate != text and self._matches_a_path(compile(candidate)):
                return candidate
        return None

    # ------------------------------------------------------------------ segments that no path has

    def _mend(self, text: str) -> str:
        """The pattern with the nearest name in the place of each segment that fits no name."""
        if "{" in text:
            return text
        return "/".join(self._mend_segment(segment) for segment in text.split("/"))

    def _mend_segment(self, segment: str) -> str:
        if segment == "**" or self._fits_a_name(compile(segment)):
            return segment
        near = nearest(segment, self._similar_names(segment))
        return segment if near is None else escape(near)

    def _fits_a_name(self, segment: Pattern) -> bool:
        if segment.literal is not None:
            return segment.literal[0] in self._paths_with
        if len(self._paths_with) > _MOST_NAMES:
            return True  # too many to try, and a wildcard is rarely misspelt
        return any(segment.matches(name) for name in self._paths_with)

    def _similar_names(self, name: str) -> list[str]:
        """The names that share the most pairs of characters with this one."""
        shared: Counter[str] = Counter()
        looked_up = 0
        for pair in sorted(set(_pairs(name)), key=lambda pair: len(self._names_with.get(pair, ()))):
            names = self._names_with.get(pair, [])
            looked_up += len(names)
            if looked_up > _MOST_LOOKUPS:
                break
            shared.update(names)
        return [name for name, _ in shared.most_common(_MOST_COMPARED)]

    @cached_property
    def _names_with(self) -> dict[str, list[str]]:
        """For each pair of neighbouring characters the names that hold it."""
        found: dict[str, list[str]] = {}
        for name in self._paths_with:
            for pair in set(_pairs(name)):
                found.setdefault(pair, []).append(name)
        return found

    # --------------------------------------------------------------------------- paths

    @cached_property
    def _paths_with(self) -> dict[str, list[str]]:
        """For each name the paths that hold it."""
        found: dict[str, list[str]] = {}
        for path in self._paths:
            for name in set(path.split("/")):
                found.setdefault(name, []).append(path)
        return found

    def _matches_a_path(self, pattern: Pattern) -> bool:
        paths = self._paths_to_try(pattern)
        stride = max(1, len(paths) // _MOST_PATHS)
        return any(pattern.matches(path) for path in paths[::stride])

    def _paths_to_try(self, pattern: Pattern) -> Sequence[str]:
        """The paths that hold the rarest name of the pattern; all where it spells none."""
        if len(pattern.spellings) > 1:
            return self._paths
        fewest = self._paths
        for part in pattern.spellings[0].parts:
            if isinstance(part, str):
                with_name = self._paths_with.get(part, [])
                fewest = min(fewest, with_name, key=len)
        return fewest


def _pairs(name: str) -> Iterator[str]:
    """Neighbouring characters, with the first and the last character once more on their own."""
    marked = f"\0{name}\0"
    for at in range(len(marked) - 1):
        yield marked[at : at + 2]
