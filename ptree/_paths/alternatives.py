"""Find the unused choices in a pattern: alternatives of its braces and numbers of its ranges that match no path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from .._words import listed, quoted
from .paths import STACKED
from .pattern_syntax import Alternative, Braces, DoubleStar, Element, NumberRange, inside
from .patterns import Pattern
from .positions import Name, each_position
from .spellings import Path, Segment, fits

Kind = tuple[bool, ...]
"""For each part of a pattern, whether a name fits it. Names of one kind are interchangeable in a match."""

Choice = Alternative | tuple[NumberRange, int]
"""An alternative of braces, or a number of a range."""


_STRIDE = 97  # a prime, which does not keep step with the layers of a tree


def unused_alternatives(pattern: Pattern, paths: Sequence[str]) -> list[str]:
    """Find the unused alternatives in a pattern's braces, and the unused numbers in its ranges: none of the paths needs them.

    A path uses an alternative if it still matches once the braces, and the braces around them, are replaced by this
    alternative. Numbers are returned as ranges. Choices inside of an unused alternative are not listed again.

    >>> from ptree._paths import compile
    >>> unused_alternatives(compile("{enc,haed}/{0..3}"), ["enc/1", "enc/3/kernel"])
    ['haed', '0', '2']
    """
    total = sum(map(_count_choices, inside(pattern.elements)))
    if total == 0:  # no braces: the usual pattern needs no search
        return []
    search = _Search(pattern)
    # Neighbouring paths mostly match the same alternative: a look at paths far apart ends the search early for most patterns.
    for path in (*paths[::_STRIDE], *paths):
        search.read(path)
        if len(search.used) == total:
            return []
    return list(_unused(pattern.elements, search.used))


def unused_in_words(pattern: Pattern, unused: Sequence[str]) -> str:
    """The beginning of a message about unused alternatives, up to what they do not match.

    >>> from ptree._paths import compile
    >>> unused_in_words(compile("{enc,haed}/*"), ["haed"])
    "in the pattern '{enc,haed}/*' the alternative 'haed' matches"
    """
    which = f"alternative {quoted(unused[0])} matches" if len(unused) == 1 else f"alternatives {listed(unused)} match"
    return f"in the pattern {quoted(pattern.text)} the {which}"


def _count_choices(element: Element) -> int:
    match element:
        case NumberRange(low=low, high=high):
            return high - low + 1
        case Braces(alternatives=alternatives):
            return len(alternatives)
    return 0


def _unused(elements: Iterable[Element], used: set[Choice]) -> Iterator[str]:
    for element in elements:
        if isinstance(element, NumberRange):
            yield from _unused_numbers(element, used)
        elif isinstance(element, Braces):
            for alternative in element.alternatives:
                if alternative in used:
                    yield from _unused(alternative.elements, used)
                else:
                    yield alternative.text


def _unused_numbers(numbers: NumberRange, used: set[Choice]) -> Iterator[str]:
    """The unused numbers of a range, as texts such as `{0..3}`: the gaps between the numbers that are used."""
    taken: list[int] = []
    for choice in used:
        # By identity: two equal ranges in a pattern are two choices.
        if isinstance(choice, tuple) and choice[0] is numbers:
            taken.append(choice[1])
    taken.sort()
    first = numbers.low
    for number in (*taken, numbers.high + 1):  # one past the end closes the last gap
        last = number - 1
        if first == last:
            yield numbers.written(first)
        elif first < last:
            yield f"{{{numbers.written(first)}..{numbers.written(last)}}}"
        first = number + 1


class _Search:
    """Collect the choices, alternatives and numbers, that paths use: `used` grows with each path that is read.

    A path is matched only if no path before it had names of the same kinds (the parts of the pattern that each name
    fits). Of 20,000 paths of a model a few are matched; the others cost one look-up per name.
    """

    def __init__(self, pattern: Pattern):
        self.used: set[Choice] = set()
        self._spellings = pattern.spellings
        parts = {part for spelling in pattern.spellings for part in spelling.parts}
        self._tests = [part for part in parts if not isinstance(part, DoubleStar)]
        self._kinds: dict[str, Kind] = {}
        self._reads: dict[tuple[Kind, ...], list[tuple[Segment, int]]] = {}
        self._seen: set[tuple[Segment, str]] = set()

    def read(self, path: str) -> None:
        """Add the choices with which the pattern matches this path or a node above it."""
        names = path.split("/")
        kinds = tuple([self._kinds.get(name) or self._kind(name) for name in names])
        if kinds not in self._reads:
            self._reads[kinds] = self._match(names)
        for segment, at in self._reads[kinds]:
            seen = (segment, names[at])
            # A new path of known kinds can still hold a new number, which is a choice of its own.
            if seen not in self._seen:
                self._seen.add(seen)
                self.used.update(choices_in_name(segment, names[at]))

    def _kind(self, name: str) -> Kind:
        kind = self._kinds[name] = tuple(fits(test, name) for test in self._tests)
        return kind

    def _match(self, names: Sequence[str]) -> list[tuple[Segment, int]]:
        """Pairs of a segment of the pattern and the index of a name that it reads; adds alternatives with a `/` to `used`."""
        path = Path(names)
        found: list[tuple[Segment, int]] = []
        for spelling in self._spellings:
            # It may end anywhere, since a pattern that matches a node selects all leaves below it.
            positions = path.positions_in_matches(spelling.parts, path.start, path.everywhere)
            if not positions:
                continue
            self.used.update(spelling.chosen)
            for part, starts in zip(spelling.parts, positions, strict=False):
                if isinstance(part, Segment):
                    found += [(part, at) for at in each_position(starts)]
        return found


def choices_in_name(segment: Segment, name: str) -> Iterator[Choice]:
    """The choices of alternatives and numbers with which a segment of a pattern can match a name."""
    if name != STACKED:
        word = Name(name)
        yield from _choices_between(segment.elements, word, word.start, word.end)
        return
    # `:` names a stack: no wildcard inside a segment matches it, only an alternative that is `*` or `:` as a whole.
    for whole in segment.wholes():
        if whole.is_stack:
            yield from whole.chosen


def _choices_between(elements: Sequence[Element], word: Name, starts: int, ends: int) -> Iterator[Choice]:
    """The choices of alternatives and numbers with which elements can match from one of the starts to one of the ends."""
    positions = word.positions_in_matches(elements, starts, ends)
    for element, (before, after) in zip(elements, pairwise(positions), strict=False):
        if isinstance(element, NumberRange):
            yield from _numbers_between(element, word, before, after)
        elif isinstance(element, Braces):
            for alternative in element.alternatives:
                if word.ends_of_all(alternative.elements, before) & after:
                    yield alternative
                    yield from _choices_between(alternative.elements, word, before, after)


def _numbers_between(numbers: NumberRange, word: Name, starts: int, ends: int) -> Iterator[Choice]:
    for low, high in numbers.bounds:
        digits = len(low)
        for start in each_position(word.numbers(low, high, starts & (ends >> digits))):
            yield numbers, int(word.text[start : start + digits])
