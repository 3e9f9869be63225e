"""Summary of the parameters of a tree, spec or file: rows as data, totals by dtype, node and selector, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from .._sources.source import source_of
from .._terminal import terminal_width
from .row import Row
from .rows import rows_of
from .text import summary_text

if TYPE_CHECKING:
    from ..._paths import Selector
    from ..._tree import PyTree
    from .._flops.flops import Flops
    from .._sources.selection import Names


@dataclass(frozen=True)
class Total:
    """How many numbers, bytes and leaves there are together; a tied leaf counts once."""

    count: int
    bytes: int
    leaves: int

    __module__ = "ptree.look"


@dataclass(frozen=True, repr=False)
class Summary:
    """Rows for all parameters of a tree or file, and totals that count a tied leaf once. It prints as a table."""

    rows: tuple[Row, ...]
    title: str = ""
    """The name of a file and what is known of it, above the table."""
    depth: int | None = None
    fold: bool = True
    memory: dict[str, int] | None = None
    """With `memory=True`: what `compile().memory_analysis()` says of the compiled model, in bytes."""
    flops: Flops | None = None
    """With `flops=True`: the operations of one call of the model."""

    __module__ = "ptree.look"

    @cached_property
    def leaves(self) -> tuple[Row, ...]:
        """The rows without those of aliases."""
        return tuple([row for row in self.rows if row.tied_to is None])

    @cached_property
    def count(self) -> int:
        """The number of parameters: all elements of all leaves."""
        return sum([row.count for row in self.rows])

    @cached_property
    def bytes(self) -> int:
        """The size of all parameters in bytes."""
        return sum([row.bytes for row in self.rows])

    @cached_property
    def trainable(self) -> int | None:
        """The number of trainable parameters; None if neither the tree nor a mask says which are."""
        if all(row.trainable is None for row in self.leaves):
            return None
        return sum(row.count for row in self.leaves if row.trainable)

    @cached_property
    def by_dtype(self) -> dict[str, Total]:
        """The total of each dtype, the largest count first."""
        totals = _totals((row.dtype, row) for row in self.leaves)
        return dict(sorted(totals.items(), key=lambda item: -item[1].count))

    def by_node(self, depth: int = 1) -> dict[str, Total]:
        """The total below each node at a depth: of the top-level nodes for 1.

        >>> from ptree import summary
        >>> {path: total.count for path, total in summary({"a": {"w": [1, 2]}, "b": 3}).by_node().items()}
        {'a': 2, 'b': 1}
        """
        return _totals(("/".join(row.path.split("/")[:depth]), row) for row in self.leaves)

    def total(self, selector: Selector) -> Total:
        """The total of the leaves that a selector means; a predicate gets the path and the row.

        Raises:
            PatternError: the selector is malformed, or a part of it matches nothing.
        """
        chosen = {*self._names.selected(selector)}
        return _total(row for row in self.leaves if row.path in chosen)

    @cached_property
    def _names(self) -> Names[Row]:
        sources = {row.path: row.source for row in self.rows if row.source is not None}
        from .._sources.selection import Names  # with all of the language of patterns

        return Names({row.path: row for row in self.leaves}, sources)

    # ----------------------------------------------------------------------- how it is shown

    def __repr__(self) -> str:
        return self.text(terminal_width())

    def text(self, width: int = 80, *, color: bool = False) -> str:
        """The table as text, at most `width` columns wide, from 40 on; `color` dims what matters less with ANSI codes."""
        return summary_text(self, width, color=color)

    def _repr_html_(self) -> str:
        from .html import summary_html  # for notebooks alone

        return summary_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The rows and totals as plain dicts and lists, which `json.dumps` takes."""
        shown = {
            "title": self.title,
            "count": self.count,
            "bytes": self.bytes,
            "leaves": len(self.leaves),
            "trainable": self.trainable,
            "by_dtype": {dtype: vars(total) for dtype, total in self.by_dtype.items()},
            "rows": [_row_as_dict(row) for row in self.rows],
        }
        if self.flops is not None:
            shown["flops"] = self.flops.to_dict()
        if self.memory is not None:
            shown["memory_analysis"] = dict(self.memory)
        return shown

    def to_csv(self) -> str:
        """The rows as CSV with a header; a shape is written as `4x8`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Row._fields)
        for row in self.rows:
            writer.writerow(row._replace(shape=_crosses(row.shape), output=_crosses(row.output)))
        return text.getvalue()


def summary(
    thing: PyTree,
    selector: Selector | None = None,
    *,
    depth: int | None = None,
    fold: bool = True,
    of: tuple[Any, ...] | None = None,
    flops: bool = False,
    memory: bool = False,
    trainable: PyTree = None,
) -> Summary:
    """Every parameter with its shape, dtype, count and bytes; print it for a table.

    >>> from ptree import Param, Tree
    >>> block = {"attn": {"q": Param((4, 4)), "k": Param((4, 4))}, "norm": {"scale": Param((4,))}}
    >>> print(summary(Tree({"embed": Param((9, 4)), "blocks": [block] * 3, "head": Param((4,), "bfloat16")})))
    embed         [9, 4]              36  24.3%
    blocks/{0..2}/ x3                108  73.0%
      attn/       q [4, 4], k [4, 4]  96  64.9%
      norm/scale  [4]                 12   8.1%
    head          [4] bf16             4   2.7%
    ---------------------------------------------------------------------
    148 parameters, 584 B, 11 leaves; f32 97.3%, bf16 2.7%; all trainable
    >>> summary({"w": [0.5, 1]}).count
    2

    Blocks that are equal but for their names are one row with a count; one that differs has its own. It works on specs,
    abstract trees, parameters, gradients and any other pytree, and on files, of which it reads the header alone and does
    not import JAX. No values are read. A tied leaf counts once, and a Python number as one number without bytes.

    Args:
        thing: any pytree; the path of a safetensors file, its shards or index, an npz file or a folder of checkpoints; or
            a file that `ptree.open` opened.
        selector: which leaves; all by default.
        depth: how many names deep the table goes; nodes below are one row each.
        fold: False for one row for each leaf.
        of: a model and its inputs, arrays or `jax.ShapeDtypeStruct`: `of=(model, x)` adds the shape of what each leaf
            first gives in `model(thing, x)`. Nothing is computed.
        flops: with `of`, counts the floating-point operations of one call.
        memory: with `of`, compiles the call and adds what `compile().memory_analysis()` says.
        trainable: a mask, such as `ptree.mask(spec, lambda path, leaf: leaf.trainable)`, for a tree whose
            leaves do not say themselves whether they are trained.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: `thing` is no tree, such as a layer; or the mask does not have the tree's paths.
        FileError, OSError: there is no file that ptree reads.
    """
    if of is None and (flops or memory):
        raise TypeError("flops=True and memory=True need the model and its inputs: of=(model, x)")
    if depth is not None and depth < 1:
        raise ValueError(f"depth={depth}: a table is at least 1 name deep")
    with collection_paused():
        found = _without_outputs(thing, selector, trainable, depth, fold)
    if of is None:
        return found
    if found.title:
        raise StructureError("of= takes the parameters as a tree, not as a file: ptree.load it first")
    from .outputs import with_outputs  # with JAX, which a look at a file does without

    return with_outputs(found, thing, of, flops=flops, memory=memory)


def _without_outputs(
    thing: PyTree, selector: Selector | None, trainable: PyTree, depth: int | None, fold: bool
) -> Summary:
    source = source_of(thing)
    try:
        rows = rows_of(source, selector, trainable)
        about = f": {source.about}" if source.about else ""
        title = f"{source.title}{about}" if source.is_file else ""
        return Summary(tuple(rows), title, depth, fold)
    finally:
        if source is not thing:
            source.close()


# ------------------------------------------------------------------------------------ totals


def _total(rows: Iterable[Row]) -> Total:
    count, nbytes, leaves = 0, 0, 0
    for row in rows:
        count += row.count
        nbytes += row.bytes
        leaves += 1
    return Total(count, nbytes, leaves)


def _totals(named: Iterable[tuple[str, Row]]) -> dict[str, Total]:
    """The total of the rows of each name."""
    rows: dict[str, list[Row]] = {}
    for name, row in named:
        rows.setdefault(name, []).append(row)
    return {name: _total(those) for name, those in rows.items()}


def _row_as_dict(row: Row) -> dict[str, Any]:
    shown = row._asdict()
    shown["shape"] = None if row.shape is None else [*row.shape]
    shown["output"] = None if row.output is None else [*row.output]
    return shown


def _crosses(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "x".join(map(str, shape))
