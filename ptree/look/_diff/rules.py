"""Rules of renamed leaves, `h/** -> transformer/blocks/**`: found from pairs of names, applied to other names. Slashes and dots
separate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..._paths import escape

_MOST_RULES = 64
_MOST_PAIRS_TRIED = 2000
_MOST_SHARED_WORDS = 8
"""Words after the renamed ones that a rule may name, so that it does not apply to other leaves."""
_ANY_WORD, _ANY = "*", "**"

Words = tuple[str, ...]
"""The names between the separators of a path."""


def words_of(path: str) -> Words:
    """The names between the slashes and dots of a path: `h.0.w` and `h/0/w` are the same words."""
    return tuple(re.split("[./]", path))


def separator_of(paths: Iterable[str]) -> str:
    """What separates the names of paths: a dot, if there are dots and no slashes."""
    text = "\n".join(paths)
    return "." if "." in text and "/" not in text else "/"


@dataclass(frozen=True)
class Rule:
    """A rule of renamed leaves: words that are replaced by others. `*` among them is any word, the same on both sides.

    It means what `ptree.rename` makes of its two patterns.
    """

    old: Words
    new: Words
    is_after_any: bool
    """Whether any words may come before them: `**/old`."""
    is_before_any: bool
    """Whether it is written with any words after them, `old/**`; `old` alone renames what is below it too."""

    def image(self, words: Words) -> Words | None:
        """The new name of a leaf; None if the rule does not apply to it."""
        at = self._place(words)
        if at is None:
            return None
        end = at + len(self.old)
        captured = iter([word for word, part in zip(words[at:end], self.old) if part == _ANY_WORD])
        filled = [next(captured) if part == _ANY_WORD else part for part in self.new]
        return (*words[:at], *filled, *words[end:])

    def _place(self, words: Words) -> int | None:
        """Where the old words begin in a name: at the first such place."""
        last = len(words) - len(self.old) if self.is_after_any else 0
        for at in range(last + 1):
            if _fits(self.old, words[at : at + len(self.old)]):
                return at
        return None

    @property
    def has_wildcards(self) -> bool:
        return self.is_after_any or self.is_before_any or _ANY_WORD in self.old

    def shown(self, before: str, after: str) -> tuple[str, str]:
        """Both patterns, with these separators."""
        return before.join(self._pattern(self.old)), after.join(self._pattern(self.new))

    def _pattern(self, words: Words) -> Words:
        start = (_ANY,) if self.is_after_any else ()
        end = (_ANY,) if self.is_before_any else ()
        return start + tuple(word if word == _ANY_WORD else escape(word) for word in words) + end


def _fits(core: Words, words: Words) -> bool:
    if len(core) != len(words):
        return False
    return all(part in (word, _ANY_WORD) for part, word in zip(core, words))


# ---------------------------------------------------------------------------- candidates


def candidates(before: Words, after: Words) -> list[Rule]:
    """The rules that a pair of names may follow, the most general ones first.

    >>> for rule in candidates(("h", "0", "w"), ("blocks", "0", "w")):
    ...     print(*rule.shown("/", "/"), sep=" -> ")
    h/** -> blocks/**
    h/*/** -> blocks/*/**
    h/0/** -> blocks/0/**
    h/*/w -> blocks/*/w
    """
    if any(_ANY_WORD in word or not word for word in before + after):
        return []  # such a word would read as a wildcard, or is in no pattern
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    found: dict[Rule, None] = {}
    for size in range(min(tail, _MOST_SHARED_WORDS) + 1):
        shared = before[len(before) - tail : len(before) - tail + size]
        for start in ((), before[:head]):
            is_after_any = head > 0 and not start
            for one, other in _with_and_without_numbers((*start, *old, *shared), (*start, *new, *shared)):
                rule = Rule(one, other, is_after_any, size < tail)
                # without words between two `**` it would not say where the new ones go
                if rule.has_wildcards and (one or not (is_after_any and size < tail)):
                    found[rule] = None
    return [*found]


def _with_and_without_numbers(old: Words, new: Words) -> Iterator[tuple[Words, Words]]:
    """Both with `*` for their numbers, and both as they are."""
    yield _with_wild_numbers(new, old), _with_wild_numbers(old, new)
    yield old, new


def _common(one: Words, other: Words) -> int:
    """How many words are the same at the start of both."""
    count = 0
    for word, its in zip(one, other):
        if word != its:
            break
        count += 1
    return count


def _with_wild_numbers(model: Words, words: Words) -> Words:
    """The words with `*` for their numbers, if the model has the same numbers in the same order."""
    numbers = [word for word in words if word.isdecimal()]
    if numbers != [word for word in model if word.isdecimal()]:
        return words
    return tuple(_ANY_WORD if word.isdecimal() else word for word in words)


# --------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class Renaming:
    """A rule, and the pairs of paths that it renames."""

    rule: Rule
    pairs: dict[str, str]


class Names:
    """The paths of one side that have no partner, also found by their words."""

    def __init__(self, paths: Iterable[str]):
        self.words = {path: words_of(path) for path in paths}
        self.path_of: dict[Words, str] = {}
        for path, words in self.words.items():
            self.path_of.setdefault(words, path)


def renamings_of(evidence: Mapping[str, str], before: Iterable[str], after: Iterable[str]) -> list[Renaming]:
    """Find rules that pairs of paths follow, the one that most of them follow first, and what each rule renames.

    A rule renames a leaf where its new name is there and is no other leaf's partner. A rule that contradicts a pair is
    not taken.

    Args:
        evidence: pairs of paths that are surely the same leaf.
        before: the paths without a partner, those of the evidence among them.
        after: the same of the other side.
    """
    left, free_before, free_after = dict(evidence), Names(before), Names(after)
    partner_of = {new: old for old, new in evidence.items()}
    found: list[Renaming] = []
    while left and len(found) < _MOST_RULES:
        rule = _best_rule(left, evidence, free_after)
        if rule is None:
            break
        pairs = _renamed_by(rule, free_before, free_after, partner_of)
        found.append(Renaming(rule, pairs))
        left = {old: new for old, new in left.items() if old not in pairs}
        taken = set(pairs.values())
        free_before = Names(path for path in free_before.words if path not in pairs)
        free_after = Names(path for path in free_after.words if path not in taken)
    return found


def _best_rule(left: Mapping[str, str], evidence: Mapping[str, str], after: Names) -> Rule | None:
    """The rule that most of the pairs follow and none contradicts; of equal ones the most general."""
    checked = list(_spread(evidence))
    for rule in most_supported((words_of(old), words_of(new)) for old, new in _spread(left)):
        if not any(_contradicts(rule, old, new, after) for old, new in checked):
            return rule
    return None


def most_supported(pairs: Iterable[tuple[Words, Words]]) -> list[Rule]:
    """The rules that pairs of names may follow, that of most pairs first; where equal, in the order of the pairs."""
    support: Counter[Rule] = Counter()
    for old, new in pairs:
        support.update(candidates(old, new))
    return [rule for rule, _ in support.most_common()]


def _spread(pairs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """At most 2,000 of the pairs, from all over the list: of 100,000 these say as much."""
    stride = max(1, len(pairs) // _MOST_PAIRS_TRIED)
    return (pair for at, pair in enumerate(pairs.items()) if at % stride == 0)


def _contradicts(rule: Rule, old: str, new: str, after: Names) -> bool:
    image = rule.image(words_of(old))
    path = None if image is None else after.path_of.get(image)
    return path is not None and path != new


def _renamed_by(rule: Rule, before: Names, after: Names, partner_of: Mapping[str, str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for path, words in before.words.items():
        image = rule.image(words)
        new = None if image is None else after.path_of.get(image)
        if new is None or new in taken or partner_of.get(new, path) != path:
            continue
        pairs[path] = new
        taken.add(new)
    return pairs


def pairs_by_ending(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, str]:
    """Pairs of paths whose last two or more words are the same and belong to one leaf on each side, of one shape.

    It pairs leaves of which all have changed, so that no content is found again.

    Args:
        before: the paths without a partner, and the shape of each.
        after: the same of the other side.
    """
    words = {path: words_of(path) for path in (*before, *after)}
    found: dict[str, str] = {}
    for length in range(max(map(len, words.values()), default=0), 1, -1):
        olds = _unique({path: (words[path][-length:], shape) for path, shape in before.items()}, length, words)
        news = _unique({path: (words[path][-length:], shape) for path, shape in after.items()}, length, words)
        for ending, old in olds.items():
            if ending in news and old not in found:
                found[old] = news[ending]
    return found


def _unique(endings: Mapping[str, object], length: int, words: Mapping[str, Words]) -> dict[object, str]:
    counts = Counter(endings.values())
    return {ending: path for path, ending in endings.items() if counts[ending] == 1 and len(words[path]) >= length}
