"""Ties that are gained, lost or changed between two trees or files; a tie against two equal leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .._sources.source import Alias, Source
from .._tied_names import around_source
from .differences import WITHIN, Difference, difference_of
from .leaves import UNREADABLE, Side, are_equal, axes_between, change_through, content_of
from .pairs import Pairing
from .rules import Names, words_of

_MOST_TWINS_TRIED = 100
"""Leaves that are added or removed, and leaves of the same shape, that are searched for a copy: it is usually the first."""


@dataclass(frozen=True)
class TieChange:
    """A difference in ties, and the leaf that it explains, which is thus neither added nor removed."""

    row: Difference
    explained: str = ""


def tie_changes(before: Source, after: Source, pairing: Pairing, tolerance: float, verify: bool) -> list[TieChange]:
    """The ties that one side has and the other has not."""
    names = Names(after.order)
    names_after = {
        alias.path: _name_after(alias.path, names, pairing) for alias in _ties_of(before, pairing.compared_before)
    }
    lost = _lost_ties(before, after, pairing, names_after, tolerance, verify)
    gained = _gained_ties(before, after, pairing, {*names_after.values()}, tolerance, verify)
    return [*lost, *gained]


def _ties_of(source: Source, compared: Collection[str]) -> list[Alias]:
    """The ties to leaves that are compared."""
    return [alias for alias in source.aliases.values() if alias.source in compared]


def _lost_ties(
    before: Source,
    after: Source,
    pairing: Pairing,
    names_after: Mapping[str, str | None],
    tolerance: float,
    verify: bool,
) -> Iterator[TieChange]:
    """The rows of ties that are gone after, or have another source or transform."""
    partners = set(pairing.pairs.values())
    for path, name in names_after.items():
        alias = before.aliases[path]
        if name is None:
            yield TieChange(_lost_name(alias))
        elif name in after.aliases:
            for row in _changed_tie(alias, after.aliases[name], pairing):
                yield TieChange(row)
        elif name not in partners:
            found = _compared(Side(after, name, verify), Side(before, alias.source, verify), alias, tolerance)
            note = f"was = {alias.shown}, is {_copy(found)}"
            yield TieChange(replace(found, kind="untied", path=name, path_before=path, note=note), name)


def _gained_ties(
    before: Source,
    after: Source,
    pairing: Pairing,
    seen: Collection[str | None],
    tolerance: float,
    verify: bool,
) -> Iterator[TieChange]:
    """The ties after that are new: of names that were leaves, or were not there."""
    removed = Names(pairing.removed)
    for alias in _ties_of(after, pairing.compared_after):
        # the leaf of a name may have another name of the same tie now
        if alias.path in seen or alias.path in pairing.pairs:
            continue
        name = _name_before(alias.path, removed, pairing)
        if name is None:
            yield TieChange(_new_name(alias))
            continue
        found = _compared(Side(before, name, verify), Side(after, alias.source, verify), alias, tolerance)
        note = f"was {_copy(found)}, is = {alias.shown}"
        yield TieChange(replace(found, kind="tied", path=alias.path, path_before=name, note=note), name)


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
    if source.join(around_source(before.shown, before.source)) == after.shown:
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


def _copy(compared: Difference) -> str:
    if compared.differing == 0:
        return "an equal copy"
    if compared.relative is None:
        return "a leaf of its own"
    return f"another leaf (relative {compared.relative:.3g})"


# ----------------------------------------------------------------------------------- copies


def copies_of_others(source: Source, paths: Sequence[str], verify: bool) -> dict[str, str]:
    """Which leaves are equal copies of another leaf of the same side: path -> path of the other.

    Programs that know no ties write a tied leaf twice. Copies among the leaves themselves do not count, as tables that are
    the same in each layer, nor do leaves of one number all over. More than 100 leaves are not searched.
    """
    if len(paths) > _MOST_TWINS_TRIED:
        return {}
    found: dict[str, str] = {}
    for path in paths:
        twin = _twin(source, Side(source, path, verify), {*paths}, verify)
        if twin:
            found[path] = twin
    return found


def _twin(source: Source, side: Side, left_out: Collection[str], verify: bool) -> str:
    """The first leaf that is an equal copy; "" if there is none."""
    info = side.info
    if info.problem or info.count < 2:
        return ""
    alike = [path for path, other in source.leaves.items() if (other.shape, other.dtype) == (info.shape, info.dtype)]
    others = [Side(source, path, verify) for path in alike[:_MOST_TWINS_TRIED] if path not in left_out]
    try:
        for other in others:
            if not other.info.problem and are_equal(side, other):
                return "" if content_of(side).is_constant else other.path
    except UNREADABLE:
        return ""
    return ""
