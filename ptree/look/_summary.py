"""Summary of a tree's parameters: rows with path, shape, dtype, count and bytes, and their totals, printed as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .._edit import Selector, choose, entries, leaves
from .._errors import StructureError
from .._paths import STACKED
from .._tree import Leaf, PyTree, Tie, shape_only, signature
from .._words import in_bytes, listed, short_dtype, table
from ._notebook import Column, html_table


@dataclass(frozen=True)
class Row:
    """A row of a summary: one leaf or alias. Only an alias has `tied_to`; its count and bytes are those of its source."""

    path: str
    shape: tuple[int, ...] | None
    dtype: str
    count: int
    bytes: int
    trainable: bool | None
    tied_to: str | None

    __module__ = "ptree.look"


@dataclass(frozen=True, repr=False)
class Summary:
    """Rows for all parameters of a tree, and totals that count a tied leaf once. It prints as a table."""

    rows: tuple[Row, ...]

    __module__ = "ptree.look"

    @cached_property
    def count(self) -> int:
        """The number of parameters: all elements of all leaves."""
        return sum(row.count for row in self._leaves)

    @cached_property
    def bytes(self) -> int:
        """The size of all parameters in bytes."""
        return sum(row.bytes for row in self._leaves)

    @cached_property
    def trainable(self) -> int | None:
        """The number of trainable parameters; None if neither the tree nor a mask says which are."""
        if all(row.trainable is None for row in self._leaves):
            return None
        return sum(row.count for row in self._leaves if row.trainable)

    @cached_property
    def _leaves(self) -> list[Row]:
        return [row for row in self.rows if row.tied_to is None]

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        columns = [Column("path"), Column("shape"), Column("dtype"), Column("count", True), Column("bytes", True)]
        return html_table(columns, [self._cells(row)[: len(columns)] for row in self.rows], footer=[self._total()])

    def table(self, width: int = 80, most: int | None = None) -> str:
        """The table as text, at most `width` characters wide; of more than `most` rows the middle is left out."""
        header = ["path", "shape", "dtype", "count", "bytes"]
        if self.trainable is not None:  # for arrays the column would be empty
            header.append("train")
        rows = _without_middle([self._cells(row) for row in self.rows], most)
        first, *others = table([header, *rows], right={3, 4}, width=width)
        total = self._total()
        longest = max(map(len, (first, *others, total)))
        rule = "-" * min(longest, width)
        return "\n".join([first, rule, *others, rule, total])

    def _cells(self, row: Row) -> list[str]:
        shape = _shape_of(row)
        # An alias takes no memory of its own, so it shows its source in the place of sizes.
        if row.tied_to is not None:
            return [row.path, shape, f"= {row.tied_to}"]
        cells = [row.path, shape, row.dtype, f"{row.count:,}", in_bytes(row.bytes)]
        if self.trainable is not None:
            cells.append(_YES_OR_NO[row.trainable])
        return cells

    def _total(self) -> str:
        text = f"total: {self.count:,} in {len(self._leaves)} leaves, {in_bytes(self.bytes)}"
        tied = len(self.rows) - len(self._leaves)
        if tied:
            text += f"; {tied} tied"
        if self.trainable is not None:
            text += f"; {self.trainable:,} trainable"
        return text


def summary(tree: PyTree, selector: Selector | None = None, *, trainable: PyTree = None) -> Summary:
    """Every parameter with its shape, dtype, count and bytes; print it for a table.

    >>> from ptree import Param, Tree
    >>> print(summary(Tree({"kernel": Param((4, 8)), "bias": Param((8,))})))
    path    shape   dtype  count  bytes  train
    ------------------------------------------
    kernel  (4, 8)  f32       32  128 B  yes
    bias    (8,)    f32        8   32 B  yes
    ------------------------------------------
    total: 40 in 2 leaves, 160 B; 40 trainable
    >>> summary({"w": [0.5, 1]}).count
    2

    It works on specs, abstract trees, parameters, gradients and any other pytree, and reads no values. Aliases have
    rows but do not count in the totals. A leaf that is not an array counts as one number without bytes.

    Args:
        tree: any pytree.
        selector: which leaves; all by default.
        trainable: a mask, such as `ptree.mask(spec, lambda path, leaf: leaf.trainable)`, for a tree whose
            leaves do not say themselves whether they are trained.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: the mask does not have the tree's paths.
    """
    mask = {} if trainable is None else _mask(tree, trainable)
    return Summary(tuple(_rows(tree, dict(choose(tree, selector)), mask)))


def _mask(tree: PyTree, trainable: PyTree) -> dict[str, bool]:
    mask = dict(leaves(trainable))
    different = mask.keys() ^ dict(leaves(tree)).keys()
    if different:
        raise StructureError(f"the mask `trainable` does not have the tree's paths: {listed(sorted(different))}")
    return mask


def _rows(tree: PyTree, chosen: Mapping[str, Leaf], mask: Mapping[str, bool]) -> Iterator[Row]:
    """The rows of a summary: the chosen leaves and their aliases, in the order of the tree."""
    for path, value in entries(tree).items():
        source = value.source if isinstance(value, Tie) else path
        if source not in chosen:
            continue
        leaf = chosen[source]
        trained = getattr(leaf, "trainable", mask.get(source))  # a Param says it itself
        if isinstance(value, Tie):
            # A transform, such as a transpose, may change the shape; it is traced on shapes alone.
            yield _row(path, value.read(shape_only(leaf)), trained, value.shown())
        else:
            yield _row(path, leaf, trained, None)


def _row(path: str, leaf: Leaf, trained: bool | None, tied_to: str | None) -> Row:
    about = signature(leaf)
    if not isinstance(about, tuple):  # a Python number or another object: only its type is known
        return Row(path, None, about.__name__, 1, 0, trained, tied_to)
    shape, dtype = about
    count = math.prod(shape)
    return Row(path, shape, short_dtype(dtype), count, count * dtype.itemsize, trained, tied_to)


# --------------------------------------------------------------------------- the table

_YES_OR_NO = {True: "yes", False: "no", None: ""}


def _shape_of(row: Row) -> str:
    """The shape cell of a row: `12 x (4, 8)` for a leaf in a stack of 12 layers, whose shape is (4, 8) in one layer."""
    if row.shape is None:
        return ""
    stacks = row.path.split("/").count(STACKED)
    sizes = "".join(f"{size} x " for size in row.shape[:stacks])
    return sizes + str(row.shape[stacks:])


def _without_middle(rows: Sequence[Sequence[str]], most: int | None) -> list[Sequence[str]]:
    if most is None or len(rows) <= most:
        return list(rows)
    head, tail = (most + 1) // 2, most // 2
    left_out = [f"... {len(rows) - most} more", ""]
    return [*rows[:head], left_out, *rows[len(rows) - tail :]]
