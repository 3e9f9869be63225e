"""Find which leaves of an optimiser's state are slots of which parameter, for any optimiser of optax.

The optimiser's own `init` says it: it is run, on shapes alone, on a tree in which each leaf is wrapped in a node that holds
the leaf's path. What `init` makes of a leaf comes out inside of that node, whatever the names of parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, tree_flatten_with_path

from ..._edit import differences, structure_error
from ..._errors import StructureError
from ..._shardings import as_traced
from ..._tree import Leaf, PyTree, leaves, map_leaves
from ..._words import listed

Init: TypeAlias = Callable[[PyTree], PyTree]
"""The `init` of an optimiser: parameters -> state."""
Keys: TypeAlias = tuple[Any, ...]
"""The key entries by which JAX names a place in a tree."""


class Node(NamedTuple):
    """A named tuple (or other container) in a state: those of two states correspond if their roles are equal."""

    labels: tuple[str, ...]
    """The labels of `optax.partition`, and the stacks of `by_layer`, on the way."""
    role: tuple[str, ...]
    """The names on the way, without labels and wrappers that add nothing, and the name of its type."""


class StateLeaf(NamedTuple):
    """What a leaf of a state is: a slot of a parameter, or, without one, a count or another number for all of them."""

    node: Node
    field: str
    """The name in the node: "mu", "count", "hyperparams/learning_rate"."""
    param: str | None
    """The path of the parameter."""
    below: str = ""
    """The name inside the slot, where an optimiser keeps several arrays for a parameter under one name."""


class StateLayout(NamedTuple):
    """The leaves of a state in JAX's order: what each is, its shape and dtype; and the structure that holds them."""

    about: list[StateLeaf]
    shapes: list[jax.ShapeDtypeStruct]
    structure: Any


class MarkedLeaf:
    """A node that says of which parameter the leaves in it are slots."""

    __slots__ = ("path", "value")

    def __init__(self, path: str, value: PyTree):
        self.path, self.value = path, value


def _slot_children(slot: MarkedLeaf) -> tuple[tuple[tuple[Any, Any], ...], str]:
    # a function that labels leaves by the last name of their path still finds it there
    return ((DictKey(slot.path.rpartition("/")[2]), slot.value),), slot.path


def _slot_of(path: str, children: Iterable[PyTree]) -> MarkedLeaf:
    return MarkedLeaf(path, *children)


jax.tree_util.register_pytree_with_keys(MarkedLeaf, _slot_children, _slot_of)


def marked(params: PyTree) -> PyTree:
    """The parameters, each in a node that holds its path."""
    return map_leaves(params, MarkedLeaf)


def abstract(params: PyTree) -> PyTree:
    """The shapes and dtypes of parameters."""
    return map_leaves(params, lambda path, leaf: _abstract(leaf))


def layout_of_state(init: Init, params: PyTree, state: PyTree) -> StateLayout:
    """The layout of a state that `init` has made of these parameters.

    Raises:
        StructureError: it has not, or it is unclear whose slots a leaf holds.
    """
    shapes = abstract(params)
    structure = jax.tree.structure(state)
    try:
        layout = marked_layout(jax.eval_shape(init, marked(shapes)), shapes)
    except Exception:  # a mask by a user's function may refuse a tree that has one name more on each path
        layout = None
    if layout is None or layout.structure != structure:
        expected = jax.eval_shape(init, shapes)
        _check_structure(state, expected, structure)
        layout = layout_by_path(expected, shapes)
    _check_shapes(state, layout)
    return layout


