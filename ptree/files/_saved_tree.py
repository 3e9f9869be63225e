"""SavedTree, what `load` reads from: the interface of safetensors files and Orbax checkpoints; the error for damaged leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from jax.sharding import Sharding

from .._errors import FileError, PtreeError
from .._stored.facts import Facts, StoredTie
from .._stored.stored_leaf import StoredLeaf
from .._tree import Leaf, Tie, Tree, assemble, transform_named
from .._words import listed, shortened
from ._kinds import empty_node

_LONGEST_REASON = 500  # characters of a message about names, which may be of any length

Compare = Literal["no leaves", "whole leaves", "all leaves"]
"""Which leaves are compared with their checksums. A leaf that is sharded over devices is read whole only for "all leaves"."""


@dataclass(frozen=True)
class ReadLeaves:
    """Leaves that were read from a saved tree, and the names of damaged ones, whose checksums differ."""

    values: dict[str, Leaf]
    damaged: list[str]


class SavedTree(ABC):
    """A saved tree, open for reading."""

    path: str
    facts: Facts
    ties: dict[str, Tie]
    """Those that the facts state, with the functions of their transforms."""
    leaves: dict[str, StoredLeaf]
    is_foreign: bool
    """Whether another program wrote it, and it has no facts."""

    @abstractmethod
    def read(
        self,
        leaves: Iterable[StoredLeaf],
        shardings: Mapping[str, Sharding] | None = None,
        compare: Compare = "whole leaves",
    ) -> ReadLeaves:
        """Read leaves, each as its kind says; those that have a sharding become JAX arrays, placed so."""

    @abstractmethod
    def close(self) -> None:
        """Close it; nothing more can be read."""

    def stored_tree(self, apart: Collection[str] = ()) -> Tree:
        """The tree, with a `StoredLeaf` for each leaf; the aliases in `apart` are leaves instead of ties."""
        ties = {alias: tie for alias, tie in self.ties.items() if alias not in apart}
        leaves = {name: leaf for name, leaf in self.leaves.items() if name not in ties}
        try:
            if "" in leaves:
                raise ValueError("'' cannot be the name of a leaf")
            return _assembled(self.facts, ties, leaves)
        except (PtreeError, ValueError, TypeError) as error:
            # other programs may use names that are no paths
            fix = " ptree.open reads leaf by leaf." if self.is_foreign else ""
            why = shortened(str(error), _LONGEST_REASON)
            raise FileError(f"cannot load {self.path!r}: {why}.{fix}", is_damage=not self.is_foreign) from error

    def damage_error(self, names: list[str]) -> FileError:
        """The error for damaged leaves of this tree."""
        return damage_error(self.path, names)


def damage_error(path: str, names: list[str], where: str = "") -> FileError:
    """The error for damaged leaves of a saved tree, whose bytes are not what their checksums say."""
    problem = f"damaged, their bytes are not what their checksums say: {listed(names)}{where}"
    error = FileError(f"cannot load {path!r}: {problem}", is_damage=True)
    error.damaged = names
    return error


def ties_of(facts: Facts) -> dict[str, Tie]:
    """Look up the transforms of the ties that a file states.

    Raises:
        TieError: a transform that this process has not registered.
    """
    return {
        alias: Tie(stated.source, tuple(map(transform_named, stated.transforms)))
        for alias, stated in facts.ties.items()
    }


def stored_ties(ties: Mapping[str, Tie]) -> dict[str, StoredTie]:
    """State ties in a file: a transform is its name."""
    return {alias: StoredTie(tie.source, tuple(step.name for step in tie.via)) for alias, tie in ties.items()}


def _assembled(facts: Facts, ties: Mapping[str, Tie], leaves: Mapping[str, Leaf]) -> Tree:
    """Assemble the tree of these leaves; raises ptree's errors, or ValueError if leaves and facts do not fit."""
    empty = {path: empty_node(name) for path, name in facts.empty.items()}
    entries = {**empty, **ties, **leaves}
    if len(entries) != len(facts.order) or entries.keys() != {*facts.order}:
        missing = {*facts.order} - {*entries}
        unknown = {*entries} - {*facts.order}
        raise ValueError(f"its metadata do not fit its leaves: {listed(sorted(missing or unknown)[:3])}")
    return assemble({path: entries[path] for path in facts.order})
