"""Parse a pattern such as `blocks/*/{q,v}/kernel` into a syntax tree, or say what is wrong with it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from .._errors import PatternError
from .._words import quoted

SPECIAL = frozenset("*?[]{}\\")
"""Characters that a pattern must escape to mean themselves (and `!` at the start)."""

_DEEPEST_BRACES = 50
_MOST_DIGITS = 18


# --------------------------------------------------------------------------- the syntax tree


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves."""

    characters: str


@dataclass(frozen=True)
class Star:
    """`*`: any number of characters of one segment."""


@dataclass(frozen=True)
class OneCharacter:
    """`?`, `[a-z]` or `[!a-z]`: one character of these ranges or, negated, of no range.

    The ranges are sorted and do not overlap. They stay ranges: `[\\x00-\\U0010ffff]` would be a million characters.
    """

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def takes(self, character: str) -> bool:
        """Whether this character is one that is meant."""
        at = bisect_right(self.ranges, character, key=_low_end)
        inside = at > 0 and character <= _high_end(self.ranges[at - 1])
        return inside != self.negated


@dataclass(frozen=True, eq=False)
class NumberRange:
    """`{0..11}`: a whole number from low to high. `width` is the number of digits with leading zeros, 0 without.

    `spellings` are the sequences of digit classes that such numbers are written in: `[0-9]`, and `1` with `[0-1]`.
    """

    low: int
    high: int
    width: int
    spellings: tuple[tuple[OneCharacter, ...], ...]

    def holds(self, digits: str) -> bool:
        """Whether digits are a number of the range, written with as many zeros as the range asks for."""
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS:
            return False
        return self.low <= int(digits) <= self.high and digits == self.written(int(digits))

    def written(self, number: int) -> str:
        """A number as a name that the range takes."""
        return str(number).zfill(self.width)


@dataclass(frozen=True, eq=False)
class Alternative:
    """One of the alternatives of braces, and its text in the pattern. Equal texts at two places are two alternatives."""

    text: str
    elements: tuple[Element, ...]


@dataclass(frozen=True, eq=False)
class Braces:
    """`{a,b}`: one of the alternatives. `crosses`: whether one holds a `/` or a `**`, and so is no part of one segment."""

    alternatives: tuple[Alternative, ...]
    crosses: bool


@dataclass(frozen=True)
class Slash:
    """`/`: the border of two segments."""


@dataclass(frozen=True)
class DoubleStar:
    """`**`: any number of segments."""


Element = Text | Star | OneCharacter | NumberRange | Braces | Slash | DoubleStar


def _low_end(ends: tuple[str, str]) -> str:
    return ends[0]


def _high_end(ends: tuple[str, str]) -> str:
    return ends[1]


# ------------------------------------------------------------------------------- the parser


def parse(text: str) -> tuple[Element, ...]:
    """The elements of a pattern, in the order in which they are written.

    Raises:
        PatternError: it is empty, a bracket is not closed, a range is empty, `[]` or `{}` hold nothing, spaces
            stand at the edge of an alternative, or braces are nested more than 50 deep.
    """
    if not text:
        raise pattern_error(text, "it is empty. Use '**' for everything")
    parser = _Parser(text)
    elements = parser.elements()
    if parser.stray_spaces:
        meant = "".join(character for at, character in enumerate(text) if at not in parser.stray_spaces)
        raise pattern_error(
            text,
            f"a space beside '{{', ',' or '}}' would belong to the name. Write {quoted(meant)}, or"
            " '\\ ' where a name has that space",
        )
    return elements


def pattern_error(text: str, why: str) -> PatternError:
    """The error for a malformed pattern."""
    return PatternError(f"bad pattern {quoted(text)}: {why}")


def escape(path: str) -> str:
    r"""The pattern that matches this path and no other.

    >>> escape("a[0]/b*")
    'a\\[0\\]/b\\*'
    """
    escaped = "".join("\\" + character if character in SPECIAL else character for character in path)
    return "\\" + escaped if escaped.startswith("!") else escaped


