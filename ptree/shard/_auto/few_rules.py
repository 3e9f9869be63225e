"""Write what is chosen for each leaf as few, general rules, with `**` for the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..._paths import Pattern, compile
from ..._tree import Tie
from .alike_leaves import AlikeLeaves
from .braces import Form, merged, pattern_text
from .leaf_patterns import NOTHING, Forms, forms_of
from .rules import Rules

_MOST_SAID = 3
_MATCHES = 3_000_000
"""Leaves times forms: about so many comparisons of names take three seconds."""
_LEAST_FORMS = 60


def few_rules(kinds: Sequence[AlikeLeaves], ties: Mapping[str, Tie], head: str) -> Rules:
    """Write few rules that give each leaf of a tree its split.

    A tree of thousands of leaves whose names have nothing in common would need a rule for each: then those of the largest leaves
    are written, and the others are replicated.

    Args:
        kinds: all leaves of the tree, with how they are split.
        ties: its aliases, which rules match too.
        head: a comment above the rules.
    """
    if _are_alike(kinds):
        [spec, *_] = {kind.split.spec for kind in kinds}
        return Rules({"**": spec}, {"**": _comment(kinds)}, head)
    tied = {tie.source for tie in ties.values()}
    forms = _largest(forms_of(kinds, ties), tied, _most_forms(sum(len(kind.paths) for kind in kinds)))
    rules = _merged(forms.in_any_order)
    of_tied = {text: taken for text, taken in rules.items() if _are_tied(taken, tied)}
    rules = _taking(of_tied | rules | _merged(forms.after_tied))
    specs = {text: taken[0].split.spec for text, taken in rules.items()}
    comments = {text: _comment(taken) for text, taken in rules.items()}
    dropped = _leaves_in(kind for kind in kinds if kind.split.spec != NOTHING)
    dropped -= _leaves_in(kind for part in forms for taken in part.values() for kind in taken)
    whole = [kind for kind in kinds if kind.split.spec == NOTHING]
    if dropped or whole or not kinds:
        specs["**"] = NOTHING
        comments["**"] = _comment(whole, dropped)
    return Rules(specs, comments, head)


def _are_alike(kinds: Sequence[AlikeLeaves]) -> bool:
    """Whether one rule for `**` is enough; it does not spell the axis of a stack of experts."""
    return len({kind.split.spec for kind in kinds}) == 1 and not any(kind.split.is_expert for kind in kinds)


def _merged(forms: Mapping[Form, list[AlikeLeaves]]) -> dict[str, list[AlikeLeaves]]:
    """The patterns of forms, of which those of one split are joined in braces -> the leaves that they are for."""
    specs = {form: taken[0].split.spec for form, taken in forms.items()}
    rules: dict[str, list[AlikeLeaves]] = {}
    for form, members in merged(specs).items():
        rules[pattern_text(form)] = [kind for member in members for kind in forms[member]]
    return rules


def _taking(rules: Mapping[str, list[AlikeLeaves]]) -> dict[str, list[AlikeLeaves]]:
    """The rules without those whose leaves others before them take, which are split alike."""
    taking: dict[str, list[AlikeLeaves]] = {}
    before: list[Pattern] = []
    for text, taken in rules.items():
        paths = [path for kind in taken for path in kind.paths]
        if not all(any(pattern.matches(path) for pattern in before) for path in paths):
            taking[text] = taken
            before.append(compile(text))
    return taking


def _largest(forms: Forms, tied: Collection[str], most: int) -> Forms:
    """Only so many forms, for the largest leaves, which are all of a tree that is regular; those of tied leaves before all others."""
    every = forms.in_any_order | forms.after_tied
    if len(every) <= most:
        return forms

    def size(form: Form) -> tuple[bool, int]:
        return _are_tied(every[form], tied), sum(kind.size * len(kind.paths) for kind in every[form])

    kept = {*sorted(every, key=size, reverse=True)[:most]}
    return Forms(*({form: taken for form, taken in part.items() if form in kept} for part in forms))


def _are_tied(kinds: Iterable[AlikeLeaves], tied: Collection[str]) -> bool:
    """Whether some of the leaves are tied."""
    return any(path in tied for kind in kinds for path in kind.paths)


def _most_forms(leaves: int) -> int:
    """How many rules can be matched with so many leaves in seconds."""
    return max(_LEAST_FORMS, _MATCHES // max(1, leaves))


def _leaves_in(kinds: Iterable[AlikeLeaves]) -> int:
    return sum(len(kind.paths) for kind in kinds)


def _comment(kinds: Iterable[AlikeLeaves], dropped: int = 0) -> str:
    more = [f"{dropped:,} leaves would need rules of their own"] if dropped else []
    different = list(dict.fromkeys([*more, *(kind.split.comment for kind in kinds if kind.split.comment)]))
    unsaid = f"; and {len(different) - _MOST_SAID} more" if len(different) > _MOST_SAID else ""
    return "; ".join(different[:_MOST_SAID]) + unsaid
