"""Find which leaf of one side is which of the other: by name, by content where the name is another, by rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

from .._sources.source import Alias, Source
from .leaves import UNREADABLE, Content, Side, aligned, content_of
from .rules import Names, Renaming, pairs_by_ending, renamings_of, separator_of
from .sizes import LEAST_COSINE, sizes_of
from .stack_pairs import StackPair, renamed_stacks, stacks_by_name
from .true_rules import true_renamings

_MOST_ALIKE_TRIED = 8


@dataclass(frozen=True)
class RenameRule:
    """A rule by which leaves are renamed, as two patterns; `.` and `/` alone where only the separators differ.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.diff({"enc": {"w": np.arange(4), "b": np.ones(2)}}, {"encoder": {"w": np.arange(4), "b": np.ones(2)}})
    >>> found.rules
    (RenameRule(before='enc/**', after='encoder/**', count=2),)
    """

    before: str
    """The pattern before."""
    after: str
    """The pattern after."""
    count: int
    """How many leaves it renames."""

    __module__ = "ptree.look"


@dataclass(frozen=True)
class Pairing:
    """Which leaves are the same leaf: path before -> path after."""

    pairs: dict[str, str]
    equal: frozenset[str]
    """Paths before of pairs that are known to be equal by their content."""
    respelt: frozenset[str]
    """Paths before of pairs that differ only in dots and slashes."""
    renamings: tuple[Renaming, ...]
    """By which partners were found: they may apply to other leaves too."""
    true_renamings: tuple[Renaming, ...]
    """Which say what is renamed."""
    separators: tuple[str, str]
    """What separates the words of the names before, and of those after."""
    stacks: tuple[StackPair, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]

    @cached_property
    def rules(self) -> tuple[RenameRule, ...]:
        """The rules as people write them, with the separators of each side."""
        rules = [RenameRule(*self.separators, len(self.respelt))] if self.respelt else []
        for renaming in self.true_renamings:
            rules.append(RenameRule(*renaming.rule.shown(*self.separators), len(renaming.pairs)))
        return tuple(rules)

    @cached_property
    def ruled(self) -> frozenset[str]:
        """Paths before of the pairs that a rule of `rules` covers."""
        return self.respelt.union(*(renaming.pairs for renaming in self.true_renamings))

    @cached_property
    def compared_before(self) -> frozenset[str]:
        """The leaves before whose ties are compared with those after."""
        return frozenset([*self.pairs, *self.removed])

    @cached_property
    def compared_after(self) -> frozenset[str]:
        """The leaves after whose ties are compared with those before."""
        return frozenset([*self.pairs.values(), *self.added])

    def restricted_to(self, chosen: frozenset[str]) -> Pairing:
        """The pairs, stacks and single leaves of which one name, before or after, is chosen."""
        pairs = _chosen_pairs(self.pairs, chosen)
        renamings = [Renaming(item.rule, _chosen_pairs(item.pairs, chosen)) for item in self.true_renamings]
        return replace(
            self,
            pairs=pairs,
            respelt=self.respelt.intersection(pairs),
            true_renamings=tuple(renaming for renaming in renamings if renaming.pairs),
            stacks=tuple(pair for pair in self.stacks if not chosen.isdisjoint([pair.stack, *pair.layers])),
            removed=tuple(path for path in self.removed if path in chosen),
            added=tuple(path for path in self.added if path in chosen),
        )


def _chosen_pairs(pairs: Mapping[str, str], chosen: Collection[str]) -> dict[str, str]:
    return {path: new for path, new in pairs.items() if path in chosen or new in chosen}


@dataclass(frozen=True)
class _Free:
    """The paths of both sides that have no partner yet."""

    before: list[str]
    after: list[str]

    def without(self, pairs: Mapping[str, str]) -> _Free:
        return _Free(_left(self.before, pairs), _left(self.after, pairs.values()))

    def without_stacks(self, stacks: Iterable[StackPair]) -> _Free:
        before: list[str] = []
        after: list[str] = []
        for stack in stacks:
            before += [stack.stack] if stack.is_before else stack.layers
            after += stack.layers if stack.is_before else [stack.stack]
        return _Free(_left(self.before, before), _left(self.after, after))


class _Sides(NamedTuple):
    """The leaves without a partner by path, to be read."""

    before: dict[str, Side]
    after: dict[str, Side]

    @classmethod
    def of(cls, before: Source, after: Source, free: _Free, verify: bool) -> _Sides:
        return cls(
            {path: Side(before, path, verify) for path in free.before},
            {path: Side(after, path, verify) for path in free.after},
        )


def _left(paths: Iterable[str], taken: Collection[str]) -> list[str]:
    taken = set(taken)
    return [path for path in paths if path not in taken]


def paired(before: Source, after: Source, verify: bool) -> Pairing:
    """Pair the leaves of two sides; with `verify`, what is read is compared with checksums."""
    pairs = _by_name(before, after)
    free = _Free([*before.leaves], [*after.leaves]).without(pairs)
    stacks = stacks_by_name(before, free.before, free.after, True) + stacks_by_name(
        after, free.after, free.before, False
    )
    free = free.without_stacks(stacks)
    respelt = _by_words(free.before, free.after)
    free = free.without(respelt)
    sides = _Sides.of(before, after, free, verify)
    renamed = renamed_stacks(sides.before, sides.after, True) + renamed_stacks(sides.after, sides.before, False)
    free = free.without_stacks(renamed)
    sides = _Sides.of(before, after, free, verify)
    found = _by_content(sides.before, sides.after)
    free = free.without(found.pairs)
    separators = separator_of(before.order), separator_of(after.order)
    return Pairing(
        pairs=pairs | respelt | found.pairs,
        equal=found.equal,
        respelt=frozenset(respelt),
        renamings=found.renamings,
        true_renamings=_true_renamings(before, after, pairs | respelt, found.pairs, separators),
        separators=separators,
        stacks=stacks + renamed,
        removed=tuple(free.before),
        added=tuple(free.after),
    )


def _true_renamings(
    before: Source, after: Source, kept: Mapping[str, str], renamed: Mapping[str, str], separators: tuple[str, str]
) -> tuple[Renaming, ...]:
    """The rules that say which leaves are renamed; none of them renames a leaf or a tied name that kept its name."""
    if not renamed:
        return ()
    names_after = {*after.order}
    kept_ties = {path: path for path in before.aliases if path in names_after}
    partners = {**kept_ties, **kept, **renamed}
    return tuple(true_renamings(renamed, partners, [*before.leaves, *kept_ties], names_after, separators))


# --------------------------------------------------------------------------------- by name


def _by_name(before: Source, after: Source) -> dict[str, str]:
    """Pairs of one name; and of two names that are tied on both sides, of which the other one has the leaf after."""
    pairs: dict[str, str] = {}
    for path in before.leaves:
        alias = after.aliases.get(path)
        if path in after.leaves:
            pairs[path] = path
        elif alias is not None and _is_swapped(path, alias, before) and alias.source in after.leaves:
            pairs[path] = alias.source
    return pairs


def _is_swapped(path: str, alias: Alias, before: Source) -> bool:
    """Whether the source that the path is tied to after was tied to the path before."""
    back = before.aliases.get(alias.source)
    return alias.shown == alias.source and back is not None and back.shown == path


def _by_words(old: Iterable[str], new: Iterable[str]) -> dict[str, str]:
    """Pairs of paths that differ only in dots and slashes."""
    names, new_names = Names(old), Names(new)
    return {path: new_names.path_of[words] for words, path in names.path_of.items() if words in new_names.path_of}


# ------------------------------------------------------------------------------ by content


@dataclass(frozen=True)
class _Found:
    pairs: dict[str, str]
    equal: frozenset[str]
    renamings: tuple[Renaming, ...]


def _by_content(old: Mapping[str, Side], new: Mapping[str, Side]) -> _Found:
    """Pairs of leaves whose content is on each side once, and those that follow a rule of these."""
    kinds = {_kind(side) for side in old.values()} & {_kind(side) for side in new.values()}
    contents, new_contents = _contents(old, kinds), _contents(new, kinds)
    sure, weak = _unique_pairs(contents, new_contents)
    renamings = renamings_of(sure, old, new)
    pairs = _all_pairs(renamings)
    renamings += _by_names(_without(old, pairs), _without(new, pairs.values()))
    pairs = _all_pairs(renamings)
    # what follows no rule, and is there once all the same
    taken = set(pairs.values())
    for path, partner in (*sure.items(), *weak.items()):
        if path not in pairs and partner not in taken:
            pairs[path] = partner
    equal = [path for path in pairs if path in contents and contents[path] == new_contents.get(pairs[path])]
    return _Found(pairs, frozenset(equal), tuple(renamings))


def _kind(side: Side) -> tuple[str, tuple[int, ...] | None]:
    return side.dtype, side.shape


def _all_pairs(renamings: Iterable[Renaming]) -> dict[str, str]:
    return {path: partner for renaming in renamings for path, partner in renaming.pairs.items()}


def _without(sides: Mapping[str, Side], paths: Collection[str]) -> dict[str, Side]:
    taken = set(paths)
    return {path: side for path, side in sides.items() if path not in taken}


def _contents(sides: Mapping[str, Side], kinds: Collection[object]) -> dict[str, Content]:
    """The content of each leaf that can be read, and whose dtype and shape the other side has too."""
    found: dict[str, Content] = {}
    for path, side in sides.items():
        if side.info.problem or side.is_object or _kind(side) not in kinds:
            continue
        try:
            found[path] = content_of(side)
        except UNREADABLE:
            continue  # a rule may name its partner; the comparison then says what is wrong
    return found


def _unique_pairs(old: Mapping[str, Content], new: Mapping[str, Content]) -> tuple[dict[str, str], dict[str, str]]:
    """Pairs of leaves whose content is on each side once, and apart those of one number all over, which may be chance."""
    owners, new_owners = _owners(old), _owners(new)
    sure: dict[str, str] = {}
    weak: dict[str, str] = {}
    for content, paths in owners.items():
        partners = new_owners.get(content, [])
        if len(paths) == 1 and len(partners) == 1:
            pairs = weak if content.is_constant else sure
            pairs[paths[0]] = partners[0]
    return sure, {path: partner for path, partner in weak.items() if _has_several_numbers(old[path])}


def _owners(contents: Mapping[str, Content]) -> dict[Content, list[str]]:
    owners: dict[Content, list[str]] = {}
    for path, content in contents.items():
        owners.setdefault(content, []).append(path)
    return owners


def _has_several_numbers(content: Content) -> bool:
    return prod(content.shape) > 1


def _by_names(old: Mapping[str, Side], new: Mapping[str, Side]) -> list[Renaming]:
    """What rules of names rename, where nothing has its content any more: both sides must still look alike."""
    shapes = {path: side.shape for path, side in old.items()}
    new_shapes = {path: side.shape for path, side in new.items()}
    renamings = renamings_of(pairs_by_ending(shapes, new_shapes), old, new)
    return [renaming for renaming in renamings if _look_alike(renaming, old, new)]


def _look_alike(renaming: Renaming, old: Mapping[str, Side], new: Mapping[str, Side]) -> bool:
    """Whether the first chunks of most of the larger leaves point in one direction."""
    by_size = sorted(renaming.pairs.items(), key=lambda pair: -old[pair[0]].info.count)
    alike = [_is_alike(old[path], new[partner]) for path, partner in by_size[:_MOST_ALIKE_TRIED]]
    return 2 * sum(alike) > len(alike)


def _is_alike(before: Side, after: Side) -> bool:
    if before.info.is_declared or after.info.is_declared:
        return True
    if before.info.problem or after.info.problem or before.shape != after.shape:
        return False
    try:
        first = next(aligned(before.chunks(), after.chunks()), None)
    except UNREADABLE:
        return False
    return first is not None and sizes_of(*first).cosine > LEAST_COSINE
