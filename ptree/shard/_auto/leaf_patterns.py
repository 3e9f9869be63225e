"""For each leaf the most general pattern that takes only leaves which are split alike, found by trying it on all leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from itertools import product
from typing import NamedTuple

from jax.sharding import PartitionSpec

from ..._paths import STACKED, Pattern, compile
from ..._tree import Tie, stacked_axes
from .alike_leaves import AlikeLeaves
from .braces import Form, pattern_text
from .path_pieces import PathsByPiece
from .pattern_candidates import Candidate, general_candidates, numbered_candidates

NOTHING = PartitionSpec()


class Forms(NamedTuple):
    """Forms of the patterns of rules, each with the leaves that it is for."""

    in_any_order: dict[Form, list[AlikeLeaves]]
    after_tied: dict[Form, list[AlikeLeaves]]
    """Those that match aliases of leaves which are split otherwise, and whose rules have to come first."""


def forms_of(kinds: Sequence[AlikeLeaves], ties: Mapping[str, Tie]) -> Forms:
    """Find a form for the leaves of each kind that are split; it takes no leaf that is split otherwise.

    Args:
        kinds: all leaves of a tree.
        ties: its aliases.
    """
    tied = {tie.source for tie in ties.values()}
    trial = _Trial(kinds, ties)
    forms = Forms({}, {})
    for kind in kinds:
        if kind.split.spec == NOTHING:
            continue
        latest = _Order.ANY if not tied.isdisjoint(kind.paths) else _Order.AFTER_TIED
        chosen = trial.first_that_fits(general_candidates(kind.path, kind.split), kind.split.spec, latest)
        if chosen is not None:
            form, order = chosen
            forms[order].setdefault(form, []).append(kind)
            continue
        for path in kind.paths:  # their numbers decide
            latest = _Order.ANY if path in tied else _Order.AFTER_TIED
            chosen = trial.first_that_fits(numbered_candidates(path, kind.split), kind.split.spec, latest)
            if chosen is not None:
                form, order = chosen
                forms[order].setdefault(form, []).append(kind._replace(paths=[path]))
    return forms


class _Order(IntEnum):
    """Where a rule may stand; the positions of the forms in `Forms`."""

    ANY = 0
    AFTER_TIED = 1
    """Behind the rules of tied leaves."""
    NOWHERE = 2


class _Trial:
    """Tries patterns on all names of all leaves, by the matcher that assigns rules."""

    def __init__(self, kinds: Sequence[AlikeLeaves], ties: Mapping[str, Tie]):
        self._kinds, self._ties = kinds, ties
        self._aliases = PathsByPiece([*ties])
        self._orders: dict[tuple[Form, PartitionSpec], _Order] = {}

    def first_that_fits(
        self, candidates: Iterator[Candidate], spec: PartitionSpec, latest: _Order
    ) -> tuple[Form, _Order] | None:
        """The first pattern that takes only leaves with this spec, if its rule stands at this place at the latest."""
        for candidate in candidates:
            key = candidate.form, spec
            if key not in self._orders:
                self._orders[key] = self._order(candidate, spec)
            if self._orders[key] <= latest:
                return candidate.form, self._orders[key]
        return None

    def _order(self, candidate: Candidate, spec: PartitionSpec) -> _Order:
        pattern = compile(pattern_text(candidate.form))
        if self._takes_others(pattern, candidate, spec) or self._names_layers(pattern, candidate.numbers):
            return _Order.NOWHERE
        aliases = [alias for alias in self._aliases.with_names(candidate.names) if pattern.matches(alias)]
        return max((self._order_by_alias(pattern, alias, spec) for alias in aliases), default=_Order.ANY)

    def _takes_others(self, pattern: Pattern, candidate: Candidate, spec: PartitionSpec) -> bool:
        """Whether a pattern takes a leaf that has another spec."""
        # a pattern without numbers matches all leaves of a kind or none, so the first one is enough
        leaves = self._all_leaves if candidate.numbers else self._first_leaves
        for path in leaves.paths.with_names(candidate.names):
            if leaves.specs[path] != spec and pattern.matches(path):
                return True
        return False

    def _names_layers(self, pattern: Pattern, numbers: Sequence[str]) -> bool:
        """Whether a pattern with these numbers names single layers of a stack, which can have no rule."""
        for path in self._stacked if numbers else ():
            choices = product((STACKED, *numbers), repeat=stacked_axes(path))
            next(choices)  # the whole stack
            if any(pattern.matches(_with_layers(path, layers)) for layers in choices):
                return True
        return False

    def _order_by_alias(self, pattern: Pattern, alias: str, spec: PartitionSpec) -> _Order:
        """Where a rule may stand whose pattern matches an alias."""
        tie = self._ties[alias]
        expected = self._all_leaves.specs[tie.source]
        if expected == spec and not tie.via and STACKED not in alias + tie.source:
            return _Order.ANY
        if pattern.spells(alias, _parting(alias, tie.source)):
            return _Order.NOWHERE  # two rules that spell two names of one leaf have to agree
        if pattern.matches(tie.source):
            return _Order.ANY
        return _Order.NOWHERE if expected == NOTHING else _Order.AFTER_TIED

    @cached_property
    def _first_leaves(self) -> _Leaves:
        return _Leaves({kind.path: kind.split.spec for kind in self._kinds})

    @cached_property
    def _all_leaves(self) -> _Leaves:
        return _Leaves({path: kind.split.spec for kind in self._kinds for path in kind.paths})

    @cached_property
    def _stacked(self) -> list[str]:
        return [path for path in (*self._all_leaves.specs, *self._ties) if STACKED in path.split("/")]


class _Leaves:
    """Leaves by path, and by the names in it."""

    def __init__(self, specs: Mapping[str, PartitionSpec]):
        self.specs = specs

    @cached_property
    def paths(self) -> PathsByPiece:
        return PathsByPiece([*self.specs])


def _with_layers(path: str, layers: Sequence[str]) -> str:
    left = iter(layers)
    return "/".join(next(left) if segment == STACKED else segment for segment in path.split("/"))


def _parting(alias: str, source: str) -> int:
    """The position of the first segment in which two names of a leaf differ."""
    segments = enumerate(zip(alias.split("/"), source.split("/"), strict=False))
    return next((at for at, (one, other) in segments if one != other), 0)
