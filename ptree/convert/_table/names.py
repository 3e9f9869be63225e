"""NamePattern: a pattern of names in a table, which reads what its wildcards stand for and writes a name with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import NamedTuple

from ..._errors import PatternError
from ..._paths import Pattern, choices, compile
from ..._paths.dotted_names import with_slashes
from ..._paths.pattern_syntax import SPECIAL, Braces, DoubleStar, Element, NumberRange, OneCharacter, Slash, Text
from ..._words import quoted

_MOST_TEXTS = 1000
Captures = tuple[str, ...]
"""What each wildcard of a pattern stands for in a name, in order."""


class Wildcard(NamedTuple):
    """One wildcard of a pattern."""

    is_path: bool
    """Whether it is `**`, which stands for any number of segments."""
    choices: tuple[str, ...]
    """What braces choose from, in order; empty for other wildcards."""
    texts: tuple[str, ...] | None
    """All that it may stand for; None for `*` and others that may stand for more than can be listed."""

    def is_apart_from(self, other: Wildcard) -> bool:
        """Whether nothing that this one may stand for corresponds to what the other may stand for."""
        if len(self.choices) == len(other.choices) > 0:  # these correspond by position
            return False
        if self.texts is None or other.texts is None:
            return False
        return {*self.texts}.isdisjoint(other.texts)


def _wildcard(element: Element) -> Wildcard:
    if isinstance(element, NumberRange):
        return Wildcard(False, choices(element), choices(element) or None)
    return Wildcard(isinstance(element, DoubleStar), choices(element), _texts_of(element))


def _texts_of(element: Element) -> tuple[str, ...] | None:
    """All texts that an element may stand for; None where they are too many to list."""
    if isinstance(element, Text):
        return (element.characters,)
    if isinstance(element, OneCharacter):
        return element.characters(_MOST_TEXTS)
    if not isinstance(element, Braces):
        return None
    texts: list[str] = []
    for alternative in element.alternatives:
        parts = [_texts_of(part) for part in alternative.elements]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or prod(map(len, known)) > _MOST_TEXTS:
            return None
        texts += map("".join, product(*known))
    return tuple(texts)


def _stars(pattern: Sequence[str], segments: Sequence[str]) -> Captures | None:
    """What the segments `*` of a pattern stand for: a twentieth of the time of the general way, for most rows of most tables."""
    if len(pattern) != len(segments):
        return None
    captures: list[str] = []
    for part, segment in zip(pattern, segments, strict=True):
        if part == "*":
            captures.append(segment)
        elif part != segment:
            return None
    return tuple(captures)


class NamePattern:
    """One pattern of a row: reads the names of one side, and writes them.

    A pattern whose segments are joined by dots is that of paths: `layers.*.weight` is `layers/*/weight`.
    """

    def __init__(self, text: str):
        if not isinstance(text, str):
            raise PatternError(f"a name in a table is a pattern such as 'layers.*.weight'; got {quoted(text)}")
        self.text = text
        self.path = with_slashes(text)
        self.compiled: Pattern = compile(self.path)
        if any(isinstance(element, Braces) and element.crosses for element in self.compiled.elements):
            raise PatternError(
                f"{quoted(text)}: braces that hold a whole path cannot be written back; write a row for each"
            )

    @property
    def is_dotted(self) -> bool:
        """Whether it is written with dots between segments."""
        return self.path != self.text

    @cached_property
    def wildcards(self) -> list[Wildcard]:
        """The wildcards in order."""
        return [_wildcard(element) for element in self.compiled.elements if not isinstance(element, (Text, Slash))]

    @cached_property
    def _segments(self) -> list[str] | None:
        """The segments of a pattern in which each is plain text or `*` alone; None of any other."""
        segments = self.path.split("/")
        are_simple = all(segment == "*" or not SPECIAL & set(segment) for segment in segments)
        return segments if are_simple else None

    @cached_property
    def ending(self) -> tuple[str, ...]:
        """The last segments that are plain text, at most two: a name that the pattern matches ends so."""
        literal: list[str] = []
        for segment in reversed(self.path.split("/")):
            if SPECIAL & set(segment) or len(literal) == 2:
                break
            literal.append(segment)
        return tuple(reversed(literal))

    def read(self, path: str) -> Captures | None:
        """What the wildcards stand for, if the pattern matches exactly this path; else None."""
        segments = path.split("/")
        if self._segments is not None:
            return _stars(self._segments, segments)
        if not self._ends_at(segments):
            return None
        return self.compiled.captures(segments)

    def _ends_at(self, segments: Sequence[str]) -> bool:
        """Whether the pattern matches the whole path: quick, as most patterns of a table match few of the names."""
        state = self.compiled.start
        for segment in segments:
            after = self.compiled.step(state, segment)
            if after is None:
                return False
            state = after
        return state.accepts

    def write(self, captures: Captures) -> str | None:
        """The path in which the wildcards stand for these; None if the pattern matches no such path."""
        left = iter(captures)
        if self._segments is not None and all(captures):
            return "/".join(next(left) if segment == "*" else segment for segment in self._segments)
        written: list[str] = []
        for element in self.compiled.elements:
            if isinstance(element, Text):
                written.append(element.characters)
            elif isinstance(element, Slash):
                written.append("/")
            else:
                written.append(next(left))
        segments = [segment for segment in "".join(written).split("/") if segment]  # `**` may stand for none
        # what stands for `{a,b}` or `[0-9]` on this side must be among these
        if not segments or self.compiled.captures(segments) != captures:
            return None
        return "/".join(segments)

    def all_paths(self) -> list[str]:
        """All paths that the pattern matches; none where these are more than can be listed, as of `*`."""
        texts = [wildcard.texts for wildcard in self.wildcards]
        listed = [each for each in texts if each is not None]
        if len(listed) < len(texts) or prod(map(len, listed)) > _MOST_TEXTS:
            return []
        paths = [self.write(captures) for captures in product(*listed)]
        return [path for path in paths if path is not None]

    def translate(self, captures: Captures, other: NamePattern) -> Captures:
        """What the wildcards of another pattern stand for, where those of this one stand for `captures`.

        Braces with as many choices on both sides correspond by position, `{query,key}` to `{q,k}`; all others by their text.
        """
        translated: list[str] = []
        for text, here, there in zip(captures, self.wildcards, other.wildcards, strict=True):
            are_choices = len(here.choices) == len(there.choices) > 0
            translated.append(there.choices[here.choices.index(text)] if are_choices else text)
        return tuple(translated)

    def __repr__(self) -> str:
        return repr(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamePattern) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)
