r"""Patterns: paths with wildcards, compiled into a machine that reads a path segment by segment.

A pattern is anchored at both ends:

====================  =============================================================
``*``                 any number of characters inside one segment
``?``                 one character
``[abc]`` ``[a-z]``   one of these characters; ``[!abc]`` one of the others
``{a,b}``             either; may be nested, and may hold ``/``
``{0..11}``           a whole number from 0 to 11; ``{00..11}`` with leading zeros; alone in its braces
``**``                as a whole segment: any number of segments, also none
``\*``                the character itself, for keys that hold a wildcard character
====================  =============================================================

A pattern that matches an inner node selects all that is below it. The layers of a stack are ``:``, which only itself
and a whole ``*`` or ``**`` match: for a single layer there is no wildcard.

A pattern is compiled once, into a machine that reads a path segment by segment. Its states are made
when they are first reached and remember where each segment led, so a walk over a tree costs one
dictionary look-up per node, leaves a branch as soon as nothing below it can match, and takes time in
proportion to the pattern and the path, whatever they hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from .._errors import PatternError
from .._words import quoted
from .paths import STACKED

SPECIAL = frozenset("*?[]{}\\")
"""Characters that a pattern must escape to mean themselves (and `!` at the start)."""

_MOST_EXPANSIONS = 1000
_MOST_REMEMBERED = 1 << 14


# ------------------------------------------------------------------------------ patterns


class _Any:  # *
    pass


class _One:  # ? or [...]
    __match_args__ = ("characters", "negated")

    def __init__(self, characters: frozenset[str] | None, negated: bool):
        self.characters, self.negated = characters, negated


class _Range:  # {0..11}
    def __init__(self, low: int, high: int, width: int):
        self.low, self.high, self.width = low, high, width  # the width of numbers with leading zeros; 0 without

    def ends(self, text: str, start: int) -> Iterable[int]:
        """Where a number of the range that starts here may end."""
        for end in range(start + 1, min(len(text), start + max(self.width, len(str(self.high)))) + 1):
            digits = text[start:end]
            if not (digits.isascii() and digits.isdigit()):
                break
            plain = len(digits) == self.width if self.width else digits == str(int(digits))
            if plain and self.low <= int(digits) <= self.high:
                yield end


class _Either:  # {a,b}
    __match_args__ = ("options",)

    def __init__(self, options: tuple[tuple[Any, ...], ...]):
        self.options = options


class _Mark:  # what is not inside a segment
    pass


_DEEP, _SLASH = _Mark(), _Mark()  # `**`, `/`


class _State:
    """A place in the machine: the (sequence, position) pairs that a path read so far can be at."""

    __slots__ = ("accepts", "names", "next", "places")

    def __init__(self, places: frozenset[tuple[int, int]], sequences: Sequence[Sequence[Any]]):
        self.places = places
        self.next: dict[str, _State | None] = {}
        self.accepts = any(at == len(sequences[which]) for which, at in places)
        ahead = [sequences[which][at] for which, at in places if at < len(sequences[which])]
        literal = all(type(segment) is str for segment in ahead)
        self.names: list[str] | None = sorted(set(ahead)) if literal else None
        """Where only these names lead on, these names; otherwise None."""


class Pattern:
    """A compiled pattern; made by `compile`, which remembers it."""

    __slots__ = ("_sequences", "_states", "literal", "start", "text")

    def __init__(self, text: str):
        self.text = text
        self._sequences = [_segments(elements, text) for elements in _expand(_parse(text), text)]
        only = self._sequences[0] if len(self._sequences) == 1 else ()
        self.literal: list[str] | None = list(only) if only and all(type(s) is str for s in only) else None
        """The segments, where the pattern holds no wildcard; otherwise None."""
        self._states: dict[frozenset[tuple[int, int]], _State] = {}
        self.start = self._state((which, 0) for which in range(len(self._sequences)))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def _state(self, places: Iterable[tuple[int, int]]) -> _State:
        reached: list[tuple[int, int]] = []
        for which, at in places:
            reached.append((which, at))
            if at < len(self._sequences[which]) and self._sequences[which][at] is _DEEP:
                reached.append((which, at + 1))  # ** may stand for no segment; two never follow each other
        key = frozenset(reached)
        if len(self._states) >= _MOST_REMEMBERED:
            self._states.clear()
        if key not in self._states:
            self._states[key] = _State(key, self._sequences)
        return self._states[key]

    def step(self, state: _State, segment: str) -> _State | None:
        """The state after one more segment, or None when nothing below can match."""
        try:
            return state.next[segment]
        except KeyError:
            pass
        places: list[tuple[int, int]] = []
        for which, at in state.places:
            sequence = self._sequences[which]
            if at == len(sequence):
                continue
            if sequence[at] is _DEEP:
                places.append((which, at))
            elif _fits(sequence[at], segment):
                places.append((which, at + 1))
        if len(state.next) >= _MOST_REMEMBERED:
            state.next.clear()
        found = state.next[segment] = self._state(places) if places else None
        return found

    def matches(self, path: str) -> bool:
        """Whether the pattern matches this path, or a node above it.

        >>> compile("blocks/*/attn").matches("blocks/3/attn/q/kernel")
        True
        """
        return self.reaches(path.split("/")) is not None

    def reaches(self, segments: Sequence[str]) -> int | None:
        """How many of the segments lead to the first node that the pattern matches; None where it matches none."""
        state: _State | None = self.start
        for used, segment in enumerate(segments):
            if state is None or state.accepts:
                return used if state else None
            state = self.step(state, segment)
        return len(segments) if state is not None and state.accepts else None

    def captures(self, segments: Sequence[str]) -> tuple[str, ...] | None:
        """What each wildcard stands for where the pattern matches just these segments, else None.

        The first wildcard takes as little as it can, then the second, and so on.

        >>> compile("*/layer_{0..11}/**").captures(["enc", "layer_3", "attn", "kernel"])
        ('enc', '3', 'attn/kernel')
        """
        for sequence in self._sequences:
            found: list[tuple[str, ...] | None] = [None] * (len(segments) + 1)
            found[0] = ()
            for part in sequence:  # found[n]: what the parts so far took, if they can take n segments
                after: list[tuple[str, ...] | None] = [None] * (len(segments) + 1)
                for n, taken in enumerate(found):
                    if taken is None:
                        continue
                    if part is _DEEP:
                        for m in range(n, len(segments) + 1):
                            if after[m] is None:
                                after[m] = (*taken, "/".join(segments[n:m]))
                    elif n < len(segments) and after[n + 1] is None and _fits(part, segments[n]):
                        after[n + 1] = taken + _took(part, segments[n])
                found = after
            if found[-1] is not None:
                return found[-1]
        return None


def _fits(part: str | tuple[Any, ...], segment: str) -> bool:
    """Whether one segment of a pattern matches one of a path.

    All layers of a stack are `:`, which stands for no name that a wildcard could ask about: only `*`, alone, fits.
    """
    if segment == STACKED and isinstance(part, tuple):
        return any(type(option[0]) is _Any or option[0] == STACKED for option in _alone(part) if len(option) == 1)
    return part == segment if type(part) is str else len(segment) in _ends(part, segment, {0})


def _alone(part: tuple[Any, ...]) -> Iterable[tuple[Any, ...]]:
    """What a segment may be as a whole."""
    return part[0].options if len(part) == 1 and type(part[0]) is _Either else [part]


def _ends(elements: Sequence[Any], text: str, starts: Collection[int]) -> Collection[int]:
    """Where elements may end in a text that may start at any of these places."""
    for at, element in enumerate(elements):
        if not starts:
            break
        if type(element) is _Any:
            starts = range(min(starts), len(text) + 1)
        elif (
            type(starts) is range and type(element) is str and at + 1 < len(elements) and type(elements[at + 1]) is _Any
        ):
            first = text.find(element, starts.start)  # what follows is `*`, so only the first place counts
            starts = {first + len(element)} if first >= 0 else ()
        else:
            starts = _ends_of(element, text, starts)
    return starts


def _ends_of(element: Any, text: str, starts: Collection[int]) -> set[int]:
    match element:
        case str():
            return {start + len(element) for start in starts if text.startswith(element, start)}
        case _One(characters, negated):
            inside = (start for start in starts if start < len(text))
            return {at + 1 for at in inside if characters is None or (text[at] in characters) != negated}
        case _Range():
            return {end for start in starts for end in element.ends(text, start)}
        case _Either(options):
            return {end for option in options for end in _ends(option, text, starts)}
    raise AssertionError(element)


def _took(part: str | tuple[Any, ...], segment: str) -> tuple[str, ...]:
    """What the wildcards of a segment that fits stand for; the first takes as little as it can, and so on."""
    if type(part) is str:
        return ()
    wanted = [{len(segment)}]  # from which places the elements from one on lead to the end, the last first
    for element in reversed(part):
        leads = wanted[-1]
        if type(element) is _Any:
            wanted.append(set(range(max(leads) + 1)))
        elif type(element) is str:
            wanted.append({end - len(element) for end in leads if segment.endswith(element, 0, end)})
        else:
            wanted.append({at for at in range(len(segment) + 1) if leads & _ends_of(element, segment, {at})})
    at, taken = 0, list[str]()
    for element, leads in zip(part, wanted[-2::-1], strict=True):
        end = min(leads.intersection(_ends([element], segment, {at})))
        if type(element) is not str:
            taken.append(segment[at:end])
        at = end
    return tuple(taken)


@lru_cache(maxsize=1024)
def compile(text: str) -> Pattern:
    """The pattern that a text stands for.

    Raises:
        PatternError: it is empty, has an empty segment, an unbalanced bracket, an empty range, or `**`
            that is not a whole segment.
    """
    if not isinstance(text, str):
        raise PatternError(f"not a pattern: {quoted(text)}; a pattern is a string such as '**/bias'")
    return Pattern(text)


def fill_in(text: str, captures: Sequence[str]) -> list[str]:
    """The segments of a path in which `*`, `**` and `?` stand, in order, for what the wildcards of a pattern took.

    >>> fill_in("enc/*/attn", ["3"])
    ['enc', '3', 'attn']

    Raises:
        PatternError: another number of wildcards.
    """
    parts = re.split(r"(\\.|\*\*|\*|\?)", text)
    holes = [at for at, part in enumerate(parts) if at % 2 and not part.startswith("\\")]
    if len(holes) != len(captures):
        raise PatternError(f"the left has {len(captures)} wildcards, the right has {len(holes)} of '*', '**' and '?'")
    for at, part in enumerate(parts):
        if at % 2 and part.startswith("\\"):
            parts[at] = part[1:]
    for at, capture in zip(holes, captures, strict=True):
        parts[at] = capture
    filled = "".join(parts).split("/")
    return filled if "" in text.split("/") else [segment for segment in filled if segment]  # `**` may stand for none


def escape(path: str) -> str:
    r"""The pattern that matches this path and no other.

    >>> escape("a[0]/b*")
    'a\\[0\\]/b\\*'
    """
    escaped = "".join("\\" + c if c in SPECIAL else c for c in path)
    return "\\" + escaped if escaped.startswith("!") else escaped


def _wrong(text: str, why: str) -> PatternError:
    return PatternError(f"bad pattern {quoted(text)}: {why}")


def _parse(text: str) -> tuple[Any, ...]:
    """The elements of a pattern; `/` and `**` stand in it as `_SLASH` and `_DEEP` marks."""
    if not text:
        raise _wrong(text, "it is empty. Use '**' for everything")
    elements, at = _parse_until(text, 0, depth=0)
    assert at == len(text)
    return elements


def _parse_until(text: str, at: int, depth: int) -> tuple[tuple[Any, ...], int]:
    """Elements from `at` up to the end, or inside braces up to the `,` or `}` that ends the option."""
    if depth > 50:
        raise _wrong(text, "braces are nested more than 50 deep")
    elements: list[Any] = []
    literal: list[str] = []

    def add(element: Any) -> None:
        if literal:
            elements.append("".join(literal))
            literal.clear()
        elements.append(element)

    while at < len(text):
        c = text[at]
        if depth and c in ",}":
            break
        if c == "\\":
            if at + 1 == len(text):
                raise _wrong(text, "it ends in a backslash")
            if text[at + 1] == "/":
                raise _wrong(text, "'/' cannot be escaped: a key that holds one is spelled out, as in 'mlp/linear_0'")
            literal.append(text[at + 1])
            at += 2
        elif c == "/":
            add(_SLASH)
            at += 1
        elif c == "*":
            stars = len(text) - at - len(text[at:].lstrip("*"))
            add(_Any() if stars == 1 else _DEEP)
            if stars > 2:
                raise _wrong(text, f"{'*' * stars!r}; use '*' inside a segment, or '**' as a whole segment")
            at += stars
        elif c == "?":
            add(_One(None, False))
            at += 1
        elif c == "[":
            element, at = _parse_class(text, at)
            add(element)
        elif c == "{":
            element, at = _parse_braces(text, at, depth)
            add(element)
        elif depth and text.startswith("..", at):
            why = "a range, as in {0..11}, is of two whole numbers and alone in its braces; for two dots write '\\..'"
            raise _wrong(text, f"'..' at position {at}: {why}")
        elif c in "]}":
            raise _wrong(text, f"{c!r} at position {at} closes nothing. For the character itself write '\\{c}'")
        else:
            literal.append(c)
            at += 1
    if literal:
        elements.append("".join(literal))
    return tuple(elements), at


def _parse_class(text: str, at: int) -> tuple[_One, int]:
    if text.startswith("[^", at):
        raise _wrong(text, f"'[^' at position {at}: the other characters are '[!...]'; for the character write '[\\^'")
    negated = text.startswith("[!", at)
    end, characters = at + 1 + negated, set[str]()

    def character(at: int) -> tuple[str, int]:
        at += text[at : at + 1] == "\\"
        return text[at : at + 1], at + 1

    while end < len(text) and text[end] != "]":
        start, (low, end) = end, character(end)
        if text[end : end + 1] == "-" and text[end + 1 : end + 2] not in ("", "]"):
            high, end = character(end + 1)
            if low > high:
                raise _wrong(text, f"the range {text[start:end]!r} is empty")
            characters.update(map(chr, range(ord(low), ord(high) + 1)))
        else:
            characters.add(low)
    if end >= len(text):
        raise _wrong(text, f"'[' at position {at} is not closed. For the character itself write '\\['")
    if not characters:
        raise _wrong(text, f"'[]' at position {at} holds no character")
    if "/" in characters:
        raise _wrong(text, "'/' cannot stand inside '[...]'")
    return _One(frozenset(characters), negated), end + 1


def _parse_braces(text: str, at: int, depth: int) -> tuple[_Range | _Either, int]:
    numbers = re.compile(r"\{(\d+)\.\.(\d+)\}", re.ASCII).match(text, at)
    if numbers:
        low, high = numbers.groups()
        if max(len(low), len(high)) > 18:
            raise _wrong(text, "the ends of a range have at most 18 digits")
        if int(low) > int(high):
            raise _wrong(text, f"the range {numbers[0]} is empty; write {{{high}..{low}}}")
        padded = any(len(n) > 1 and n[0] == "0" for n in (low, high))
        if padded and len(low) != len(high):
            raise _wrong(text, f"the ends of {numbers[0]} have leading zeros and different widths")
        return _Range(int(low), int(high), len(low) if padded else 0), numbers.end()
    options: list[tuple[Any, ...]] = []
    start = at
    while at < len(text) and text[at] != "}":
        option, at = _parse_until(text, at + 1, depth + 1)
        options.append(option)
    if options == [()]:
        raise _wrong(text, "'{}' holds no alternative")
    if at >= len(text):
        raise _wrong(text, f"'{{' at position {start} is not closed. For the character itself write '\\{{'")
    return _Either(tuple(options)), at + 1


def _crosses(element: Any) -> bool:
    """Whether an element holds a `/` or a `**`, so that it reaches over more than one segment."""
    if type(element) is _Mark:
        return True
    return type(element) is _Either and any(_crosses(part) for option in element.options for part in option)


def _expand(elements: tuple[Any, ...], text: str) -> list[tuple[Any, ...]]:
    """The pattern with each `{...}` that holds a `/` written out."""
    choices: list[list[tuple[Any, ...]]] = []
    count = 1
    for element in elements:
        if type(element) is _Either and _crosses(element):
            choices.append([full for option in element.options for full in _expand(option, text)])
        else:
            choices.append([(element,)])
        count *= len(choices[-1])
        if count > _MOST_EXPANSIONS:
            raise _wrong(text, f"its braces with '/' inside stand for more than {_MOST_EXPANSIONS} patterns")
    return [tuple(part for piece in pieces for part in piece) for pieces in product(*choices)]


def _segments(elements: tuple[Any, ...], text: str) -> list[Any]:
    """The elements cut at each `/`: a literal, `**`, or a tuple of elements."""
    pieces: list[list[Any]] = [[]]
    for element in elements:
        if element is _SLASH:
            pieces.append([])
        elif pieces[-1] and type(element) is str and type(pieces[-1][-1]) is str:
            pieces[-1][-1] += element  # `{a/b,c}d`, written out
        else:
            pieces[-1].append(element)
    segments: list[Any] = []
    for piece in pieces:
        if not piece:
            raise _wrong(text, "it has an empty segment (a '/' too many)")
        if any(part is _DEEP for part in piece):
            if len(piece) > 1:
                raise _wrong(text, "'**' must be a whole segment; inside a segment use '*'")
            if not segments or segments[-1] is not _DEEP:
                segments.append(_DEEP)
        else:
            segments.append(piece[0] if len(piece) == 1 and type(piece[0]) is str else tuple(piece))
    return segments
