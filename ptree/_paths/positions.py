"""Sets of positions in a name or a path: where an element of a pattern may start, where it may end, and its span.

A set of positions is one integer whose bit k is the position before letter k. An element moves all positions at once,
with a shift and a mask for each letter, so nothing is tried twice and no pattern backtracks: the time is the length of
the pattern times that of the name, divided by the bits of a machine word.

The letters of a name are its characters. The letters of a path are its segments, and `**` is to them what `*` is to
characters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cache, cached_property, reduce
from operator import or_
from typing import Generic, TypeVar

from .pattern_syntax import Braces, Element, NumberRange, OneCharacter, Star, Text, one_character

E = TypeVar("E")


class Word(ABC, Generic[E]):
    """Base of names and paths: letters, and the positions at which elements of type E may start and end."""

    def __init__(self, letters: Sequence[str]):
        self.letters = letters
        self.start = 1
        self.end = 1 << len(letters)
        self._positions: dict[Hashable, int] = {}

    @property
    def everywhere(self) -> int:
        """All positions, from the one before the first letter to the one after the last."""
        return 2 * self.end - 1

    @abstractmethod
    def ends(self, element: E, starts: int) -> int:
        """Where the element may end if it starts at one of these positions."""

    @abstractmethod
    def starts(self, element: E, ends: int) -> int:
        """Where the element may start if it ends at one of these positions."""

    @abstractmethod
    def takes(self, test: Hashable, letter: str) -> bool:
        """Whether a test for one letter accepts this letter."""

    def ends_of_all(self, elements: Iterable[E], starts: int) -> int:
        """Where the last of the elements may end if the first starts at one of these positions."""
        for element in elements:
            if not starts:  # no match is left
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

    def positions_in_matches(self, elements: Sequence[E], starts: int, ends: int) -> list[int]:
        """All positions in matches: before the first element, after it, after the second. Empty where there is no match.

        A match starts at one of the starts and ends at one of the ends.
        """
        # Forwards, what can be reached from a start; backwards, what of it leads to an end. Both are on a match.
        reached = [starts]
        for element in elements:
            reached.append(self.ends(element, reached[-1]))
        found = [reached[-1] & ends]
        for element, before in zip(reversed(elements), reversed(reached[:-1]), strict=True):
            found.append(self.starts(element, found[-1]) & before)
        found.reverse()
        return found if found[0] else []

    @abstractmethod
    def flags(self, taken: set[str]) -> str:
        """A `1` for each letter in this set and a `0` for each other one; the last letter comes first."""

    def positions(self, test: Hashable) -> int:
        """The positions before a letter that the test accepts; found once for each test."""
        if test not in self._positions:
            taken = {letter for letter in self._distinct if self.takes(test, letter)}
            # Text to integer in one go: setting bits one by one would copy a long integer for each letter.
            self._positions[test] = int("0" + self.flags(taken), base=2)
        return self._positions[test]

    @cached_property
    def _distinct(self) -> set[str]:
        return set(self.letters)

    def after(self, test: Hashable, starts: int) -> int:
        """The positions after one letter that the test accepts, from these starts."""
        return self._with_letter(test, starts) << 1

    def before(self, test: Hashable, ends: int) -> int:
        """The positions before one letter that the test accepts, from these ends."""
        return self._with_letter(test, ends >> 1)

    def _with_letter(self, test: Hashable, starts: int) -> int:
        """The positions among these that are before a letter that the test accepts."""
        if not starts or starts == self.end:  # no letter comes after the last position
            return 0
        if is_one(starts):  # the common case: not every letter is tested
            letter = self.letters[first_position(starts)]
            return starts if self.takes(test, letter) else 0
        return starts & self.positions(test)

    def onwards(self, starts: int) -> int:
        """All positions at and after the first of these."""
        # The lowest bit that is set. Python's negative integers have endless ones above it, which the mask cuts off.
        first = starts & -starts
        return self.everywhere & -first

    def back(self, ends: int) -> int:
        """All positions up to and at the last of these."""
        return (1 << ends.bit_length()) - 1


class Name(Word[Element]):
    """A name, one segment of a path: its letters are characters, for the elements of one segment of a pattern."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def takes(self, test: Hashable, letter: str) -> bool:
        return test.takes(letter) if isinstance(test, OneCharacter) else test == letter

    def flags(self, taken: set[str]) -> str:
        # 20 times as fast as a list of flags, which counts where a long name meets a long pattern.
        table = {ord(letter): "1" if letter in taken else "0" for letter in self._distinct}
        return self.text[::-1].translate(table)

    def ends(self, element: Element, starts: int) -> int:
        match element:
            case Text(characters=characters):  # the most frequent first
                return self._after_text(characters, starts)
            case OneCharacter():
                return self.after(element, starts)
            case Star():
                return self.onwards(starts)
            case Braces(alternatives=alternatives):
                return _union(self.ends_of_all(alternative.elements, starts) for alternative in alternatives)
            case NumberRange(bounds=bounds):
                return _union(self.numbers(low, high, starts) << len(low) for low, high in bounds)
        raise AssertionError(element)  # `/` and `**` are no part of a segment

    def starts(self, element: Element, ends: int) -> int:
        match element:
            case Text(characters=characters):
                return self._before_text(characters, ends)
            case OneCharacter():
                return self.before(element, ends)
            case Star():
                return self.back(ends)
            case Braces(alternatives=alternatives):
                return _union(self.starts_of_all(alternative.elements, ends) for alternative in alternatives)
            case NumberRange(bounds=bounds):
                return _union(self.numbers(low, high, ends >> len(low)) for low, high in bounds)
        raise AssertionError(element)

    def _after_text(self, characters: str, starts: int) -> int:
        if is_one(starts):  # the common case, ten times as fast as a mask for each character
            found = self.text.startswith(characters, first_position(starts))
            return starts << len(characters) if found else 0
        for character in characters:
            starts = self.after(character, starts)
        return starts

    def _before_text(self, characters: str, ends: int) -> int:
        if is_one(ends):  # as in `_after_text`
            found = self.text.endswith(characters, 0, first_position(ends))
            return ends >> len(characters) if found else 0
        for character in reversed(characters):
            ends = self.before(character, ends)
        return ends

    def numbers(self, low: str, high: str, starts: int) -> int:
        """The positions among these before a number from `low` to `high`, which are texts of equally many digits."""
        if not starts:
            return 0
        if is_one(starts):
            at = first_position(starts)
            digits = self.text[at : at + len(low)]
            # Texts of equally many digits are in the order of their numbers. At the end of the name digits are missing.
            if len(digits) != len(low) or not _is_number(digits):
                return 0
            return starts if low <= digits <= high else 0
        bounds = (low, high)
        if bounds not in self._positions:
            self._positions[bounds] = self._find_numbers(low, high)
        return starts & self._positions[bounds]

    def _find_numbers(self, low: str, high: str) -> int:
        # Compare from the last digit to the first: a larger digit decides, an equal one leaves it to the digits after it.
        digits = at_least = at_most = self.everywhere
        for low_digit, high_digit in zip(reversed(low), reversed(high), strict=True):
            digits = self.before(_DIGIT, digits)
            at_least = self.positions(_above(low_digit)) | self.before(low_digit, at_least)
            at_most = self.positions(_below(high_digit)) | self.before(high_digit, at_most)
        return digits & at_least & at_most


