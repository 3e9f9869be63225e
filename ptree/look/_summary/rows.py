"""Rows of a summary: the leaves and aliases of a source, those that a selector means, with a mask of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..._errors import StructureError
from ..._words import listed
from .._sources.source import Alias, LeafInfo, Source
from .row import Row

if TYPE_CHECKING:
    from ..._paths import Selector
    from ..._tree import PyTree


def rows_of(source: Source, selector: Selector | None, trainable: PyTree) -> list[Row]:
    """The rows of the selected leaves and of their aliases, in the order of the source."""
    mask = {} if trainable is None else _mask(source, trainable)
    leaves = source.leaves
    if selector is not None:
        from .._sources.selection import selected  # with all of the language of patterns

        leaves = {path: leaves[path] for path in selected(source, selector)}
    rows: list[Row] = []
    for path in source.order:
        leaf = leaves.get(path)
        if leaf is not None:
            rows.append(_row(leaf, mask, leaf.problem if source.is_file else ""))
        elif path in source.aliases and source.aliases[path].source in leaves:
            alias = source.aliases[path]
            rows.append(_row_of_alias(alias, leaves[alias.source], mask))
    return rows


def _row(leaf: LeafInfo, mask: Mapping[str, bool], problem: str) -> Row:
    path, shape, dtype, count, nbytes, trained, *_ = leaf
    if trained is None and mask:
        trained = mask.get(path)
    return Row(path, shape, dtype, count, nbytes, trained, None, None, problem)


def _row_of_alias(alias: Alias, leaf: LeafInfo, mask: Mapping[str, bool]) -> Row:
    trained = mask.get(leaf.path) if leaf.trainable is None else leaf.trainable
    return Row(alias.path, alias.shape, leaf.dtype, 0, 0, trained, alias.shown, alias.source)


def _mask(source: Source, trainable: PyTree) -> dict[str, bool]:
    from ..._edit import leaves as leaves_of  # with JAX, which a look at a file does without

    mask = dict(leaves_of(trainable))
    different = mask.keys() ^ source.leaves.keys()
    if different:
        raise StructureError(f"the mask `trainable` does not have the tree's paths: {listed(sorted(different))}")
    return mask
