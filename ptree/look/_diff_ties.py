"""Ties that are gained, lost or changed between two trees or files; a tie against two equal leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ._diff_leaves import UNREADABLE, Side, axes_between, change_through
from ._diff_pairs import Pairing
from ._diff_rules import Names, words_of
from ._differences import WITHIN, Difference, difference_of
from ._sources import Alias, Source


@dataclass(frozen=True)
class TieChanges:
    """The differences in ties, and the leaves which they explain, and which are thus neither added nor removed."""

    rows: tuple[Difference, ...]
    explained_before: frozenset[str]
    explained_after: frozenset[str]


def tie_changes(before: Source, after: Source, pairing: Pairing, tolerance: float, verify: bool) -> TieChanges:
    """The ties that one side has and the other has not."""
    rows: list[Difference] = []
    names = Names(after.order)
    removed = Names(pairing.removed)
    seen = {*pairing.pairs}  # a name whose leaf now has another name of the same tie
    explained_before: set[str] = set()
    explained_after: set[str] = set()
    for alias in before.aliases.values():
        if alias.source not in before.leaves:
            continue
        name = _name_after(alias.path, names, pairing)
        seen.add(name or "")
        if name is None:
            rows.append(_lost_name(alias))
        elif name in after.aliases:
            rows += _changed_tie(alias, after.aliases[name], pairing)
        elif name not in pairing.pairs.values():
            explained_after.add(name)
            equal = _compared(Side(after, name, verify), Side(before, alias.source, verify), alias, tolerance)
            rows.append(replace(equal, kind="untied", path=name, path_before=alias.path, note=_was(alias, equal)))
    for alias in after.aliases.values():
        if alias.path in seen or alias.source not in after.leaves:
            continue
        name = _name_before(alias.path, removed, pairing)
        if name is None:
            rows.append(_new_name(alias))
            continue
        explained_before.add(name)
        equal = _compared(Side(before, name, verify), Side(after, alias.source, verify), alias, tolerance)
        rows.append(replace(equal, kind="tied", path=alias.path, path_before=name, note=_is_now(alias, equal)))
    return TieChanges(tuple(rows), frozenset(explained_before), frozenset(explained_after))


def _name_after(path: str, names: Names, pairing: Pairing) -> str | None:
    """The name after, of a name before: the same, with other separators, or by a rule; None if there is none."""
    if path in names.words:
        return path
    words = words_of(path)
    for image in (words, *_images(words, pairing)):
        if image in names.path_of:
            return names.path_of[image]
    return None


def _images(words: tuple[str, ...], pairing: Pairing) -> Iterator[tuple[str, ...]]:
    for renaming in pairing.renamings:
        image = renaming.rule.image(words)
        if image is not None:
            yield image


def _name_before(path: str, removed: Names, pairing: Pairing) -> str | None:
    """The leaf before whose name is tied now."""
    if path in removed.words:
        return path
    words = words_of(path)
    if words in removed.path_of:
        return removed.path_of[words]
    for old, its_words in removed.words.items():
        if words in _images(its_words, pairing):
            return old
    return None


def _lost_name(alias: Alias) -> Difference:
    return Difference(kind="removed", path=alias.path, path_before=alias.path, note=f"= {alias.shown}")


def _new_name(alias: Alias) -> Difference:
    return Difference(kind="added", path=alias.path, shape=alias.shape, note=f"= {alias.shown}")


def _changed_tie(before: Alias, after: Alias, pairing: Pairing) -> list[Difference]:
    """The row of a tie that has another source or another transform; none where it is the same tie."""
    source = pairing.pairs.get(before.source, before.source)
    if before.shown.replace(before.source, source) == after.shown:
        return []
    note = f"was = {before.shown}, is = {after.shown}"
    return [Difference(kind="retied", path=after.path, path_before=before.path, note=note)]


# ---------------------------------------------------------------- a tie against two leaves


def _compared(copy: Side, source: Side, alias: Alias, tolerance: float) -> Difference:
    """Compare the leaf that stands where the other side has a tie with the tie's source."""
    none = Difference(kind="", path=copy.path, shape_before=copy.shape, shape=copy.shape, dtype=copy.dtype)
    if alias.shown == alias.source:
        found = difference_of(source, copy, tolerance)
        if found is None or found.kind == WITHIN:
            return replace(none, differing=0, relative=0.0)
        return found
    if copy.info.problem or source.info.problem:
        return none
    try:
        order = axes_between(source, copy)
        if order is None:
            return none
        sizes = change_through(source, copy, order)
    except UNREADABLE as error:
        return replace(none, note=str(error))
    return replace(none, differing=sizes.differing, relative=sizes.relative)


def _was(alias: Alias, compared: Difference) -> str:
    return f"was = {alias.shown}, is {_copy(compared)}"


def _is_now(alias: Alias, compared: Difference) -> str:
    return f"was {_copy(compared)}, is = {alias.shown}"


def _copy(compared: Difference) -> str:
    if compared.differing == 0:
        return "an equal copy"
    if compared.relative is None:
        return "a leaf of its own"
    return f"another leaf (relative {compared.relative:.3g})"
