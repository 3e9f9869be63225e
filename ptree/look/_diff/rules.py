"""Rules of renamed leaves, `h/** -> transformer/blocks/**`: found from pairs of names, applied to other names. Slashes and dots
separate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_MOST_RULES = 64
_MOST_PAIRS_TRIED = 2000
_ANY_NUMBER, _ANY = "*", "**"

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
    """A rule of renamed leaves: words that are replaced by others. `*` among them is a number, the same on both sides."""

    old: Words
    new: Words
    is_after_any: bool
    """Whether any words may come before them: `**/old`."""
    is_before_any: bool
    """Whether any words may come after them: `old/**`."""

    def image(self, words: Words) -> Words | None:
        """The new name of a leaf; None if the rule does not apply to it."""
        at = self._place(words)
        if at is None:
            return None
        end = at + len(self.old)
        numbers = iter([word for word, part in zip(words[at:end], self.old) if part == _ANY_NUMBER])
        filled = [next(numbers) if part == _ANY_NUMBER else part for part in self.new]
        return (*words[:at], *filled, *words[end:])

    def _place(self, words: Words) -> int | None:
        """Where the old words stand in a name: the first such place."""
        last = len(words) - len(self.old)
        if not self.is_before_any:
            places = range(last, last + 1) if self.is_after_any or last == 0 else range(0)
        else:
            places = range(last + 1 if self.is_after_any else 1)
        for at in places:
            if at >= 0 and _fits(self.old, words[at : at + len(self.old)]):
                return at
        return None

    def shown(self, before: str, after: str) -> tuple[str, str]:
        """Both patterns, with these separators."""
        start = (_ANY,) if self.is_after_any else ()
        end = (_ANY,) if self.is_before_any else ()
        return before.join(start + self.old + end), after.join(start + self.new + end)


def _fits(core: Words, words: Words) -> bool:
    if len(core) != len(words):
        return False
    return all(part == word or (part == _ANY_NUMBER and word.isdecimal()) for part, word in zip(core, words))


# ---------------------------------------------------------------------------- candidates


def candidates(before: Words, after: Words) -> Iterator[Rule]:
    """The rules that a pair of names may follow, the most general ones first.

    >>> for rule in candidates(("h", "0", "w"), ("blocks", "0", "w")):
    ...     print(*rule.shown("/", "/"), sep=" -> ")
    h/** -> blocks/**
    h/*/w -> blocks/*/w
    """
    if any("*" in word for word in before + after):
        return  # it would read as a wildcard
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    wild_old, wild_new = _with_wild_numbers(new, old), _with_wild_numbers(old, new)
    # without old words between two `**` it would not say where the new ones go
    if (head or tail) and (old or not (head and tail)):
        yield Rule(wild_old, wild_new, head > 0, tail > 0)
    if head and tail:
        kept = _with_wild_numbers(before[:head], before[:head])
        yield Rule(kept + wild_old, kept + wild_new, False, True)
    whole, new_whole = _with_wild_numbers(after, before), _with_wild_numbers(before, after)
    if _ANY_NUMBER in whole:
        yield Rule(whole, new_whole, False, False)


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
    return tuple(_ANY_NUMBER if word.isdecimal() else word for word in words)


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
    support: Counter[Rule] = Counter()
    for old, new in _spread(left):
        support.update(dict.fromkeys(candidates(words_of(old), words_of(new)), 1))
    checked = list(_spread(evidence))
    for rule, _ in support.most_common():  # where equal, in the order of the leaves
        if not any(_contradicts(rule, old, new, after) for old, new in checked):
            return rule
    return None


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
