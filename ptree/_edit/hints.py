"""Hints for patterns that match nothing in a tree: why, and the path or name that was likely meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from .._errors import PatternError
from .._paths import PathIndex, Pattern, compile, unused_alternatives, unused_in_words
from .._paths.dotted_names import other_spellings
from .._tree import PyTree, entries, leaves, locate, stacked_axes, where_it_stops
from .._words import nearest, quoted

_MOST_NAMES = 1000
"""A pattern that is spelled otherwise is tried on so many names, spread over the tree."""


class Hints:
    """Hints for the patterns of one tree. Its paths are listed and indexed once, for the first pattern."""

    def __init__(self, tree: PyTree):
        self.tree = tree

    @cached_property
    def _names(self) -> list[str]:
        return [*entries(self.tree)]

    @cached_property
    def _has_dots(self) -> bool:
        return any("." in name for name in self._names)

    @cached_property
    def _segments(self) -> set[str]:
        return {segment for name in self._names for segment in name.split("/")}

    @cached_property
    def _index(self) -> PathIndex:
        return PathIndex(self._names)

    @cached_property
    def _leaf_paths(self) -> list[str]:
        return [path for path, _ in leaves(self.tree)]

    def unused_in_braces(self, pattern: Pattern, names: Sequence[str]) -> list[str]:
        """A line for the alternatives of a pattern's braces that match nothing, given the names that the pattern matches."""
        unused = unused_alternatives(pattern, names)
        if not unused:
            return []
        near = nearest(unused[0], self._segments)
        hint = "" if near is None else f" Did you mean {quoted(near)}?"
        return [f"{unused_in_words(pattern, unused)} nothing.{hint}"]

    def why_unmatched(self, pattern: Pattern) -> str:
        """One line on why a pattern matches no leaf, with the path that was likely meant."""
        attempt = f"the pattern {quoted(pattern.text)} matches nothing"
        other = self._in_other_spelling(pattern.text)
        if other is not None:
            why = "the names there have dots in them" if self._has_dots else "segments are joined by '/'"
            return f"{attempt}: {why}. Did you mean {quoted(other)}?"
        if pattern.literal is not None:
            return f"{attempt}: {self._where_it_stops(pattern.text, pattern.literal)}"
        meant = self._index.suggest(pattern.text)
        if meant is not None:
            hint = f" Did you mean {quoted(meant)}?"
        elif re.search(r"\d", pattern.text) and any(map(stacked_axes, self._leaf_paths)):
            hint = " In a stack '*' is all layers, and a whole number or {0..5} single ones"
        else:
            hint = ""
        return f"{attempt} in {len(self._leaf_paths)} leaves.{hint}"

    def _in_other_spelling(self, text: str) -> str | None:
        """The pattern with slashes for its dots, or with the dots that names in the tree have, if that matches something."""
        if not self._has_dots and "." not in text:
            return None
        spellings = other_spellings(text)
        if self._has_dots:  # what would be a node, if the dots were slashes
            spellings += [f"{spelling}.*" for spelling in (text, *spellings)]
        return next(filter(self._matches_a_name, spellings), None)

    def _matches_a_name(self, text: str) -> bool:
        try:
            pattern = compile(text)
        except PatternError:  # a dot or a slash in brackets
            return False
        if pattern.literal is not None:
            return locate(self.tree, pattern.literal) is not None
        stride = max(1, len(self._names) // _MOST_NAMES)
        return any(pattern.matches(name) for name in self._names[::stride])

    def _where_it_stops(self, text: str, segments: Sequence[str]) -> str:
        if locate(self.tree, segments) is not None:
            return "there is no leaf below it"
        stops = where_it_stops(self.tree, segments)
        if "Did you mean" in stops:
            return stops
        deeper = self._index.suggest(text)
        return stops if deeper is None else f"{stops} Did you mean {quoted(deeper)}?"
