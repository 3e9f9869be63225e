"""convert.suggest: propose a table from the names and shapes of both sides, and mark what they do not tell."""

from __future__ import annotations

from dataclasses import replace

from ..._tree import PyTree
from .._named_arrays import NamedArrays, named_arrays, opened_arrays
from .directions import directed, layouts_of_module
from .families import whole_arrays
from .matching import matched
from .rows import RowWriter, wrong_rows
from .suggestion import SuggestedRow, Suggestion

PATTERN = "its pattern would take other names too"


def suggest(source: PyTree, like: PyTree) -> Suggestion:
    """Propose a table for a source, from names and shapes: print it, check it, and paste it.

    >>> import numpy as np, ptree as pt
    >>> from ptree import convert
    >>> source = {"0.weight": np.ones((8, 4), "f4"), "0.bias": np.ones(8, "f4"), "2.weight": np.ones((8, 8), "f4")}
    >>> like = {"0": {"kernel": pt.Param((4, 8)), "bias": pt.Param((8,))}, "2": {"kernel": pt.Param((8, 8))}}
    >>> print(convert.suggest(source, like))
    from ptree import convert
    <BLANKLINE>
    table = convert.Table({
        "*.weight": ("*/kernel", convert.linear),
        "0.bias": "0/bias",
    })

    Only what is certain is in `suggestion.table`: an array whose shape fits one leaf alone, or whose name is clearly most like
    that of one leaf. The direction of a square kernel is certain if the class of a PyTorch module says it, or if kernels of
    other shapes prove it. All else is marked, with the rows that may be right: the order of gates, of fused projections, and
    of flattened features of convolutions too. No numbers are read: `ptree.convert.verify` is the proof.

    Args:
        source: as in `Table.plan`; a PyTorch module says more than its state dict.
        like: the tree or spec to be filled.

    Raises:
        StructureError: a side without an array.
        FileError, OSError: the path of a file that cannot be read.
    """
    with opened_arrays(source) as arrays:
        return _suggested(source, arrays, named_arrays(like), like)


def _suggested(source: PyTree, arrays: NamedArrays, targets: NamedArrays, like: PyTree) -> Suggestion:
    sources = whole_arrays(arrays)
    found = matched(sources, whole_arrays(targets))
    order = {array.path: at for at, array in enumerate(sources)}
    pairs = directed(found.pairs, layouts_of_module(source), order)
    writer = RowWriter(arrays, targets.is_dotted)
    rows = [writer.row(pair) for pair in pairs]
    certain = [at for at, row in enumerate(rows) if not row.doubts]
    wrong = wrong_rows([pairs[at] for at in certain], [rows[at] for at in certain], arrays, like)
    for at in wrong:
        rows[certain[at]] = replace(rows[certain[at]], doubts=(PATTERN,))
    places = [
        (order[next(iter(pair.source.members.values())).path], row) for pair, row in zip(pairs, rows, strict=True)
    ]
    for group in found.undecided:
        first = next(iter(group[0].source.members.values()))
        places.append((order[first.path], writer.undecided(group)))
    return Suggestion(
        tuple(row for _, row in sorted(places, key=_place)),
        tuple(array.name for array in found.unused),
        tuple(array.name for array in found.missing),
    )


def _place(placed: tuple[int, SuggestedRow]) -> int:
    return placed[0]
