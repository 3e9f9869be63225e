"""Describe renamed leaves by rules that are true: `ptree.rename` with such a rule renames these leaves alone, and to these names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .rules import Renaming, Rule, Words, most_supported

_MOST_RULES = 64
_MOST_TRIED = 200
_MOST_PAIRS_COUNTED = 2000


def true_renamings(
    renamed: Mapping[str, str],
    partners: Mapping[str, str],
    before: Collection[str],
    after: Collection[str],
    separators: tuple[str, str],
) -> list[Renaming]:
    """Find rules that say which leaves are renamed, the rule of most leaves first. What no true rule says is left out.

    Args:
        renamed: the pairs of paths to say, before -> after.
        partners: all pairs, also those of one name.
        before: all names before.
        after: all names after.
        separators: what separates the words of the names before, and of those after.
    """
    names = _Names(partners, before, after, separators)
    left = {path: (names.words[path], names.new_words[path]) for path in renamed}
    found: list[Renaming] = []
    refused: set[Rule] = set()
    while left and len(found) < _MOST_RULES and len(refused) < _MOST_TRIED:
        renaming = _best(left, names, refused)
        if renaming is None:
            break
        found.append(renaming)
        left = {path: words for path, words in left.items() if path not in renaming.pairs}
    return found


def _best(left: Mapping[str, tuple[Words, Words]], names: _Names, refused: set[Rule]) -> Renaming | None:
    """The true rule that most of the leaves follow. Rules that are found to be false are remembered as refused."""
    stride = max(1, len(left) // _MOST_PAIRS_COUNTED)
    for rule in most_supported([*left.values()][::stride]):
        if rule in refused:
            continue
        pairs = names.renamed_by(rule)
        if pairs:
            return Renaming(rule, pairs)
        refused.add(rule)
        if len(refused) >= _MOST_TRIED:
            break
    return None


class _Names:
    """The names of both sides as words, and the partner of each."""

    def __init__(
        self, partners: Mapping[str, str], before: Iterable[str], after: Iterable[str], separators: tuple[str, str]
    ):
        self.partners = partners
        self.words = {path: tuple(path.split(separators[0])) for path in before}
        self.new_words = {path: tuple(new.split(separators[1])) for path, new in partners.items()}
        self.taken = {*self.words.values(), *(tuple(path.split(separators[1])) for path in after)}

    def renamed_by(self, rule: Rule) -> dict[str, str]:
        """The leaves that a rule renames, with their new names; empty if it is false of one leaf.

        A leaf without a partner may be renamed too, to a name that nothing else has.
        """
        images: set[Words] = set()
        pairs: dict[str, str] = {}
        for path, words in self.words.items():
            image = rule.image(words)
            if image is None:
                continue
            is_right = image == self.new_words[path] if path in self.partners else image not in self.taken
            if not is_right or image in images or not image:
                return {}
            images.add(image)
            if path in self.partners:
                pairs[path] = self.partners[path]
        return pairs
