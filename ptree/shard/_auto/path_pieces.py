"""Paths by the pieces between their slashes and dots, so that a pattern is tried only on those that have the names in it."""

from __future__ import annotations

import re
from collections.abc import Sequence


class PathsByPiece:
    """Paths by their pieces.

    >>> paths = PathsByPiece(["enc/kernel", "dec/kernel", "dec.bias"])
    >>> paths.with_names(["enc", "kernel"]), paths.with_names([])
    (['enc/kernel'], ['enc/kernel', 'dec/kernel', 'dec.bias'])
    """

    def __init__(self, paths: Sequence[str]):
        self._paths = paths
        self._with_piece: dict[str, list[str]] = {}
        for path in paths:
            for piece in {*_pieces(path)}:
                self._with_piece.setdefault(piece, []).append(path)

    def with_names(self, names: Sequence[str]) -> Sequence[str]:
        """The paths that have the rarest piece of these names: all that have all of them, and some more."""
        fewest = self._paths
        for name in names:
            for piece in _pieces(name):
                fewest = min(fewest, self._with_piece.get(piece, []), key=len)
        return fewest


def _pieces(text: str) -> list[str]:
    return re.split(r"[/.]", text)