def _abstract(leaf: Leaf) -> Leaf:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):  # an array of any library, or a Param
        return as_traced(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return leaf


# ---------------------------------------------------------------------------------------- marks


def marked_layout(state: PyTree, params: PyTree) -> StateLayout:
    """The layout of a state that `init` has made of marked parameters."""
    own_keys = _keys_of_params(params)
    nodes = _Nodes(state)
    about: list[StateLeaf] = []
    shapes: list[jax.ShapeDtypeStruct] = []
    for keys, value in tree_flatten_with_path(state, is_leaf=_is_slot)[0]:
        if not _is_slot(value):
            about.append(nodes.count(keys))
            shapes.append(value)
            continue
        inside = value.value
        node, field = nodes.of_slot(keys, own_keys[value.path])
        if hasattr(inside, "shape"):  # most slots
            about.append(StateLeaf(node, field, value.path))
            shapes.append(inside)
            continue
        for below, leaf in tree_flatten_with_path(inside)[0]:
            about.append(StateLeaf(node, field, value.path, _text(below)))
            shapes.append(leaf)
    plain = jax.tree.map(lambda part: part.value if _is_slot(part) else part, state, is_leaf=_is_slot)
    return StateLayout(about, shapes, jax.tree.structure(plain))


def _is_slot(part: PyTree) -> bool:
    return type(part) is MarkedLeaf


def _keys_of_params(params: PyTree) -> dict[str, Keys]:
    """The path of each parameter -> the keys by which JAX names it."""
    paths = map_leaves(params, lambda path, leaf: path)
    return {path: keys for keys, path in tree_flatten_with_path(paths)[0]}


class _Nodes:
    """Names the nodes of a state; there are few, so each is looked at once."""

    def __init__(self, state: PyTree):
        self._state = state
        self._slots: dict[Keys, tuple[Node, str]] = {}
        self._roles: dict[Keys, Node] = {}

    def of_slot(self, keys: Keys, own: Keys) -> tuple[Node, str]:
        """The node that holds the slot of a parameter with its own keys, and the field in which it is."""
        if keys[len(keys) - len(own) :] == own:
            keys = keys[: len(keys) - len(own)]
        else:  # parameters in another form, such as a flat dict
            keys = keys[: _last_field(keys) + 1]
        if keys not in self._slots:
            self._slots[keys] = self._split(keys)
        return self._slots[keys]

    def count(self, keys: Keys) -> StateLeaf:
        """What a leaf is that belongs to no parameter."""
        node, field = self._split(keys)
        return StateLeaf(node, field, None)

    def _split(self, keys: Keys) -> tuple[Node, str]:
        at = _last_field(keys)
        if at < 0:
            at = max(len(keys) - 1, 0)
        return self._node(keys[:at]), _text(keys[at:])

    def _node(self, keys: Keys) -> Node:
        if keys not in self._roles:
            self._roles[keys] = _named_node(keys, type(_part(self._state, keys)).__name__)
        return self._roles[keys]


_WRAPPED = ("inner_state", "inner_opt_state")
"""The fields in which optax keeps the state of an optimiser that it masks, accumulates for, or gives hyperparameters."""

_LABELLED = ("inner_states", "stacks")
"""The fields in which `optax.partition` and `by_layer` keep the states of an optimiser by label or stack."""


def _named_node(keys: Keys, type_name: str) -> Node:
    labels: list[str] = []
    role: list[str] = []
    is_label = False
    for key in keys:
        field = key.name if isinstance(key, GetAttrKey) else ""
        if is_label:
            labels.append(_text((key,)))
        elif field not in _WRAPPED and field not in _LABELLED:
            role.append(_text((key,)))
        is_label = field in _LABELLED
    return Node(tuple(labels), (*role, type_name))


def _last_field(keys: Keys) -> int:
    """Where the last field of a named tuple or dataclass is among keys; -1 where none is."""
    for at in range(len(keys) - 1, -1, -1):
        if isinstance(keys[at], GetAttrKey):
            return at
    return -1


def _part(tree: PyTree, keys: Keys) -> PyTree:
    for key in keys:
        if isinstance(key, GetAttrKey):
            tree = getattr(tree, key.name)
        elif isinstance(key, SequenceKey):
            tree = tree[key.idx]
        elif isinstance(key, DictKey):
            tree = tree[key.key]
        else:  # a container with keys of its own: its children are in this order
            tree = jax.tree.leaves(tree, is_leaf=lambda part, whole=tree: part is not whole)[key.key]
    return tree


def _text(keys: Keys) -> str:
    """Keys as a path."""
    names: list[str] = []
    for key in keys:
        if isinstance(key, GetAttrKey):
            names.append(key.name)
        elif isinstance(key, SequenceKey):
            names.append(str(key.idx))
        else:
            names.append(str(key.key))
    return "/".join(names)


# -------------------------------------------------------------------------------- without marks


def layout_by_path(state: PyTree, params: PyTree) -> StateLayout:
    """The layout of a state by the keys in it: what lies under the keys of a parameter is a slot of it.

    For an optimiser whose `init` does other things with marked parameters, such as one that labels leaves by whole paths.
    """
    by_keys = {keys: path for path, keys in _keys_of_params(params).items()}
    lengths = {len(keys) for keys in by_keys}
    nodes = _Nodes(state)
    about: list[StateLeaf] = []
    shapes: list[jax.ShapeDtypeStruct] = []
    unclear: list[str] = []
    for keys, leaf in tree_flatten_with_path(state)[0]:
        ends = _ends_of_params(keys, by_keys, lengths)
        shapes.append(leaf)
        if not ends:
            about.append(nodes.count(keys))
            continue
        if len(ends) > 1:
            unclear.append(_text(keys))
        end, own = ends[0]
        node, field = nodes.of_slot(keys[:end], own)
        about.append(StateLeaf(node, field, by_keys[own], _text(keys[end:])))
    if unclear:
        raise StructureError(
            f"it is unclear whose slots {listed(unclear)} are in the state: the names of the parameters occur more than"
            " once. Give the optimiser its mask or labels as a tree, or by patterns, not as a function of whole paths"
        )
    return StateLayout(about, shapes, jax.tree.structure(state))


def _ends_of_params(keys: Keys, by_keys: Mapping[Keys, str], lengths: set[int]) -> list[tuple[int, Keys]]:
    """Where among the keys of a leaf of the state those of a parameter end, and these keys."""
    found: list[tuple[int, Keys]] = []
    for length in lengths:
        for start in range(len(keys) - length + 1):
            part = keys[start : start + length]
            if part in by_keys:
                found.append((start + length, part))
    return found


# -------------------------------------------------------------------------------------- checks


def _check_structure(state: PyTree, expected: PyTree, structure: Any) -> None:
    """Raise unless the state has the structure that the optimiser makes."""
    if jax.tree.structure(expected) == structure:
        return
    there, here = dict(leaves(expected)), dict(leaves(state))
    found = differences(there, here)
    what = "the state is of another optimiser, or of other parameters"
    if not found:
        raise StructureError(f"{what}: its leaves have the same paths, its containers differ")
    sides = (" by the optimiser", " in the state")
    raise structure_error(what, found, there, here, sides=sides, fix=_FIX)


_FIX = "Give the optimiser that made the state as before=, and the parameters that it was made for as `old`."


def _check_shapes(state: PyTree, layout: StateLayout) -> None:
    """Raise unless the leaves of the state have the shapes that the optimiser gives them."""
    got = jax.tree.leaves(state)
    if all(np.shape(value) == shape.shape for value, shape in zip(got, layout.shapes, strict=True)):
        return
    there = dict(leaves(jax.tree.unflatten(layout.structure, layout.shapes)))
    here = dict(leaves(state))
    found = differences(there, here)
    sides = (" by the optimiser", " in the state")
    what = "the state is not of these old parameters"
    raise structure_error(what, found._replace(mistyped=()), there, here, sides=sides, fix=_FIX)
