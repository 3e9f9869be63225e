"""Captures: what each wildcard of a pattern stands for in a path, and a new path in which they are filled in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .._errors import PatternError
from .pattern_syntax import DoubleStar, Text
from .positions import Name, spans
from .spellings import Part, Path, Segment


def captures(parts: Sequence[Part], segments: Sequence[str]) -> tuple[str, ...] | None:
    """What each wildcard captures if these parts of a pattern match exactly these segments; else None."""
    found = spans(parts, Path(segments))
    if found is None:
        return None
    taken: list[str] = []
    for part, (start, end) in zip(parts, found, strict=True):
        if isinstance(part, DoubleStar):
            taken.append("/".join(segments[start:end]))
        elif isinstance(part, Segment):
            taken += _in_a_name(part, segments[start])
    return tuple(taken)


@lru_cache(maxsize=4096)  # the leaves of a tree share most of their names: a rename takes half the time
def _in_a_name(segment: Segment, name: str) -> tuple[str, ...]:
    found = spans(segment.elements, Name(name))
    assert found is not None  # the segment took this name in the match of the whole path
    taken: list[str] = []
    for element, (start, end) in zip(segment.elements, found, strict=True):
        if not isinstance(element, Text):
            taken.append(name[start:end])
    return tuple(taken)


@lru_cache(maxsize=256)  # a rename fills in one text for each leaf
def _pieces(text: str) -> list[str]:
    """The text cut up so that every second piece is a wildcard or an escaped character."""
    return re.split(r"(\\.|\*\*|\*|\?)", text)


def fill_in(text: str, captures: Sequence[str]) -> list[str]:
    """Fill the captures of a pattern into a new path, in order, for its wildcards `*`, `**` and `?`; return its segments.

    >>> fill_in("enc/*/attn", ["3"])
    ['enc', '3', 'attn']

    Raises:
        PatternError: the new path has another number of wildcards.
    """
    left = list(captures)
    holes = 0
    filled: list[str] = []
    for at, piece in enumerate(_pieces(text)):
        if at % 2 == 0:
            filled.append(piece)
        elif piece.startswith("\\"):
            filled.append(piece[1:])
        else:
            holes += 1
            filled += left[holes - 1 : holes]
    if holes != len(captures):
        raise PatternError(f"the left has {len(captures)} wildcards, the right has {holes} of '*', '**' and '?'")
    segments = "".join(filled).split("/")
    # Empty segments that the caller wrote are kept, so that the path is refused where it is used.
    if "" in text.split("/"):
        return segments
    return [segment for segment in segments if segment]  # `**` may have taken no segment
