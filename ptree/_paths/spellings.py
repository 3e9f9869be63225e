"""Write a pattern out as sequences of segments, one for each choice among braces that hold a `/`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
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
    inside,
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
        return any(whole.is_stack for whole in self.wholes())

    @cached_property
    def layer_names(self) -> tuple[Segment, ...]:
        """Those of the alternatives that can name one layer of a stack: without `*`, `?` and `[...]`."""
        return tuple(Segment(whole.elements) for whole in self.wholes() if not whole.has_wildcard)

    def wholes(self) -> Iterator[Written]:
        """What the segment may be as a whole: each alternative where it is nothing but braces, else itself."""
        waiting = [Written(self.elements, ())]
        while waiting:
            whole = waiting.pop()
            only = whole.elements[0] if len(whole.elements) == 1 else None
            if isinstance(only, Braces):
                waiting += [Written(one.elements, (*whole.chosen, one)) for one in only.alternatives]
            else:
                yield whole


@dataclass(frozen=True)
class Written:
    """Elements without some of the braces around them, and the alternatives that were chosen in the place of these."""

    elements: tuple[Element, ...]
    chosen: tuple[Alternative, ...]

    @property
    def is_stack(self) -> bool:
        """Whether this is `*` or `:` and nothing else, which name all layers of a stack."""
        return self.elements in ((Star(),), (Text(STACKED),))

    @property
    def has_wildcard(self) -> bool:
        """Whether there is a `*`, `?` or `[...]`, which name no single layer."""
        return any(isinstance(element, Star | OneCharacter) for element in inside(self.elements))


Part = str | Segment | DoubleStar
"""A segment of a pattern: a name without wildcards, one with wildcards, or `**`."""


@dataclass(frozen=True)
class Spelling:
    """One sequence of segments that a pattern stands for, and the alternatives with a `/` that were chosen for it."""

    parts: tuple[Part, ...]
    chosen: tuple[Alternative, ...]


@lru_cache(maxsize=4096)  # captures ask again for what a walk has asked
def fits(part: str | Segment, name: str) -> bool:
    """Whether one segment of a pattern matches one segment of a path."""
    return part == name if isinstance(part, str) else part.fits(name)


def layer_names(part: Part) -> Sequence[str | Segment]:
    """What in a part of a pattern can name one layer of a stack: numbers, ranges, and alternatives that are such."""
    if isinstance(part, str):
        return (part,) if part.isdecimal() else ()
    return part.layer_names if isinstance(part, Segment) else ()


class Path(Word[Part]):
    """The segments of a path, read by the parts of a pattern."""

    def takes(self, test: Hashable, letter: str) -> bool:
        assert isinstance(test, str | Segment)
        return fits(test, letter)

    def ends(self, element: Part, starts: int) -> int:
        return self.onwards(starts) if isinstance(element, DoubleStar) else self.after(element, starts)

    def starts(self, element: Part, ends: int) -> int:
        return self.back(ends) if isinstance(element, DoubleStar) else self.before(element, ends)


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


def _written_out(elements: Iterable[Element], text: str) -> list[Written]:
    options: list[list[Written]] = []
    count = 1
    for element in elements:
        written = _ways_to_write(element, text)
        options.append(written)
        count *= len(written)
        if count > _MOST_SPELLINGS:
            raise pattern_error(text, f"its braces with '/' inside stand for more than {_MOST_SPELLINGS} patterns")
    return [_concatenated(pieces) for pieces in product(*options)]


def _ways_to_write(element: Element, text: str) -> list[Written]:
    if not isinstance(element, Braces) or not element.crosses:
        return [Written((element,), ())]
    ways: list[Written] = []
    for alternative in element.alternatives:
        for inner in _written_out(alternative.elements, text):
            ways.append(Written(inner.elements, (alternative, *inner.chosen)))
    return ways


def _concatenated(pieces: Iterable[Written]) -> Written:
    elements: list[Element] = []
    chosen: list[Alternative] = []
    for piece in pieces:
        elements += piece.elements
        chosen += piece.chosen
    return Written(tuple(elements), tuple(chosen))


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
