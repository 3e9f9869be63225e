"""Suggest the pattern that was likely meant for one that matches no path: an index of names by the characters they share."""

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
    """Index of the names in a list of paths, which suggests what many misspelt patterns likely meant.

    The names are indexed at the first suggestion. Each suggestion then takes a few milliseconds at most, however many
    paths there are: only so many names and paths are tried.

    >>> index = PathIndex(["blocks/0/attn/kernel", "blocks/0/attn/bias"])
    >>> index.suggest("blocks/*/atn/kernel"), index.suggest("kernel"), index.suggest("optimiser")
    ('blocks/*/attn/kernel', '**/kernel', None)
    """

    def __init__(self, paths: Sequence[str]):
        self._paths = paths

    def suggest(self, text: str) -> str | None:
        """Suggest a pattern near to this one that matches a path: deeper in the tree, or with misspelt names replaced.

        Names inside braces are not replaced: a pattern with braces is only tried deeper.

        Raises:
            PatternError: the text is not a valid pattern.
        """
        if len(text) > _MOST_CHARACTERS or text.count("/") >= _MOST_SEGMENTS:
            return None
        mended = self._mend(text)
        # Most likely first. A dict, because they are equal where nothing was replaced.
        candidates = dict.fromkeys((f"**/{text}", mended, f"**/{mended}"))
        for candidate in candidates:
            if candidate != text and self._matches_a_path(compile(candidate)):
                return candidate
        return None

    # ------------------------------------------------------------------ misspelt segments

    def _mend(self, text: str) -> str:
        """Replace each segment that fits no name by the nearest name."""
        if "{" in text:  # braces may hold slashes, so the text cannot be split into segments
            return text
        return "/".join(self._mend_segment(segment) for segment in text.split("/"))

    def _mend_segment(self, segment: str) -> str:
        if segment == "**" or self._fits_a_name(compile(segment)):
            return segment
        near = nearest(segment, self._similar_names(segment))
        return segment if near is None else escape(near)

    def _fits_a_name(self, segment: Pattern) -> bool:
        if segment.literal is not None:
            return segment.literal[0] in self._paths_with  # one look-up, however many names there are
        if len(self._paths_with) > _MOST_NAMES:
            return True  # too many to try, and a wildcard is rarely misspelt
        return any(segment.matches(name) for name in self._paths_with)

    def _similar_names(self, name: str) -> list[str]:
        """The names that share the most pairs of characters with this one."""
        shared: Counter[str] = Counter()
        looked_up = 0
        lists = [self._names_with.get(pair, []) for pair in set(_pairs(name))]
        # The rarest pairs first: they say most about a name, and the bound cuts off only the common ones.
        for names in sorted(lists, key=len):
            looked_up += len(names)
            if looked_up > _MOST_LOOKUPS:
                break
            shared.update(names)
        return [name for name, _ in shared.most_common(_MOST_COMPARED)]

    @cached_property
    def _names_with(self) -> dict[str, list[str]]:
        """Map each pair of neighbouring characters to the names that contain it."""
        found: dict[str, list[str]] = {}
        for name in self._paths_with:
            for pair in set(_pairs(name)):
                found.setdefault(pair, []).append(name)
        return found

    # --------------------------------------------------------------------------- paths

    @cached_property
    def _paths_with(self) -> dict[str, list[str]]:
        """Map each name to the paths that contain it."""
        found: dict[str, list[str]] = {}
        for path in self._paths:
            for name in set(path.split("/")):
                found.setdefault(name, []).append(path)
        return found

    def _matches_a_path(self, pattern: Pattern) -> bool:
        paths = self._paths_to_try(pattern)
        # Spread over the whole list: neighbouring paths are alike, so the first 300 would say little.
        stride = max(1, len(paths) // _MOST_PATHS)
        return any(pattern.matches(path) for path in paths[::stride])

    def _paths_to_try(self, pattern: Pattern) -> Sequence[str]:
        """The paths that contain the rarest name of the pattern; all paths if it has no name without wildcards."""
        if len(pattern.spellings) > 1:  # no single name is in all of its matches
            return self._paths
        fewest = self._paths
        for part in pattern.spellings[0].parts:
            if isinstance(part, str):
                with_name = self._paths_with.get(part, [])
                fewest = min(fewest, with_name, key=len)
        return fewest


def _pairs(name: str) -> Iterator[str]:
    """The pairs of neighbouring characters of a name, by which similar names are found in the index."""
    # Marked ends, so that the first and the last character count twice: they are rarely misspelt.
    marked = f"\0{name}\0"
    for at in range(len(marked) - 1):
        yield marked[at : at + 2]
