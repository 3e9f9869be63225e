"""Patterns to try for a leaf: ends of its path and all of it, the most general first, with `*` for numbers and stacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..._paths import STACKED, escape
from .braces import Form
from .layer_roles import separator_in
from .leaf_splits import EXPERTS, Split


class Candidate(NamedTuple):
    """A pattern to try."""

    form: Form
    names: tuple[str, ...]
    """Those that it spells."""
    numbers: tuple[str, ...]
    """The numbers among these, which would also name single layers of a stack."""


def general_candidates(path: str, split: Split) -> Iterator[Candidate]:
    """Patterns for a path without numbers in them, the most general first.

    >>> from .braces import pattern_text
    >>> from jax.sharding import PartitionSpec
    >>> split = Split(PartitionSpec())
    >>> [pattern_text(candidate.form) for candidate in general_candidates("blocks/0/up/kernel", split)]
    ['**/kernel', '**/up/kernel', 'blocks/*/up/kernel']
    >>> [pattern_text(candidate.form) for candidate in numbered_candidates("a/0/b/1/w", split)]
    ['**/w', '**/b/1/w', 'a/*/b/1/w', '**/w', '**/b/*/w', 'a/0/b/*/w', '**/w', '**/b/1/w', 'a/0/b/1/w']
    """
    names = path.split(separator_in(path))
    yield from _ends(path, names, split, frozenset())


def numbered_candidates(path: str, split: Split) -> Iterator[Candidate]:
    """Patterns for a path with its last number, with its first one, and with all of them; the last one is of this path alone."""
    names = path.split(separator_in(path))
    places = [at for at, name in enumerate(names) if name.isdecimal()]
    for kept in (places[-1:], places[:1], places):
        yield from _ends(path, names, split, frozenset(kept))


def _ends(path: str, names: Sequence[str], split: Split, kept: frozenset[int]) -> Iterator[Candidate]:
    """Patterns for the ends of a path that begin with a name, and for all of it, with the numbers at some places."""
    # the axis of a stack of experts is split, so a rule has to spell it, with the name before it
    experts = _stack_of_experts(names) if split.is_expert else None
    spelled = [at for at, name in enumerate(names) if _is_name(name) or at in kept or at == experts]
    segments = [(escape(name) if at in spelled else "*",) for at, name in enumerate(names)]
    latest = len(names) - 1 if experts is None else experts - 1
    for start in range(latest, -1, -1):
        if start == 0 or _is_name(names[start]):
            form = Form(tuple(segments[start:]), is_whole=start == 0, separator=separator_in(path))
            literal = [at for at in spelled if at >= start]
            numbers = tuple(names[at] for at in literal if at in kept)
            yield Candidate(form, tuple(names[at] for at in literal), numbers)


def _is_name(segment: str) -> bool:
    return segment != STACKED and not segment.isdecimal()


def _stack_of_experts(names: Sequence[str]) -> int:
    """The position of the last stack whose layers are experts."""
    return max(at for at, name in enumerate(names) if name == STACKED and at and names[at - 1] in EXPERTS)
