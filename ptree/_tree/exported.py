"""How `jax.export` writes the static parts of Trees and ties into an exported function, and reads them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

from jax import export

from .layout import Layout, StackAxes, make
from .leaf import PyTree
from .tie import Tie
from .transform import transform_named
from .tree import Tree

_Written: TypeAlias = tuple[str, list[str]]
"""A tie: the path of its source, and the names of its transforms."""


def _written(tie: Tie) -> _Written:
    return tie.source, [transform.name for transform in tie.via]


def _read(written: _Written) -> Tie:
    source, names = written
    return Tie(source, tuple(map(transform_named, names)))


def _layout_bytes(layout: Layout) -> bytes:
    ties = [(alias, _written(tie)) for alias, tie in layout.ties]
    facts = {"keys": layout.keys, "order": layout.order, "ties": ties}
    if layout.stack_axes is not None:
        facts["stack_axes"] = layout.stack_axes
    return json.dumps(facts).encode()


def _layout_of(data: bytes) -> Layout:
    facts = json.loads(data)
    ties = [(alias, _read(written)) for alias, written in facts["ties"]]
    stack_axes = StackAxes(*facts["stack_axes"]) if "stack_axes" in facts else None
    return Layout.of(facts["order"], facts["keys"], ties, stack_axes)


def _tie_bytes(tie: Tie) -> bytes:
    return json.dumps(_written(tie)).encode()


def _tie_of(data: bytes) -> Tie:
    return _read(json.loads(data))


def _tree_of(aux_data: Layout, children: Sequence[PyTree]) -> PyTree:
    return make(aux_data, children)  # JAX gives a list, and a Tree keeps a tuple


def _tie_itself(aux_data: Tie, children: Sequence[PyTree]) -> Tie:
    return aux_data


export.register_pytree_node_serialization(
    Tree,
    serialized_name="ptree.Tree",
    serialize_auxdata=_layout_bytes,
    deserialize_auxdata=_layout_of,
    from_children=_tree_of,
)
export.register_pytree_node_serialization(
    Tie,
    serialized_name="ptree.Tie",
    serialize_auxdata=_tie_bytes,
    deserialize_auxdata=_tie_of,
    from_children=_tie_itself,
)