class _Parser:
    """Reads a text from left to right; `at` is the position of the next character, `depth` counts open braces."""

    _plain = re.compile(r"[^\\/*?\[\]{},.\s]+")
    _spaces = re.compile(r"\s+")
    _spaces_before_an_end = re.compile(r"\s+(?=[,}])")
    _number_range = re.compile(r"\{\s*([0-9]+)\s*\.\.\s*([0-9]+)\s*\}")

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.depth = 0
        self.stray_spaces: set[int] = set()

    def elements(self) -> tuple[Element, ...]:
        """Everything up to the end of the text or, inside braces, of the alternative."""
        found: list[Element] = []
        while not self._ends_here():
            found.append(self._element())
            if self.depth:
                self._skip_stray(self._spaces_before_an_end)
        return join_texts(found)

    def _ends_here(self) -> bool:
        return self._next() in (",}" if self.depth else "")

    def _next(self) -> str:
        """The next character, which stays; empty at the end of the text."""
        return self.text[self.at : self.at + 1]

    def _element(self) -> Element:
        if self.depth:
            self._refuse_dots()
        match self._next():
            case "\\":
                return self._escaped()
            case "/":
                self.at += 1
                return Slash()
            case "*":
                return self._stars()
            case "?":
                self.at += 1
                return OneCharacter((), negated=True)
            case "[":
                return self._character_class()
            case "{":
                return self._braces()
            case "]" | "}" as bracket:
                why = f"{bracket!r} at position {self.at} closes nothing. For the character itself write '\\{bracket}'"
                raise self._error(why)
        return self._plain_text()

    def _plain_text(self) -> Text:
        run = self._plain.match(self.text, self.at)
        characters = run[0] if run else self._next()
        self.at += len(characters)
        return Text(characters)

    def _escaped(self) -> Text:
        escaped = self.text[self.at + 1 : self.at + 2]
        if not escaped:
            raise self._error("it ends in a backslash")
        if escaped == "/":
            raise self._error("'/' cannot be escaped: a key that holds one is spelled out, as in 'mlp/linear_0'")
        self.at += 2
        return Text(escaped)

    def _stars(self) -> Star | DoubleStar:
        start = self.at
        while self._next() == "*":
            self.at += 1
        stars = self.text[start : self.at]
        if len(stars) > 2:
            raise self._error(f"{stars!r}; use '*' inside a segment, or '**' as a whole segment")
        return Star() if len(stars) == 1 else DoubleStar()

    # ------------------------------------------------------------------------ [...]

    def _character_class(self) -> OneCharacter:
        start = self.at
        if self.text.startswith("[^", start):
            raise self._error(
                f"'[^' at position {start}: the other characters are '[!...]'; for the character write '[\\^'"
            )
        negated = self.text.startswith("[!", start)
        self.at += 2 if negated else 1
        ranges: list[tuple[str, str]] = []
        while self._next() not in ("]", ""):
            ranges.append(self._character_range())
        if not self._next():
            raise self._error(f"'[' at position {start} is not closed. For the character itself write '\\['")
        if not ranges:
            raise self._error(f"'[]' at position {start} holds no character")
        if any(low <= "/" <= high for low, high in ranges):
            raise self._error("'/' cannot stand inside '[...]'")
        self.at += 1
        return OneCharacter(_without_overlaps(ranges), negated)

    def _character_range(self) -> tuple[str, str]:
        """`a-z`, or one character as a range of itself."""
        start = self.at
        low = self._class_character()
        if self._next() != "-" or self.text[self.at + 1 : self.at + 2] in ("", "]"):
            return low, low
        self.at += 1
        high = self._class_character()
        if low > high:
            raise self._error(f"the range {self.text[start : self.at]!r} is empty")
        return low, high

    def _class_character(self) -> str:
        if self._next() == "\\":
            self.at += 1
        character = self._next()
        self.at += 1
        return character

    # ------------------------------------------------------------------------ {...}

    def _braces(self) -> Braces | NumberRange:
        range_ = self._number_range.match(self.text, self.at)
        if range_:
            return self._range(range_)
        if self.depth == _DEEPEST_BRACES:
            raise self._error(f"braces are nested more than {_DEEPEST_BRACES} deep")
        start = self.at
        self.depth += 1
        alternatives: list[Alternative] = []
        while self._next() not in ("}", ""):
            alternatives.append(self._alternative())
        self.depth -= 1
        if not self._next():
            raise self._error(f"'{{' at position {start} is not closed. For the character itself write '\\{{'")
        self.at += 1
        if self.at == start + 2:
            raise self._error("'{}' holds no alternative")
        return Braces(tuple(alternatives), any(_crosses(alternative) for alternative in alternatives))

    def _alternative(self) -> Alternative:
        self.at += 1  # the `{` or `,` before it
        self._skip_stray(self._spaces)
        start = self.at
        elements = self.elements()
        return Alternative(self.text[start : self.at], elements)

    def _range(self, found: re.Match[str]) -> NumberRange:
        self._note_stray(self._spaces.finditer(self.text, found.start(), found.end()))
        self.at = found.end()
        low, high = found.groups()
        if max(len(low), len(high)) > _MOST_DIGITS:
            raise self._error(f"the ends of a range have at most {_MOST_DIGITS} digits")
        if int(low) > int(high):
            raise self._error(f"the range {found[0]} is empty; write {{{high}..{low}}}")
        width = 0
        if has_leading_zero(low) or has_leading_zero(high):
            width = len(low)
            if len(high) != width:
                raise self._error(f"the ends of {found[0]} have leading zeros and different widths")
        return NumberRange(int(low), int(high), width, _number_spellings(int(low), int(high), width))

    def _refuse_dots(self) -> None:
        if self.text.startswith("..", self.at):
            raise self._error(
                f"'..' at position {self.at}: a range, as in {{0..11}}, is of two whole numbers and alone"
                " in its braces; for two dots write '\\..'"
            )

    def _skip_stray(self, spaces: re.Pattern[str]) -> None:
        """Step over spaces that are likely not meant; `parse` refuses them when it knows all of them."""
        found = spaces.match(self.text, self.at)
        if found:
            self._note_stray([found])
            self.at = found.end()

    def _note_stray(self, found: Iterable[re.Match[str]]) -> None:
        for spaces in found:
            self.stray_spaces.update(range(spaces.start(), spaces.end()))

    def _error(self, why: str) -> PatternError:
        return pattern_error(self.text, why)


