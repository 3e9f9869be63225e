"""Write a pattern out as sequences of segments, one for each choice among braces that hold a `/`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from .paths import STACKED
from .pattern_syntax import (
    Alternative,
    Braces,
    DoubleStar,
    Element,
    OneCharacter,
    Slash,
    Star,
    Text,
    join_texts,
    pattern_error,
)
from .positions import Name, Word

_MOST_SPELLINGS = 1000


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a pattern with wildcards in it, such as `layer_{0..11}`."""

    elements: tuple[Element, ...]

    def fits(self, name: str) -> bool:
        """Whether the segment matches a name as a whole."""
        if name == STACKED:
            return self.names_stack
        word = Name(name)
        return bool(word.ends_of_all(self.elements, word.start) & word.end)

    @cached_property
    def names_stack(self) -> bool:
        """Whether all layers of a stack are meant: only `*` as a whole, or `:`, says so, also inside braces."""
        return any(is_whole_stack(elements) for elements in self.wholes())

    @cached_property
    def number_like(self) -> tuple[Segment, ...]:
        """Those of the alternatives that can name one layer of a stack: without `*`, `?` and `[...]`."""
        return tuple(Segment(elements) for elements in self.wholes() if not _has_character_wildcard(elements))

    def wholes(self) -> Iterator[tuple[Element, ...]]:
        """What the segment may be as a whole: each alternative where it is nothing but braces, else itself."""
        waiting = [self.elements]
        while waiting:
            elements = waiting.pop()
            if len(elements) == 1 and isinstance(elements[0], Braces):
                waiting += [alternative.elements for alternative in elements[0].alternatives]
            else:
                yield elements


Part = str | Segment | DoubleStar
"""A segment of a pattern: a name without wildcards, one with wildcards, or `**`."""


@dataclass(frozen=True)
class Spelling:
    """One sequence of segments that a pattern stands for, and the alternatives with a `/` that were chosen for it."""

    parts: tuple[Part, ...]
    chosen: tuple[Alternative, ...]


def fits(part: str | Segment, name: str) -> bool:
    """Whether one segment of a pattern matches one segment of a path."""
    return part == name if isinstance(part, str) else part.fits(name)


def number_like(part: Part) -> Sequence[str | Segment]:
    """What in a part of a pattern can name one layer of a stack: numbers, ranges, and alternatives that are such."""
    if isinstance(part, str):
        return (part,) if part.isdecimal() else ()
    return part.number_like if isinstance(part, Segment) else ()


class Path(Word[Part]):
    """The segments of a path, read by the parts of a pattern."""

    def takes(self, test: Hashable, letter: str) -> bool:
        assert isinstance(test, str | Segment)
        return fits(test, letter)

    def ends(self, element: Part, starts: int) -> int:
        return self.onwards(starts) if isinstance(element, DoubleStar) else self.after(element, starts)

    def starts(self, element: Part, ends: int) -> int:
        return self.back(ends) if isinstance(element, DoubleStar) else self.before(element, ends)


def is_whole_stack(elements: Sequence[Element]) -> bool:
    """Whether a segment is `*` or `:` and nothing else."""
    return len(elements) == 1 and elements[0] in (Star(), Text(STACKED))


def _has_character_wildcard(elements: Iterable[Element]) -> bool:
    for element in elements:
        if isinstance(element, Star | OneCharacter):
            return True
        if isinstance(element, Braces) and any(_has_character_wildcard(a.elements) for a in element.alternatives):
            return True
    return False


# ---------------------------------------------------------------------------- writing out


def spellings(elements: Sequence[Element], text: str) -> list[Spelling]:
    """Every sequence of segments that a parsed pattern stands for, in the order of its alternatives.

    Raises:
        PatternError: an empty segment, `**` that is not a whole segment, or more than 1,000 sequences.
    """
    found: list[Spelling] = []
    for written in _written_out(elements, text):
        found.append(Spelling(_parts(written.elements, text), written.chosen))
    return found


@dataclass(frozen=True)
class _Written:
    """Elements without braces that hold a `/`, and the alternatives that stand in their place."""

    elements: tuple[Element, ...]
    chosen: tuple[Alternative, ...]


def _written_out(elements: Iterable[Element], text: str) -> list[_Written]:
    options: list[list[_Written]] = []
    count = 1
    for element in elements:
        written = _ways_to_write(element, text)
        options.append(written)
        count *= len(written)
        if count > _MOST_SPELLINGS:
            raise pattern_error(text, f"its braces with '/' inside stand for more than {_MOST_SPELLINGS} patterns")
    return [_concatenated(pieces) for pieces in product(*options)]


def _ways_to_write(element: Element, text: str) -> list[_Written]:
    if not isinstance(element, Braces) or not element.crosses:
        return [_Written((element,), ())]
    ways: list[_Written] = []
    for alternative in element.alternatives:
        for inner in _written_out(alternative.elements, text):
            ways.append(_Written(inner.elements, (alternative, *inner.chosen)))
    return ways


def _concatenated(pieces: Iterable[_Written]) -> _Written:
    elements: list[Element] = []
    chosen: list[Alternative] = []
    for piece in pieces:
        elements += piece.elements
        chosen += piece.chosen
    return _Written(tuple(elements), tuple(chosen))


def _parts(elements: Iterable[Element], text: str) -> tuple[Part, ...]:
    """The segments between the slashes; `**` next to `**` is one."""
    parts: list[Part] = []
    for between in _split_at_slashes(elements):
        part = _part(between, text)
        if not (isinstance(part, DoubleStar) and parts and isinstance(parts[-1], DoubleStar)):
            parts.append(part)
    return tuple(parts)


def _split_at_slashes(elements: Iterable[Element]) -> list[list[Element]]:
    pieces: list[list[Element]] = [[]]
    for element in elements:
        if isinstance(element, Slash):
            pieces.append([])
        else:
            pieces[-1].append(element)
    return pieces


def _part(elements: Sequence[Element], text: str) -> Part:
    joined = join_texts(elements)
    if not joined:
        raise pattern_error(text, "it has an empty segment (a '/' too many)")
    first = joined[0]
    if len(joined) == 1:
        if isinstance(first, Text):
            return first.characters
        if isinstance(first, DoubleStar):
            return first
    if any(isinstance(element, DoubleStar) for element in joined):
        raise pattern_error(text, "'**' must be a whole segment; inside a segment use '*'")
    return Segment(joined)
