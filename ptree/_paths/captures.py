"""Captures: what each wildcard of a pattern stands for in a path, and a new path in which they are filled in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .._errors import PatternError
from .._words import quoted
from .pattern_syntax import Braces, DoubleStar, Element, NumberRange, Slash, Text, inside, parse
from .positions import Name, spans
from .spellings import Part, Path, Segment

_MOST_CHOICES = 10_000  # a short range, such as {0..999999999}, could fill the memory


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


def wildcards(parts: Sequence[Part]) -> list[Element]:
    """The wildcards of these parts of a pattern, in the order of what `captures` gives."""
    found: list[Element] = []
    for part in parts:
        if isinstance(part, DoubleStar):
            found.append(part)
        elif isinstance(part, Segment):
            found += [element for element in part.elements if not isinstance(element, Text)]
    return found


@lru_cache(maxsize=256)  # asked for each leaf of a rename
def choices(wildcard: Element) -> tuple[str, ...]:
    """What braces choose from, in order: plain alternatives, or the numbers of a range; empty for all other wildcards."""
    if isinstance(wildcard, NumberRange):
        if wildcard.high - wildcard.low >= _MOST_CHOICES:
            return ()
        return tuple(wildcard.written(number) for number in range(wildcard.low, wildcard.high + 1))
    if not isinstance(wildcard, Braces):
        return ()
    texts: list[str] = []
    for alternative in wildcard.alternatives:
        plain = [element.characters for element in alternative.elements if isinstance(element, Text)]
        if len(plain) < len(alternative.elements):
            return ()
        texts.append("".join(plain))
    return tuple(texts)


_HOLE = r"""
( \\.                                  # an escaped character, which is no hole
| \*\* | \* | \?
| \{ \s* [0-9]+ \s* \.\. \s* [0-9]+ \s* \}  # a range of numbers
| \{ [^{},\\]* (?: , [^{},\\]* )+ \}    # alternatives
)
"""


@lru_cache(maxsize=256)  # a rename fills in one text for each leaf
def _pieces(text: str) -> list[str]:
    """The text cut up so that every second piece is a hole or an escaped character.

    Raises:
        PatternError: braces inside of braces.
    """
    pieces = re.split(_HOLE, text, flags=re.VERBOSE)  # Python caches the regex; `import ptree` compiles none
    has_braces = any(hole.startswith("{") for hole in pieces[1::2])
    if has_braces and any("{" in plain or "}" in plain for plain in pieces[::2]):
        raise PatternError(
            f"{quoted(text)}, on the right, has braces beside or inside of braces with names: write a row for each name,"
            " or '\\{' and '\\}' for the characters"
        )
    return pieces


def has_holes(text: str) -> bool:
    r"""Whether a new path has a place that is filled with what a wildcard captures.

    >>> has_holes("enc/*"), has_holes("enc/{q,k}"), has_holes(r"enc/\*")
    (True, True, False)
    """
    return any(not piece.startswith("\\") for piece in _pieces(text)[1::2])


def fill_in(
    text: str, captures: Sequence[str], wildcards: Sequence[Element], pattern: Sequence[Element] = ()
) -> list[str]:
    """Fill the captures of a pattern into a new path, in order, for its `*`, `**`, `?` and braces; return its segments.

    What is filled in for `*`, `**` and `?` is the capture itself, and for braces the alternative at the same position.
    The elements of the whole `pattern` say in an error why braces in it were not counted.

    Raises:
        PatternError: the new path has another number of wildcards, or braces with another number of alternatives.
    """
    pieces = _pieces(text)
    holes = sum(not piece.startswith("\\") for piece in pieces[1::2])
    if holes != len(captures):
        wildcard_or_more = "wildcard" if len(captures) == 1 else "wildcards"
        raise PatternError(
            f"the left has {len(captures)} {wildcard_or_more}, the right has {holes} of '*', '**', '?' and '{{a,b}}'"
            + _why_not_counted(pattern)
        )
    taken = zip(captures, wildcards, strict=True)
    filled: list[str] = []
    for at, piece in enumerate(pieces):
        if at % 2 == 0:
            filled.append(piece)
        elif piece.startswith("\\"):
            filled.append(piece[1:])
        else:
            filled.append(_filling(piece, *next(taken)))
    segments = "".join(filled).split("/")
    # Empty segments that the caller wrote are kept, so that the path is refused where it is used.
    if "" in text.split("/"):
        return segments
    return [segment for segment in segments if segment]  # `**` may have taken no segment


def _why_not_counted(pattern: Sequence[Element]) -> str:
    """Why some braces of a pattern are no wildcard: what they match is not inside of one segment. Empty without such braces."""
    crossing = next((element for element in pattern if isinstance(element, Braces) and element.crosses), None)
    if crossing is None:
        return ""
    written = "{" + ",".join(alternative.text for alternative in crossing.alternatives) + "}"
    held = "'/'" if "/" in written else "'**'"
    return f". {quoted(written)} holds {held}, so it is no wildcard: write a row for each name in it"


def _filling(hole: str, capture: str, wildcard: Element) -> str:
    """What stands in the place of a hole of a new path."""
    if not hole.startswith("{"):
        return capture
    left, right = choices(wildcard), _choices_of_hole(hole)
    if not left:
        raise PatternError(
            f"{hole} on the right stands for a wildcard on the left that is no list of names: write '*' on the right to"
            " keep what it matches, or a row for each name"
        )
    if len(left) != len(right):
        raise PatternError(
            f"{hole} on the right has {len(right)} names, and the braces on the left that it stands for have {len(left)}"
        )
    return right[left.index(capture)]


@lru_cache(maxsize=256)  # asked for each leaf of a rename
def _choices_of_hole(hole: str) -> tuple[str, ...]:
    (braces,) = parse(hole)
    found = choices(braces)
    if not found:
        raise PatternError(f"{hole} on the right {_why_no_choices(braces)}: write a row for each name")
    return found


def _why_no_choices(braces: Element) -> str:
    if isinstance(braces, NumberRange):
        return f"has more than {_MOST_CHOICES:,} numbers"
    if any(isinstance(element, Slash) for element in inside([braces])):
        return "holds '/', and braces there are a list of names of one segment"
    return "holds wildcards, and braces there are a list of plain names"
