"""A source, what a tree is loaded from: facts, and leaves that are read when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from .._errors import FileError, PtreeError
from .._tree import Tree
from .._words import listed
from ._format import Facts, put_together
from ._tensor import kind_of

Compare = Literal["no leaves", "whole leaves", "all leaves"]


@dataclass(frozen=True, eq=False)
class Unread:
    """A leaf that is not read yet."""

    source: Any
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """What it was, as `FORMAT.md` has it: empty for a jax array."""
        return self.source.facts.kinds.get(self.name, "")


class Source(ABC):
    """Something that a tree was saved to, and is open."""

    path: str
    facts: Facts
    """What ptree knows of the tree."""

    @abstractmethod
    def names(self) -> Collection[str]:
        """The leaves that it has, by path."""

    @abstractmethod
    def stored(self, name: str) -> Unread:
        """One of them."""

    def read(
        self,
        leaves: Iterable[Unread],
        shardings: Mapping[str, Any] | None = None,
        damaged: list[str] | None = None,
        as_saved: bool = True,
        compare: Compare = "whole leaves",
    ) -> dict[str, Any]:
        """Name -> leaf, as it was saved, and where its sharding says.

        Without `as_saved` arrays are JAX's where they were PyTorch's, and NumPy's where JAX would cut 64 bits.

        What is compared with its checksum: of leaves that are spread over devices only parts are read, if not for that.

        Raises:
            FileError: leaves that are damaged; it lists all of them. With a list as `damaged` they are added to that.
        """
        leaves = list(leaves)
        kinds = {leaf.name: kind_of(leaf, as_saved) for leaf in leaves}
        found, wrong = self._read(leaves, kinds, shardings or {}, compare)
        if damaged is not None:
            damaged += wrong
        elif wrong:
            raise self.damage(wrong)
        return found

    @abstractmethod
    def _read(
        self, leaves: Sequence[Unread], kinds: Mapping[str, str], shardings: Mapping[str, Any], compare: Compare
    ) -> tuple[dict[str, Any], list[str]]:
        """Name -> leaf of its kind, and the names of those that are not what their checksums say."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more can be read."""

    def tree_of(self, apart: Collection[str] = ()) -> Tree:
        """All that is in it, unread, ties included; but these aliases are leaves of their own."""
        ties = {alias: tie for alias, tie in self.facts.ties.items() if alias not in apart}
        try:
            leaves = {name: self.stored(name) for name in self.names() if name not in ties}
            return put_together(leaves, replace(self.facts, ties=ties))
        except (PtreeError, ValueError, TypeError) as error:
            raise FileError(f"cannot load {self.path!r}: {error}", is_damage=True) from error

    def damage(self, names: list[str]) -> FileError:
        """The error for leaves that are not what their checksums say."""
        told = f"damaged, their bytes are not what their checksums say: {listed(names)}"
        error = FileError(f"cannot load {self.path!r}: {told}", is_damage=True)
        error.damaged = names
        return error
