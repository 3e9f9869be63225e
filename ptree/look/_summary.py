"""summary, every parameter of a tree with its shape and size: rows as data first, a table second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .._edit import Selector, choose, entries, leaves
from .._errors import StructureError
from .._paths import STACKED
from .._tree import Tie, shape_only, signature
from .._words import listed, short_dtype, shortened


@dataclass(frozen=True)
class Row:
    """One path of a tree. `tied_to` is set for an alias, whose count and bytes are its source's."""

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
    """The rows of a tree, and totals that count a tied leaf once; printed, a table."""

    rows: tuple[Row, ...]

    __module__ = "ptree.look"

    @cached_property
    def count(self) -> int:
        """How many numbers the tree holds."""
        return sum(row.count for row in self.rows if row.tied_to is None)

    @cached_property
    def bytes(self) -> int:
        """How many bytes they take."""
        return sum(row.bytes for row in self.rows if row.tied_to is None)

    @cached_property
    def trainable(self) -> int | None:
        """How many of the numbers are trained; None where the tree does not say."""
        own = [row for row in self.rows if row.tied_to is None]
        if all(row.trainable is None for row in own):
            return None
        return sum(row.count for row in own if row.trainable)

    def __repr__(self) -> str:
        return self.table()

    def table(self, width: int = 80, most: int | None = None) -> str:
        """The table as text, at most `width` columns wide; of more than `most` rows the middle is left out."""
        known = self.trainable is not None
        cells: list[tuple[str, ...]] = [("path", "shape", "dtype", "count", "bytes", *(("train",) if known else ()))]
        for row in self.rows:
            layers = row.path.split("/").count(STACKED)
            shape = (
                "" if row.shape is None else "".join(f"{n} x " for n in row.shape[:layers]) + str(row.shape[layers:])
            )
            if row.tied_to is not None:
                cells.append((row.path, shape, f"= {row.tied_to}"))
                continue
            train = () if not known else ({True: "yes", False: "no", None: ""}[row.trainable],)
            cells.append((row.path, shape, row.dtype, f"{row.count:,}", _bytes(row.bytes), *train))
        return _drawn(cells, self._total(), width, most)

    def _total(self) -> str:
        leaves = [row for row in self.rows if row.tied_to is None]
        tied = len(self.rows) - len(leaves)
        text = f"total: {self.count:,} in {len(leaves)} leaves, {_bytes(self.bytes)}"
        text += f"; {tied} tied" if tied else ""
        return text + (f"; {self.trainable:,} trainable" if self.trainable is not None else "")


def summary(tree: Any, selector: Selector | None = None, *, trainable: Any = None) -> Summary:
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

    Works on specs, abstract trees, parameters, gradients and any pytree, and reads no values. Aliases have
    rows and are not counted. A leaf that is no array counts as one number without bytes.

    Args:
        tree: any pytree.
        selector: which leaves; all by default.
        trainable: a mask, such as `ptree.mask(spec, lambda path, leaf: leaf.trainable)`, for a tree that does not say it itself.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: the mask does not have the tree's paths.
    """
    kept = dict(choose(tree, selector))
    mask = {} if trainable is None else dict(leaves(trainable))
    if mask and mask.keys() != dict(leaves(tree)).keys():
        wrong = sorted(mask.keys() ^ dict(leaves(tree)).keys())
        raise StructureError(f"the mask `trainable` does not have the tree's paths: {listed(wrong)}")
    rows: list[Row] = []
    for path, value in entries(tree).items():
        tie = value if type(value) is Tie else None
        source = path if tie is None else tie.source
        if source in kept:
            leaf = kept[source] if tie is None else tie.read(shape_only(kept[source]))
            trained = getattr(kept[source], "trainable", mask.get(source))
            rows.append(_row(path, leaf, trained, None if tie is None else tie.shown()))
    return Summary(tuple(rows))


def _row(path: str, leaf: Any, trained: bool | None, tied_to: str | None) -> Row:
    about = signature(leaf)
    if not isinstance(about, tuple):
        return Row(path, None, about.__name__, 1, 0, trained, tied_to)
    shape, dtype = about
    count = math.prod(shape)
    return Row(path, shape, short_dtype(dtype), count, count * dtype.itemsize, trained, tied_to)


def _bytes(n: int) -> str:
    """Bytes for people, in powers of 1024: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024  # pyright: ignore[reportAssignmentType]
    raise AssertionError


def _drawn(cells: list[tuple[str, ...]], total: str, width: int, most: int | None) -> str:
    if most is not None and len(cells) - 1 > most:
        head, tail = (most + 1) // 2, most // 2
        cells = [*cells[: head + 1], (f"... {len(cells) - 1 - most} more", ""), *cells[len(cells) - tail :]]
    full = [row for row in cells if len(row) == len(cells[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    widths[:2] = (max(len(row[at]) for row in cells) for at in (0, 1))
    fit = width - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(fit, 12))
    lines: list[str] = []
    for row in cells:
        texts = [shortened(row[0], widths[0]).ljust(widths[0])]
        for at, text in enumerate(row[1:], 1):
            texts.append(text.rjust(widths[at]) if at in (3, 4) else text.ljust(widths[at]))
        lines.append(shortened("  ".join(texts).rstrip(), width))
    rule = "-" * min(max(map(len, (total, *lines))), width)
    return "\n".join([lines[0], rule, *lines[1:], rule, total])
