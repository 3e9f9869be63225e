"""Syntax of patterns such as `blocks/*/{q,v}/kernel`: parse one into its elements (text, `*`, double star, `?`, number ranges,
braces), escape it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from typing import NoReturn

from .._errors import PatternError
from .._words import quoted

SPECIAL = frozenset("*?[]{}\\")
"""Characters that a pattern must escape to mean themselves (and `!` at the start)."""

_DEEPEST_BRACES = 50  # matching recurses into braces, and Python allows about 1,000 nested calls
_MOST_DIGITS = 18  # more than any number of layers; the cost of a range grows with its digits


# --------------------------------------------------------------------------- the syntax tree

# Plain classes, compared by identity: dataclasses generate their code at import, a tenth of all that `import ptree` takes.


class Text:
    """The element for plain text: characters that stand for themselves."""

    def __init__(self, characters: str):
        self.characters = characters


class Star:
    """The element `*`: any number of characters of one segment."""


class OneCharacter:
    """The element `?`, `[a-z]` or `[!a-z]`: one character in these ranges or, if negated, in none of them.

    The ranges are sorted and do not overlap. They stay ranges, since `[\\x00-\\U0010ffff]` is a million characters.
    """

    def __init__(self, ranges: Sequence[tuple[str, str]], *, negated: bool):
        self.negated = negated
        self._lows = [low for low, _ in ranges]
        self._highs = [high for _, high in ranges]

    def takes(self, character: str) -> bool:
        """Whether the element matches this character."""
        # Binary search: only the last range that starts at or before the character can contain it.
        before = bisect_right(self._lows, character)
        inside = before > 0 and character <= self._highs[before - 1]
        return inside != self.negated

    def characters(self, most: int) -> tuple[str, ...] | None:
        """The characters that it matches, in order; None if they are more than `most`, or all but some."""
        bounds = [(ord(low), ord(high)) for low, high in zip(self._lows, self._highs, strict=True)]
        if self.negated or sum(high - low + 1 for low, high in bounds) > most:
            return None
        return tuple(chr(code) for low, high in bounds for code in range(low, high + 1))


@lru_cache(maxsize=4096)
def one_character(ranges: tuple[tuple[str, str], ...], *, negated: bool) -> OneCharacter:
    """Make the element for these ranges, or return the cached one: words keep the positions of each test that they met."""
    return OneCharacter(ranges, negated=negated)


class NumberRange:
    """The element `{0..11}`: a range of numbers. `width` is the number of digits if these have leading zeros, else 0."""

    def __init__(self, low: int, high: int, width: int):
        self.low, self.high, self.width = low, high, width

    @cached_property
    def bounds(self) -> tuple[tuple[str, str], ...]:
        """For each number of digits the lowest and the highest number, as written: `0` and `9`, `10` and `11`."""
        if self.width:
            return ((self.written(self.low), self.written(self.high)),)
        bounds: list[tuple[str, str]] = []
        for digits in range(len(str(self.low)), len(str(self.high)) + 1):
            # Numbers of equally many digits compare as text: matching needs no conversion.
            least = 0 if digits == 1 else 10 ** (digits - 1)
            most = 10**digits - 1
            bounds.append((str(max(self.low, least)), str(min(self.high, most))))
        return tuple(bounds)

    def written(self, number: int) -> str:
        """Write a number as the range matches it, with leading zeros if it has them."""
        return str(number).zfill(self.width)


class Alternative:
    """An alternative in braces: its elements, and its text. Equal texts at two places are two alternatives."""

    def __init__(self, text: str, elements: tuple[Element, ...]):
        self.text, self.elements = text, elements


class Braces:
    """The element `{a,b}`: braces that match one of their alternatives."""

    def __init__(self, alternatives: tuple[Alternative, ...]):
        self.alternatives = alternatives

    @cached_property
    def crosses(self) -> bool:
        """Whether an alternative contains `/` or `**`: then the braces do not lie inside one segment."""
        return any(isinstance(element, Slash | DoubleStar) for element in inside([self]))


class Slash:
    """The element `/`: the slash between two segments."""


class DoubleStar:
    """The element `**`: any number of segments."""


Element = Text | Star | OneCharacter | NumberRange | Braces | Slash | DoubleStar


def inside(elements: Iterable[Element]) -> Iterator[Element]:
    """The elements, and all elements inside their braces, at any depth."""
    # A stack rather than recursion, as a generator in a generator costs a call per level for each element.
    waiting = list(elements)
    while waiting:
        element = waiting.pop()
        yield element
        if isinstance(element, Braces):
            for alternative in element.alternatives:
                waiting += alternative.elements


# ------------------------------------------------------------------------------- the parser


def parse(text: str) -> tuple[Element, ...]:
    """Parse a pattern into its elements, in the order in which they are written.

    Raises:
        PatternError: it is empty, a bracket is not closed, a range is empty, `[]` or `{}` hold nothing, spaces
            stand at the edge of an alternative, or braces are nested more than 50 deep.
    """
    if not text:
        raise pattern_error(text, "it is empty. Use '**' for everything")
    return _Parser(text).parse()


def pattern_error(text: str, why: str) -> PatternError:
    """The error that reports a malformed pattern."""
    return PatternError(f"bad pattern {quoted(text)}: {why}")


def escape(path: str) -> str:
    r"""Escape the special characters of a path: the pattern matches this path and no other.

    >>> escape("a[0]/b*")
    'a\\[0\\]/b\\*'
    """
    escaped = "".join("\\" + character if character in SPECIAL else character for character in path)
    # A selector that starts with "!" means all leaves but these.
    return "\\" + escaped if escaped.startswith("!") else escaped


_TOKEN = r"""
(?P<escape> \\.? )
| (?P<slash> / )
| (?P<stars> \*+ )
| (?P<question_mark> \? )
| (?P<character_class> \[ (?P<characters> (?: \\. | [^\]\\]++ )* ) (?P<closing> \]? ) )
| (?P<number_range> \{ \s* (?P<low> [0-9]+ ) \s* \.\. \s* (?P<high> [0-9]+ ) \s* \} )
| (?P<open> \{ \s* )
| (?P<comma> \s* , \s* )
| (?P<close> \s* \} )
| (?P<stray_bracket> \] )
| (?P<dots> \.\. )
| (?P<plain> [^\\/*?\[\]{},.\s]+ | \s+ | . )
"""
_CHARACTER_RANGE = r"\\?(.)(?:-\\?(.))?"


@cache
def _compiled(regex: str) -> re.Pattern[str]:
    """A regular expression of the parser, compiled when the first pattern is parsed: `import ptree` parses none."""
    return re.compile(regex, re.VERBOSE | re.DOTALL)


class _OpenBraces:
    """Open braces, whose end the parser has not reached, with the alternatives so far and the elements before them."""

    def __init__(self, token: re.Match[str], before: list[Element]):
        self.position = token.start()
        self.before = before
        self.alternative_start = token.end()
        self.alternatives: list[Alternative] = []


class _Parser:
    """Parse a pattern token by token into elements."""

    def __init__(self, text: str):
        self.text = text
        self.elements: list[Element] = []
        """The elements of the pattern so far or, inside braces, of the alternative."""
        self.open: list[_OpenBraces] = []
        """The braces around the next token, the innermost last."""
        self.stray_spaces: set[int] = set()

    def parse(self) -> tuple[Element, ...]:
        # By the name of the token's group in the regular expression.
        readers = {
            "escape": self.escape,
            "slash": self.slash,
            "stars": self.stars,
            "question_mark": self.question_mark,
            "character_class": self.character_class,
            "number_range": self.number_range,
            "open": self.open_braces,
            "comma": self.comma,
            "close": self.close_braces,
            "stray_bracket": self.stray_bracket,
            "dots": self.dots,
            "plain": self.plain,
        }
        for token in _compiled(_TOKEN).finditer(self.text):
            assert token.lastgroup is not None
            readers[token.lastgroup](token)
        if self.open:
            start = self.open[0].position
            raise self.error(f"'{{' at position {start} is not closed. For the character itself write '\\{{'")
        # Last, so that the corrected pattern in the message has no other mistake.
        if self.stray_spaces:
            raise self.stray_spaces_error()
        return join_texts(self.elements)

    def plain(self, token: re.Match[str]) -> None:
        self.elements.append(Text(token[0]))

    def escape(self, token: re.Match[str]) -> None:
        escaped = token[0][1:]
        if not escaped:
            raise self.error("it ends in a backslash")
        if escaped == "/":
            raise self.error("'/' cannot be escaped: a key that holds one is spelled out, as in 'mlp/linear_0'")
        self.elements.append(Text(escaped))

    def slash(self, token: re.Match[str]) -> None:
        self.elements.append(Slash())

    def stars(self, token: re.Match[str]) -> None:
        stars = token[0]
        if len(stars) > 2:
            raise self.error(f"{stars!r}; use '*' inside a segment, or '**' as a whole segment")
        self.elements.append(DoubleStar() if len(stars) == 2 else Star())

    def question_mark(self, token: re.Match[str]) -> None:
        self.elements.append(one_character((), negated=True))  # none excluded: any character

    def character_class(self, token: re.Match[str]) -> None:
        start, characters = token.start(), token["characters"]
        if characters.startswith("^"):
            raise self.error(
                f"'[^' at position {start}: the other characters are '[!...]'; for the character write '[\\^'"
            )
        if not token["closing"]:
            raise self.error(f"'[' at position {start} is not closed. For the character itself write '\\['")
        negated = characters.startswith("!")
        ranges = self.character_ranges(characters.removeprefix("!"))
        if not ranges:
            raise self.error(f"'[]' at position {start} holds no character")
        self.elements.append(one_character(_without_overlaps(ranges), negated=negated))

    def character_ranges(self, characters: str) -> list[tuple[str, str]]:
        ranges: list[tuple[str, str]] = []
        for found in _compiled(_CHARACTER_RANGE).finditer(characters):
            low = found[1]
            high = found[2] or low
            if low > high:
                raise self.error(f"the range {found[0]!r} is empty")
            if low <= "/" <= high:
                raise self.error("'/' cannot stand inside '[...]'")
            ranges.append((low, high))
        return ranges

    def number_range(self, token: re.Match[str]) -> None:
        self.note_stray_spaces(token)
        low, high = token["low"], token["high"]
        if max(len(low), len(high)) > _MOST_DIGITS:
            raise self.error(f"the ends of a range have at most {_MOST_DIGITS} digits")
        if int(low) > int(high):
            raise self.error(f"the range {token[0]} is empty; write {{{high}..{low}}}")
        width = 0
        if _has_leading_zero(low) or _has_leading_zero(high):
            width = len(low)
            if len(high) != width:
                raise self.error(f"the ends of {token[0]} have leading zeros and different widths")
        self.elements.append(NumberRange(int(low), int(high), width))

    def open_braces(self, token: re.Match[str]) -> None:
        if len(self.open) == _DEEPEST_BRACES:
            raise self.error(f"braces are nested more than {_DEEPEST_BRACES} deep")
        self.note_stray_spaces(token)
        self.open.append(_OpenBraces(token, self.elements))
        self.elements = []

    def comma(self, token: re.Match[str]) -> None:
        if not self.open:  # outside of braces a comma is text
            self.plain(token)
            return
        self.note_stray_spaces(token)
        self.end_alternative(token)

    def close_braces(self, token: re.Match[str]) -> None:
        if not self.open:
            self.closes_nothing("}", token.end() - 1)
        self.note_stray_spaces(token)
        self.end_alternative(token)
        braces = self.open.pop()
        alternatives = braces.alternatives
        if len(alternatives) == 1 and not alternatives[0].elements:
            raise self.error("'{}' holds no alternative")
        self.elements = [*braces.before, Braces(tuple(alternatives))]

    def end_alternative(self, token: re.Match[str]) -> None:
        """End an alternative before this token; the next one begins after it."""
        braces = self.open[-1]
        text = self.text[braces.alternative_start : token.start()]
        braces.alternatives.append(Alternative(text, join_texts(self.elements)))
        braces.alternative_start = token.end()
        self.elements = []

    def stray_bracket(self, token: re.Match[str]) -> None:
        self.closes_nothing("]", token.start())

    def closes_nothing(self, bracket: str, position: int) -> NoReturn:
        raise self.error(
            f"{bracket!r} at position {position} closes nothing. For the character itself write '\\{bracket}'"
        )

    def dots(self, token: re.Match[str]) -> None:
        if self.open:
            raise self.error(
                f"'..' at position {token.start()}: a range, as in {{0..11}}, is of two whole numbers and alone"
                " in its braces; for two dots write '\\..'"
            )
        self.plain(token)

    def note_stray_spaces(self, token: re.Match[str]) -> None:
        """Note spaces beside `{`, `,` and `}`, to refuse all of them at the end with what was likely meant."""
        for at in range(token.start(), token.end()):
            if self.text[at].isspace():
                self.stray_spaces.add(at)

    def stray_spaces_error(self) -> PatternError:
        kept = [character for at, character in enumerate(self.text) if at not in self.stray_spaces]
        return self.error(
            f"a space beside '{{', ',' or '}}' would belong to the name. Write {quoted(''.join(kept))}, or"
            " '\\ ' where a name has that space"
        )

    def error(self, why: str) -> PatternError:
        return pattern_error(self.text, why)


def join_texts(elements: Iterable[Element]) -> tuple[Element, ...]:
    """Join neighbouring text elements into one, and leave out empty ones."""
    joined: list[Element] = []
    for element in elements:
        if not isinstance(element, Text):
            joined.append(element)
        elif joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].characters + element.characters)
        elif element.characters:
            joined.append(element)
    return tuple(joined)


def _without_overlaps(ranges: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    # Sorted by their lower ends, a range can overlap only with the last one kept.
    merged: list[tuple[str, str]] = []
    for low, high in sorted(ranges):
        before_low, before_high = merged[-1] if merged else ("", "")
        if merged and low <= before_high:
            merged[-1] = (before_low, max(before_high, high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _has_leading_zero(digits: str) -> bool:
    return len(digits) > 1 and digits.startswith("0")
