"""SavedTree, what `load` reads from: the interface of safetensors files and Orbax checkpoints; the error for damaged leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jax.sharding import Sharding

from .._errors import FileError, PtreeError
from .._tree import Leaf, Tree
from .._words import listed, shortened
from ._facts import Facts
from ._stored_leaf import StoredLeaf

_LONGEST_REASON = 500  # characters of a message about names, which may be of any length

Compare = Literal["no leaves", "whole leaves", "all leaves"]
"""Which leaves are compared with their checksums. A leaf that is spread over devices is read whole only for "all leaves"."""


@dataclass(frozen=True)
class ReadLeaves:
    """Leaves that were read from a saved tree, and the names of damaged ones, whose checksums differ."""

    values: dict[str, Leaf]
    damaged: list[str]


class SavedTree(ABC):
    """A saved tree, open for reading."""

    path: str
    facts: Facts
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
        ties = {alias: tie for alias, tie in self.facts.ties.items() if alias not in apart}
        leaves = {name: leaf for name, leaf in self.leaves.items() if name not in ties}
        try:
            if "" in leaves:
                raise ValueError("'' cannot be the name of a leaf")
            return replace(self.facts, ties=ties).tree_of(leaves)
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
