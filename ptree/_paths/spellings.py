"""Write a pattern out as its spellings: sequences of segments, one for each choice among braces that contain a `/`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import NamedTuple

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

_MOST_SPELLINGS = 1000  # braces multiply: a short pattern could fill the memory


class Segment:
    """A segment of a spelling that has wildcards, such as `layer_{0..11}`."""

    def __init__(self, elements: tuple[Element, ...]):
        self.elements = elements

    def fits(self, name: str) -> bool:
        """Whether the segment matches a whole name."""
        if name == STACKED:
            return self.names_stack
        word = Name(name)
        return bool(word.ends_of_all(self.elements, word.start) & word.end)

    @cached_property
    def names_stack(self) -> bool:
        """Whether the segment names a whole stack: it is `*` or `:`, or has such an alternative."""
        return any(whole.is_stack for whole in self.wholes())

    @cached_property
    def is_any_name(self) -> bool:
        """Whether the segment is `*`, or has such an alternative."""
        return any(len(whole.elements) == 1 and isinstance(whole.elements[0], Star) for whole in self.wholes())

    @cached_property
    def layer_names(self) -> tuple[Segment, ...]:
        """The alternatives that can name one layer of a stack: those without `*`, `?` and `[...]`."""
        return tuple(Segment(whole.elements) for whole in self.wholes() if not whole.has_wildcard)

    def wholes(self) -> Iterator[Written]:
        """Each alternative of a segment that is nothing but braces, at any depth; any other segment itself."""
        waiting = [Written(self.elements, ())]
        while waiting:
            whole = waiting.pop()
            only = whole.elements[0] if len(whole.elements) == 1 else None
            if isinstance(only, Braces):
                waiting += [Written(one.elements, (*whole.chosen, one)) for one in only.alternatives]
            else:
                yield whole


class Written(NamedTuple):
    """Elements of a pattern after a choice among some of its braces, and the alternatives that were chosen."""

    elements: tuple[Element, ...]
    chosen: tuple[Alternative, ...]

    @property
    def is_stack(self) -> bool:
        """Whether the elements are just `*` or `:`, which name all layers of a stack."""
        if len(self.elements) != 1:
            return False
        only = self.elements[0]
        return isinstance(only, Star) or (isinstance(only, Text) and only.characters == STACKED)

    @property
    def has_wildcard(self) -> bool:
        """Whether there is a `*`, `?` or `[...]`; these never name single layers."""
        return any(isinstance(element, Star | OneCharacter) for element in inside(self.elements))


Part = str | Segment | DoubleStar
"""A segment of a pattern: a name without wildcards, one with wildcards, or `**`."""


class Spelling(NamedTuple):
    """A spelling of a pattern: a sequence of segments, and the alternatives with a `/` that were chosen for it."""

    parts: tuple[Part, ...]
    chosen: tuple[Alternative, ...]


@lru_cache(maxsize=4096)  # a rename asks twice: to select a leaf, and for its captures
def fits(part: str | Segment, name: str) -> bool:
    """Whether a segment of a spelling fits a name, one segment of a path."""
    if isinstance(part, str):
        return part == name
    return part.fits(name)


def layer_names(part: Part) -> Sequence[str | Segment]:
    """The alternatives of a segment that can name one layer of a stack: numbers and ranges."""
    if isinstance(part, str):
        return (part,) if part.isdecimal() else ()
    if isinstance(part, Segment):
        return part.layer_names
    return ()  # `**` takes whole stacks only


class Path(Word[Part]):
    """A path, whose letters are its segments, for the parts of a spelling."""

    def takes(self, test: Hashable, letter: str) -> bool:
        assert isinstance(test, str | Segment)
        return fits(test, letter)

    def flags(self, taken: set[str]) -> str:
        return "".join("1" if letter in taken else "0" for letter in reversed(self.letters))

    def ends(self, element: Part, starts: int) -> int:
        if isinstance(element, DoubleStar):
            return self.onwards(starts)
        return self.after(element, starts)

    def starts(self, element: Part, ends: int) -> int:
        if isinstance(element, DoubleStar):
            return self.back(ends)
        return self.before(element, ends)


# ---------------------------------------------------------------------------- writing out


def spellings(elements: Sequence[Element], text: str) -> list[Spelling]:
    """Write out all spellings of a parsed pattern, in the order of its alternatives.

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
        if count > _MOST_SPELLINGS:  # before the product is made
            raise pattern_error(text, f"its braces with '/' inside stand for more than {_MOST_SPELLINGS} patterns")
    return [_concatenated(pieces) for pieces in product(*options)]


def _ways_to_write(element: Element, text: str) -> list[Written]:
    # Braces inside of one segment stay: a name is matched with all alternatives at once.
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
    """The parts of a spelling, the segments between slashes; `**` next to `**` is one."""
    parts: list[Part] = []
    for between in _split_at_slashes(elements):
        part = _part(between, text)
        # The two match the same paths, and the states of a pattern rely on one.
        is_repeated = parts and isinstance(part, DoubleStar) and isinstance(parts[-1], DoubleStar)
        if not is_repeated:
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
    if len(joined) == 1:  # a plain name stays text, which matches by one comparison
        if isinstance(first, Text):
            return first.characters
        if isinstance(first, DoubleStar):
            return first
    if any(isinstance(element, DoubleStar) for element in joined):
        raise pattern_error(text, "'**' must be a whole segment; inside a segment use '*'")
    return Segment(joined)
