"""Find the leaves of a tree or a file that hold NaN or infinite numbers: how many, and the first index."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..._errors import StructureError
from ..._words import lines, printable, quoted
from .._sources.source import UNKNOWN_DTYPE, Source
from .._sources.source_of import source_of
from .layer_moments import Layers, problem_of_numbers, start_moments
from .moments import Moments
from .stack_layers import layers_of


@dataclass(frozen=True)
class NonFiniteLeaf:
    """A leaf, or a layer of a stack, that holds numbers which are not finite.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.nonfinite({"w": np.array([1.0, np.nan]), "b": np.zeros(2)})
    >>> found.rows[0]
    NonFiniteLeaf(path='w', nonfinite=1, count=2, first=(1,))
    """

    path: str
    """The path of the leaf, or of one layer of a stack."""
    nonfinite: int
    """How many of its numbers are NaN or infinite."""
    count: int
    """How many numbers it has in all."""
    first: tuple[int, ...]
    """The index of the first one."""

    __module__ = "ptree.look"

    def __str__(self) -> str:
        where = f", first at {self.first}" if self.first else ""
        return f"{quoted(printable(self.path))}: {self.nonfinite:,} of {self.count:,} are not finite{where}"


@dataclass(frozen=True, repr=False)
class NonFinite:
    """Leaves that hold NaN or infinite numbers, in the order of the tree. It is false where there are none.

    >>> import numpy as np
    >>> from ptree import look
    >>> found = look.nonfinite({"w": np.array([1.0, np.nan]), "b": np.zeros(2)})
    >>> bool(found), len(found), found.paths
    (True, 1, ['w'])
    """

    rows: tuple[NonFiniteLeaf, ...]
    """A row for each leaf that holds such numbers."""
    unread: dict[str, str] = field(default_factory=dict)
    """Leaves whose numbers are not known -> why: those of a spec, objects, damaged ones."""

    __module__ = "ptree.look"

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> list[str]:
        """Their paths."""
        return [row.path for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python that JSON can hold."""
        rows = [{**asdict(row), "first": list(row.first)} for row in self.rows]
        return {"rows": rows, "unread": dict(self.unread)}

    def __repr__(self) -> str:
        found = [str(row) for row in self.rows] or ["all numbers are finite" if not self.unread else ""]
        unread = [f"{quoted(path)} is not read: {printable(why)}" for path, why in self.unread.items()]
        return lines([line for line in [*found, *unread] if line])


def nonfinite(tree: Any) -> NonFinite:
    """Which leaves of a tree or a file hold NaN or infinite numbers: how many, and the index of the first one.

    >>> import numpy as np
    >>> nonfinite({"enc": {"w": np.ones((2, 3))}, "dec": {"w": np.float32([[1, np.nan], [np.inf, 2]])}})
    'dec/w': 2 of 4 are not finite, first at (0, 1)
    >>> if nonfinite({"w": np.ones(3)}):
    ...     print("never")

    Integers, texts and functions are always finite. The layers of a stacked leaf are named one by one. Leaves without
    numbers, of a spec or damaged, are named too, in `unread`, and all others are read.

    Args:
        tree: a pytree, an open file, or the path of a file or of a folder of checkpoints.

    Raises:
        FileError, OSError: a file, or a leaf of it, cannot be read.
        StructureError: it is no tree, or no leaf has numbers now: tracers, donated arrays, a spec.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    with ExitStack() as opened:
        source = source_of(tree)
        if isinstance(tree, (str, os.PathLike)):
            opened.enter_context(source)
        with np.errstate(all="ignore"):
            unread = _unread(source)
            return NonFinite(tuple(_found(source, unread)), unread)


def _found(source: Source, unread: Collection[str]) -> list[NonFiniteLeaf]:
    paths = [path for path in _paths_of_numbers(source) if path not in unread]
    started: list[tuple[Layers, Callable[[], list[Moments]]]] = []
    for path in paths:
        layers = layers_of(path, source.leaves[path].shape or ())
        started.append((layers, start_moments(source, path, layers)))
    rows: list[NonFiniteLeaf] = []
    for layers, moments in started:
        for path, found in zip(layers.paths, moments()):
            if found.nonfinite:
                rows.append(NonFiniteLeaf(path, found.nonfinite, layers.size, layers.index(found.first) or ()))
    return rows


def _paths_of_numbers(source: Source) -> list[str]:
    """The leaves that may hold what is not finite."""
    leaves = source.leaves.items()
    return [path for path, leaf in leaves if not problem_of_numbers(leaf) and not _is_whole(leaf.dtype)]


def _unread(source: Source) -> dict[str, str]:
    """The leaves of which it cannot be known, and why; an error where it cannot be known of any leaf."""
    found: dict[str, str] = {}
    for path, leaf in source.leaves.items():
        if leaf.problem and (leaf.shape is not None or leaf.dtype == UNKNOWN_DTYPE):
            found[path] = leaf.problem
    if found and not _paths_of_numbers(source):
        raise StructureError(lines([f"{quoted(path)} {problem}" for path, problem in found.items()]))
    return found


def _is_whole(dtype: str) -> bool:
    """Whether every number of a dtype is finite: i32, u8, bool, int."""
    return dtype.startswith(("i", "u", "bool"))