def join_texts(elements: Iterable[Element]) -> tuple[Element, ...]:
    """The elements with neighbouring texts as one and without empty ones."""
    joined: list[Element] = []
    for element in elements:
        if not isinstance(element, Text):
            joined.append(element)
        elif joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].characters + element.characters)
        elif element.characters:
            joined.append(element)
    return tuple(joined)


def _crosses(alternative: Alternative) -> bool:
    for element in alternative.elements:
        if isinstance(element, Slash | DoubleStar):
            return True
        if isinstance(element, Braces) and element.crosses:
            return True
    return False


def _without_overlaps(ranges: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    merged: list[tuple[str, str]] = []
    for low, high in sorted(ranges):
        if merged and low <= _high_end(merged[-1]):
            before_low, before_high = merged.pop()
            low, high = before_low, max(before_high, high)
        merged.append((low, high))
    return tuple(merged)


# ------------------------------------------------------------------------- ranges of numbers


def has_leading_zero(digits: str) -> bool:
    """Whether a number is written with a zero that it does not need: `03`, but not `0`."""
    return len(digits) > 1 and digits.startswith("0")


def _number_spellings(low: int, high: int, width: int) -> tuple[tuple[OneCharacter, ...], ...]:
    """Sequences of digit classes that together are the numbers from low to high; none is in two of them."""
    if width:
        return tuple(_of_one_width(str(low).zfill(width), str(high).zfill(width)))
    spellings: list[tuple[OneCharacter, ...]] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        least = 0 if digits == 1 else 10 ** (digits - 1)
        most = 10**digits - 1
        spellings += _of_one_width(str(max(low, least)), str(min(high, most)))
    return tuple(spellings)


def _of_one_width(low: str, high: str) -> list[tuple[OneCharacter, ...]]:
    """Spellings of the numbers between two of as many digits: 123 to 158 are `12[3-9]`, `1[3-4][0-9]`, `15[0-8]`."""
    free = 0  # how many digits at the end may be any
    while free < len(low) and low[-1 - free] == "0" and high[-1 - free] == "9":
        free += 1
    low, high = low[: len(low) - free], high[: len(high) - free]
    if low == high:
        return [_spelling(low, "", "", free)]
    fork = next(at for at, (a, b) in enumerate(zip(low, high, strict=True)) if a != b)
    last = len(low) - 1
    if fork == last:
        return [_spelling(low[:fork], low[fork], high[fork], free)]
    spellings: list[tuple[OneCharacter, ...]] = []
    for at in range(last, fork, -1):  # as low up to here, and above it from here on
        first = low[at] if at == last else _digit_after(low[at])
        spellings.append(_spelling(low[:at], first, "9", free + last - at))
    spellings.append(_spelling(low[:fork], _digit_after(low[fork]), _digit_before(high[fork]), free + last - fork))
    for at in range(fork + 1, last + 1):  # as high up to here, and below it from here on
        final = high[at] if at == last else _digit_before(high[at])
        spellings.append(_spelling(high[:at], "0", final, free + last - at))
    return [spelling for spelling in spellings if all(one.ranges for one in spelling)]


def _spelling(fixed: str, low: str, high: str, free: int) -> tuple[OneCharacter, ...]:
    """Fixed digits, one from low to high where these are given, then digits that may be any."""
    between = [_digits(low, high)] if low else []
    return (*(_digits(digit, digit) for digit in fixed), *between, *[_digits("0", "9")] * free)


def _digits(low: str, high: str) -> OneCharacter:
    return OneCharacter(((low, high),) if low <= high else (), negated=False)


def _digit_after(digit: str) -> str:
    return chr(ord(digit) + 1)


def _digit_before(digit: str) -> str:
    return chr(ord(digit) - 1)
