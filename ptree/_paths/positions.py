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
from functools import reduce
from operator import or_
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

    def ways_to_end(self, elements: Sequence[E], ends: int) -> list[int]:
        """For each element, and then for none, where it may start so that from it on the elements reach one of the ends."""
        ways = [ends]
        for element in reversed(elements):
            ways.append(self.starts(element, ways[-1]))
        ways.reverse()
        return ways

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

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

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
            case Braces(alternatives):
                return _union(self.ends_of_all(alternative.elements, starts) for alternative in alternatives)
            case NumberRange():
                return _union((starts & self.numbers(low, high)) << len(low) for low, high in element.bounds)
        raise AssertionError(element)  # `/` and `**` are no part of a segment

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
            case Braces(alternatives):
                return _union(self.starts_of_all(alternative.elements, ends) for alternative in alternatives)
            case NumberRange():
                return _union((ends >> len(low)) & self.numbers(low, high) for low, high in element.bounds)
        raise AssertionError(element)

    def numbers(self, low: str, high: str) -> int:
        """The positions before a number between two that have as many digits as it."""
        bounds = (low, high)
        if bounds not in self._positions:
            self._positions[bounds] = self._find_numbers(low, high)
        return self._positions[bounds]

    def _find_numbers(self, low: str, high: str) -> int:
        # Compared from the last digit to the first: one that is above decides, one that is equal leaves it to the rest.
        digits = at_least = at_most = self.everywhere
        for low_digit, high_digit in zip(reversed(low), reversed(high), strict=True):
            digits = self.before(_DIGIT, digits)
            at_least = self.positions(_above(low_digit)) | self.before(low_digit, at_least)
            at_most = self.positions(_below(high_digit)) | self.before(high_digit, at_most)
        return digits & at_least & at_most


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


_DIGIT = OneCharacter((("0", "9"),), negated=False)


def _above(digit: str) -> OneCharacter:
    return OneCharacter(((chr(ord(digit) + 1), "9"),), negated=False)


def _below(digit: str) -> OneCharacter:
    return OneCharacter((("0", chr(ord(digit) - 1)),), negated=False)


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
    ways = word.ways_to_end(elements, word.end)
    if not ways[0] & word.start:
        return None
    found: list[tuple[int, int]] = []
    start = 0
    for element, way_on in zip(elements, ways[1:], strict=True):
        end = first_position(word.ends(element, 1 << start) & way_on)
        found.append((start, end))
        start = end
    return found
