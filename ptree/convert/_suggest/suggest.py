"""convert.suggest: propose a table from the names and shapes of both sides, and mark what they do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..._tree import PyTree
from .._named_arrays import NamedArray, NamedArrays, named_arrays, opened_arrays
from .._operations.constants import Fill
from .contradictions import with_doubts_of_contradictions
from .directions import directed
from .families import tied_arrays, whole_arrays
from .known_layouts import layouts_of_module, with_layouts
from .matching import Matched, matched
from .mirrors import is_of_ptree, with_doubts_of_mirrors
from .name_words import last_segment
from .quantities import with_doubts_of_quantities
from .rows import RowWriter, wrong_rows
from .suggestion import SuggestedRow, Suggestion
from .weight_norms import stored_parts

PATTERN = "its pattern would take other names too"
_COUNTER = "num_batches_tracked"


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
    that of one leaf, unless the names contradict each other: encoder and decoder, `layer1` and `layer2`, a moment of an
    optimiser and a weight. The direction of a square kernel is certain if the class of a module says it, of PyTorch, Keras, Flax
    nnx or Equinox, or if kernels of other shapes prove it. All else is marked, with the rows that may be right: the order of
    gates, of fused projections, and of flattened features of convolutions too.

    Flax, Haiku and Equinox hold the kernel of a transposed convolution mirrored. It is marked where a name says `transpose` or
    `deconv`; a kernel of Flax in a dict or a state, `layers_0/kernel`, does not say it, and is taken for that of a convolution:
    `layer_table` knows its layer.

    A weight norm of PyTorch, `weight_g` and `weight_v`, is a row of both. No numbers are read: `ptree.convert.verify` is the proof.

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
    layouts, layouts_of_target = layouts_of_module(source), layouts_of_module(like)
    parts = stored_parts(with_layouts(whole_arrays(arrays), layouts), whole_arrays(targets))
    tied = with_layouts(tied_arrays(arrays), layouts), tied_arrays(targets)
    found = _with_tied_names(matched(parts.whole, whole_arrays(targets)), *tied)
    order = {path: at for at, path in enumerate(arrays.by_path)}
    pairs = directed(found.pairs, layouts_of_target, order)
    pairs = [with_doubts_of_mirrors(pair, layouts_of_target, is_of_ptree=is_of_ptree(like)) for pair in pairs]
    pairs = [with_doubts_of_quantities(pair, parts.magnitudes) for pair in pairs]
    pairs = [with_doubts_of_contradictions(pair) for pair in pairs]
    writer = RowWriter(arrays, targets.is_dotted, parts.magnitudes)
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
    counters, unused = _counters([*found.unused, *parts.helpers])
    return Suggestion(
        (*(row for _, row in sorted(places, key=_place)), *counters),
        tuple(array.name for array in unused),
        tuple(array.name for array in found.missing),
    )


def _with_tied_names(found: Matched, tied_sources: Sequence[NamedArray], tied_targets: Sequence[NamedArray]) -> Matched:
    """Match what is left over also with the other names of tied arrays, which need no row of their own where nothing fits."""
    if not tied_sources and not tied_targets:
        return found
    more = matched([*found.unused, *tied_sources], [*found.missing, *tied_targets])
    filled = {member.path for pair in more.pairs for family in pair.targets for member in family.members.values()}
    taken = {member.path for pair in more.pairs for member in pair.source.members.values()}
    return Matched(
        (*found.pairs, *more.pairs),
        found.undecided,
        tuple(array for array in found.unused if array.path not in taken),
        tuple(array for array in found.missing if array.path not in filled),
    )


def _counters(unused: Sequence[NamedArray]) -> tuple[list[SuggestedRow], list[NamedArray]]:
    """A row for PyTorch's counters of batches, as `layer_table` has it, and what else is not used."""
    others = [array for array in unused if last_segment(array.path) != _COUNTER]
    if len(others) == len(unused):
        return [], others
    dotted = any("." in array.name for array in unused)
    pattern = f"**.{_COUNTER}" if dotted else f"**/{_COUNTER}"
    return [SuggestedRow((pattern,), (), Fill(0, "int64"), "name")], others


def _place(placed: tuple[int, SuggestedRow]) -> int:
    return placed[0]