def _is_number(digits: str) -> bool:
    return digits.isascii() and digits.isdigit()  # `isdigit` alone takes Arabic digits and superscripts too


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


_DIGIT = one_character((("0", "9"),), negated=False)


@cache
def _above(digit: str) -> OneCharacter:
    return one_character(((chr(ord(digit) + 1), "9"),), negated=False)


@cache
def _below(digit: str) -> OneCharacter:
    return one_character((("0", chr(ord(digit) - 1)),), negated=False)


def is_one(positions: int) -> bool:
    """Whether a set contains exactly one position."""
    # Subtracting 1 flips the lowest bit that is set and the zeros below it.
    return positions != 0 and positions & (positions - 1) == 0


def first_position(positions: int) -> int:
    """The first position of a set that is not empty."""
    return (positions & -positions).bit_length() - 1


def each_position(positions: int) -> Iterator[int]:
    """Yield the positions of a set in ascending order."""
    while positions:
        yield first_position(positions)
        positions &= positions - 1  # clears the lowest bit


def spans(elements: Sequence[E], word: Word[E]) -> list[tuple[int, int]] | None:
    """The span of each element, its start and end position, in a match of the whole word; None if there is no match.

    The first element takes as little as it can, then the second, and so on.
    """
    positions = word.positions_in_matches(elements, word.start, word.end)
    if not positions:
        return None
    found: list[tuple[int, int]] = []
    start = 0
    for element, possible in zip(elements, positions[1:], strict=True):
        if not is_one(possible):  # of the ends in all matches, those in matches with this start
            possible &= word.ends(element, 1 << start)
        end = first_position(possible)
        found.append((start, end))
        start = end
    return found
