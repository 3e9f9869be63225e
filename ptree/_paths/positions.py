"""Move sets of positions through a name or a path: where an element of a pattern may end, and where it may start.

A set of positions is one whole number whose bit k is the position before letter k. An element moves all positions at
once, with a shift and a mask for each letter, so nothing is tried twice and no pattern backtracks: the time is the
length of the pattern times that of the name, divided by the bits of a machine word.

The letters of a name are its characters. The letters of a path are its segments, and `**` is to them what `*` is to
characters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from .pattern_syntax import Braces, Element, NumberRange, OneCharacter, Star, Text

E = TypeVar("E")


class Word(ABC, Generic[E]):
    """Letters, and how elements of type E take some of them."""

    def __init__(self, letters: Sequence[str]):
        self.letters = letters
        self.everywhere = (2 << len(letters)) - 1
        self.start = 1
        self.end = 1 << len(letters)
        self._positions: dict[Hashable, int] = {}

    @abstractmethod
    def ends(self, element: E, starts: int) -> int:
        """Where the element may end if it starts at one of these positions."""

    @abstractmethod
    def starts(self, element: E, ends: int) -> int:
        """Where the element may start if it ends at one of these positions."""

    @abstractmethod
    def takes(self, test: Hashable, letter: str) -> bool:
        """Whether a test for one letter takes this one."""

    def ends_of_all(self, elements: Iterable[E], starts: int) -> int:
        """Where the last of the elements may end if the first starts at one of these positions."""
        for element in elements:
            if not starts:
                break
            starts = self.ends(element, starts)
        return starts

    def starts_of_all(self, elements: Sequence[E], ends: int) -> int:
        """Where the first of the elements may start if the last ends at one of these positions."""
        for element in reversed(elements):
            if not ends:
                break
            ends = self.starts(element, ends)
        return ends

    def positions(self, test: Hashable) -> int:
        """The positions before a letter that the test takes; found once for each test."""
        if test not in self._positions:
            taken = {letter: self.takes(test, letter) for letter in set(self.letters)}
            flags = "".join("1" if taken[letter] else "0" for letter in reversed(self.letters))
            self._positions[test] = int("0" + flags, base=2)
        return self._positions[test]

    def after(self, test: Hashable, starts: int) -> int:
        """Where one letter that the test takes ends."""
        return (starts & self.positions(test)) << 1

    def before(self, test: Hashable, ends: int) -> int:
        """Where one letter that the test takes starts."""
        return (ends >> 1) & self.positions(test)

    def onwards(self, starts: int) -> int:
        """All positions at and after the first of these."""
        first = starts & -starts
        return self.everywhere & -first

    def back(self, ends: int) -> int:
        """All positions up to and at the last of these."""
        return (1 << ends.bit_length()) - 1


class Name(Word[Element]):
    """One segment of a path, read by the elements of one segment of a pattern."""

    def takes(self, test: Hashable, letter: str) -> bool:
        return test.takes(letter) if isinstance(test, OneCharacter) else test == letter

    def ends(self, element: Element, starts: int) -> int:
        match element:
            case Text(characters):
                for character in characters:
                    starts = self.after(character, starts)
                return starts
            case OneCharacter():
                return self.after(element, starts)
            case Star():
                return self.onwards(starts)
        ends = 0
        for alternative in choices(element):
            ends |= self.ends_of_all(alternative, starts)
        return ends

    def starts(self, element: Element, ends: int) -> int:
        match element:
            case Text(characters):
                for character in reversed(characters):
                    ends = self.before(character, ends)
                return ends
            case OneCharacter():
                return self.before(element, ends)
            case Star():
                return self.back(ends)
        starts = 0
        for alternative in choices(element):
            starts |= self.starts_of_all(alternative, ends)
        return starts


def choices(element: Element) -> Iterator[Sequence[Element]]:
    """The elements of each alternative of braces, and of each spelling of a range of numbers."""
    match element:
        case Braces(alternatives):
            for alternative in alternatives:
                yield alternative.elements
        case NumberRange():
            yield from element.spellings


def each_position(positions: int) -> Iterator[int]:
    """The positions of a set, the first first."""
    while positions:
        yield first_position(positions)
        positions &= positions - 1


def first_position(positions: int) -> int:
    """The first position of a set that is not empty."""
    return (positions & -positions).bit_length() - 1


def spans(elements: Sequence[E], word: Word[E]) -> list[tuple[int, int]] | None:
    """From where to where each element reaches where together they take the whole word; None where they do not.

    The first element takes as little as it can, then the second, and so on.
    """
    leads = [word.end]  # from where the elements that are left reach the end, last element first
    for element in reversed(elements):
        leads.append(word.starts(element, leads[-1]))
    leads.reverse()
    if not leads[0] & word.start:
        return None
    found: list[tuple[int, int]] = []
    start = 0
    for element, leads_on in zip(elements, leads[1:], strict=True):
        end = first_position(word.ends(element, 1 << start) & leads_on)
        found.append((start, end))
        start = end
    return found
