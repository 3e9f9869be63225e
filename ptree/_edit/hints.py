"""Hints for patterns that match nothing in a tree: why, and the path or name that was likely meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from .._paths import PathIndex, Pattern, unused_alternatives
from .._tree import PyTree, entries, leaves, locate, stacked_axes, where_it_stops
from .._words import listed, nearest, quoted


class Hints:
    """Hints for the patterns of one tree. Its paths are listed and indexed once, for the first pattern."""

    def __init__(self, tree: PyTree):
        self.tree = tree

    @cached_property
    def _names(self) -> list[str]:
        return [*entries(self.tree)]

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
        which = (
            f"alternative {quoted(unused[0])} matches" if len(unused) == 1 else f"alternatives {listed(unused)} match"
        )
        near = nearest(unused[0], self._segments)
        hint = "" if near is None else f" Did you mean {quoted(near)}?"
        return [f"in the pattern {quoted(pattern.text)} the {which} nothing.{hint}"]

    def why_unmatched(self, pattern: Pattern) -> str:
        """One line on why a pattern matches no leaf, with the path that was likely meant."""
        attempt = f"the pattern {quoted(pattern.text)} matches nothing"
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

    def _where_it_stops(self, text: str, segments: Sequence[str]) -> str:
        if locate(self.tree, segments) is not None:
            return "there is no leaf below it"
        stops = where_it_stops(self.tree, segments)
        if "Did you mean" in stops:
            return stops
        deeper = self._index.suggest(text)
        return stops if deeper is None else f"{stops} Did you mean {quoted(deeper)}?"
