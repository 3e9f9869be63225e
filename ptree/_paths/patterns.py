r"""Compile patterns, which are paths with wildcards, into machines whose states read a path segment by segment.

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

A pattern that matches a node selects all leaves below it.

The layers of a stack lie together under the one name ``:``. It is matched by ``:``, by ``*`` as a whole segment or a whole
alternative, and by ``**``; no other wildcard matches it. Single layers are named by a number, a range or braces of such: by
segments (or alternatives that are whole segments) without ``*``, ``?`` and ``[...]``. Layer 3 is written ``3``, not ``03``.

A state is made when it is first reached and caches the state after each segment, so a walk over a tree costs one
dictionary look-up per node and leaves a branch as soon as nothing below it can match. The time to match is proportional to
the length of the pattern and of the path: nothing backtracks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from .._errors import PatternError
from .._words import quoted
from .captures import captures, fill_in, wildcards
from .pattern_syntax import DoubleStar, parse
from .spellings import Part, Segment, fits, layer_names, spellings

_MOST_REMEMBERED = 1 << 14  # states of a pattern, and segments of a state: caches are emptied where they grow larger

Place = tuple[int, int]
"""A position in a pattern: which of its spellings, and how many parts of that have been read."""


class State:
    """State of a compiled pattern: all places in the pattern that the segments read so far can have led to."""

    __slots__ = ("accepts", "ahead", "names", "next")

    def __init__(self, places: Iterable[Place], sequences: Sequence[Sequence[Part]]):
        self.next: dict[str, State | None] = {}
        """The state after each segment that was read here; None where nothing below can match."""
        self.accepts = False
        """Whether the pattern matches the path read so far, and so all leaves below it."""
        self.ahead: list[tuple[Place, Part]] = []
        """The places at which the pattern goes on, and the part that comes next."""
        for which, at in places:
            if at == len(sequences[which]):
                self.accepts = True
            else:
                self.ahead.append(((which, at), sequences[which][at]))
        names = _only_names(part for _, part in self.ahead)
        self.names = None if names is None else sorted(set(names))
        """The only names that lead on, so that a walk can look them up; None where a wildcard comes next."""


def _only_names(parts: Iterable[Part]) -> list[str] | None:
    """The parts of a pattern as plain names; None if one of them has a wildcard."""
    names: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            return None
        names.append(part)
    return names


class Pattern:
    """A compiled pattern: a machine of states. Made by `compile`, which caches it."""

    __slots__ = ("_sequences", "_states", "elements", "literal", "spellings", "start", "text")

    def __init__(self, text: str):
        self.text = text
        self.elements = parse(text)
        self.spellings = spellings(self.elements, text)
        self._sequences = [spelling.parts for spelling in self.spellings]
        self.literal = _only_names(self._sequences[0]) if len(self._sequences) == 1 else None
        """The segments of a pattern without wildcards; otherwise None."""
        self._states: dict[frozenset[Place], State] = {}
        self.start = self._state((which, 0) for which in range(len(self._sequences)))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def _state(self, places: Iterable[Place]) -> State:
        reached: list[Place] = []
        for which, at in places:
            reached.append((which, at))
            sequence = self._sequences[which]
            if at < len(sequence) and isinstance(sequence[at], DoubleStar):
                reached.append((which, at + 1))  # ** may stand for no segment; two never follow each other
        key = frozenset(reached)
        # Emptied rather than trimmed: states are made again at the next step, and only odd patterns have so many.
        if len(self._states) >= _MOST_REMEMBERED:
            self._states.clear()
        if key not in self._states:
            self._states[key] = State(key, self._sequences)
        return self._states[key]

    def step(self, state: State, segment: str) -> State | None:
        """The state after one more segment, or None when nothing below can match."""
        # The fast path of every walk over a tree.
        if segment in state.next:
            return state.next[segment]
        if len(state.next) >= _MOST_REMEMBERED:
            state.next.clear()
        after = state.next[segment] = self._read(state, segment)
        return after

    def _read(self, state: State, segment: str) -> State | None:
        reached: list[Place] = []
        for (which, at), part in state.ahead:
            if isinstance(part, DoubleStar):
                reached.append((which, at))  # it takes the segment, and may take more
            elif fits(part, segment):
                reached.append((which, at + 1))
        if not reached:
            return None
        return self._state(reached)

    def layers(self, state: State, count: int | None) -> list[int]:
        """The single layers, of a stack of `count`, that the next segment of the pattern names; None for any number."""
        # Usually none: then the layers need not be tried one by one.
        if not any(layer_names(part) for _, part in state.ahead):
            return []
        if count is None:
            count = 1 + self._largest_number()
        return [number for number in range(count) if self.step_layer(state, number) is not None]

    def _largest_number(self) -> int:
        """The largest number in the text, of those below 10,000: more layers are not listed where no leaf has them."""
        return max((int(digits) for digits in re.findall("[0-9]+", self.text) if len(digits) < 5), default=-1)

    def step_layer(self, state: State, number: int) -> State | None:
        """The state after a layer of a stack that the pattern names by its number; None if the pattern does not name it."""
        name = str(number)
        reached: list[Place] = []
        for (which, at), part in state.ahead:
            if any(fits(layer_name, name) for layer_name in layer_names(part)):
                reached.append((which, at + 1))
        if not reached:
            return None
        return self._state(reached)

    def matches(self, path: str) -> bool:
        """Whether the pattern matches this path, or a node above it.

        >>> compile("blocks/*/attn").matches("blocks/3/attn/q/kernel")
        True
        """
        segments = path.split("/") if path else []
        return self.reaches(segments) is not None

    def reaches(self, segments: Sequence[str]) -> int | None:
        """The depth of the first node on this path that the pattern matches; None if it matches none."""
        state: State | None = self.start
        for used, segment in enumerate(segments):
            if state.accepts:  # before the step: a node above the leaf is enough
                return used
            state = self.step(state, segment)
            if state is None:
                return None
        return len(segments) if state.accepts else None

    def spells(self, path: str, at: int) -> bool:
        """Whether the pattern matches this path, or a node above it, by the name of one segment, in the place of which it has no `*`.

        >>> compile("**/{q,k}/kernel").spells("attn/q/kernel", 1), compile("**/kernel").spells("attn/q/kernel", 1)
        (True, False)
        """
        return self.matches(path) and not self._matches_any_name(path.split("/"), at)

    def _matches_any_name(self, segments: Sequence[str], at: int) -> bool:
        """Whether the pattern matches this path, or a node above it, also with any other name in one place."""
        state: State | None = self.start
        for position, segment in enumerate(segments):
            if state.accepts:
                return True
            state = self._read_any_name(state) if position == at else self.step(state, segment)
            if state is None:
                return False
        return state.accepts

    def _read_any_name(self, state: State) -> State | None:
        reached: list[Place] = []
        for (which, at), part in state.ahead:
            if isinstance(part, DoubleStar):
                reached.append((which, at))
            elif isinstance(part, Segment) and part.is_any_name:
                reached.append((which, at + 1))
        return self._state(reached) if reached else None

    def captures(self, segments: Sequence[str]) -> tuple[str, ...] | None:
        """What each wildcard captures if the pattern matches exactly these segments; else None.

        The first wildcard takes as little as it can, then the second, and so on. Braces count as one wildcard; of braces
        that contain a `/` only the wildcards in the alternative that matches count.

        >>> compile("*/layer_{0..11}/**").captures(["enc", "layer_3", "attn", "kernel"])
        ('enc', '3', 'attn/kernel')
        """
        for sequence in self._sequences:
            found = captures(sequence, segments)
            if found is not None:
                return found
        return None

    def fill_in(self, text: str, segments: Sequence[str]) -> list[str]:
        """The segments of a new path in which each wildcard is filled in by what it captures from these segments.

        Braces in the new path stand for those of the pattern, alternative for alternative; `*` keeps what they match.

        >>> compile("*/{query,key}").fill_in("layers/*/{q,k}", ["3", "key"])
        ['layers', '3', 'k']

        Raises:
            PatternError: the new path has another number of wildcards, or braces with another number of alternatives.
        """
        for sequence in self._sequences:
            found = captures(sequence, segments)
            if found is not None:
                return fill_in(text, found, wildcards(sequence), self.elements)
        return fill_in(text, (), (), self.elements)


@lru_cache(maxsize=1024)
def compile(text: str) -> Pattern:
    """Compile a pattern into a machine of states, or return the cached one of the same text.

    Raises:
        PatternError: the text is empty, has an empty segment, an unbalanced bracket, an empty range, spaces at the edge of
            an alternative, or `**` that is not a whole segment.
    """
    if not isinstance(text, str):
        raise PatternError(f"not a pattern: {quoted(text)}; a pattern is a string such as '**/bias'")
    return Pattern(text)
