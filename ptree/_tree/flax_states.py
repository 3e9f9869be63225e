"""How `flax.serialization` writes a Tree as a state dict and restores it; registered once Flax is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import jax
from jax.tree_util import keystr

from .._errors import StructureError
from .._imports import when_imported
from .._words import describe, lines, listed, quoted
from .entries import aliases
from .layout import MISSING, BareTree
from .leaf import PyTree, same, signature
from .tree import Tree

State: TypeAlias = dict[str, Any]
"""Nested dicts with the state of a Tree: each leaf at its own path. An alias is not in it, as its leaf is there once."""

Converter: TypeAlias = Callable[..., Any]
"""`to_state_dict` or `from_state_dict` of Flax, for what lies in a Tree and is no Tree."""


def _children(tree: Tree) -> tuple[dict[str, PyTree], Any]:
    """All in a Tree that is no Tree itself, leaves and other containers, by path; and the treedef that builds it again."""
    found, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_no_tree)
    return {keystr(path, simple=True, separator="/"): child for path, child in found}, structure


def _is_no_tree(node: PyTree) -> bool:
    return not isinstance(node, BareTree)


def state_of(tree: Tree, to_state_dict: Converter) -> State:
    """The state dict of a Tree."""
    children, _ = _children(tree)
    state: State = {}
    for path, child in children.items():
        *above, name = path.split("/")
        node = state
        for segment in above:
            node = node.setdefault(segment, {})
        node[name] = to_state_dict(child)
    return state


def restored(tree: Tree, state: State, from_state_dict: Converter) -> Tree:
    """The Tree with the values of a state dict, which may also hold aliases with their source's values.

    Raises:
        StructureError: what is missing, unexpected, of another shape or dtype; or two values for one tied leaf.
    """
    children, structure = _children(tree)
    given = {path: _value_at(state, path) for path in children}
    problems = [*_misfits(children, given), *_unexpected(tree, state, children), *_unlike_source(tree, state, given)]
    if problems:
        shown = "\n  ".join(lines(problems).splitlines())
        raise StructureError(f"cannot restore the Tree from the state dict:\n  {shown}")
    values = [from_state_dict(child, given[path], name=path) for path, child in children.items()]
    return structure.unflatten(values)


def _value_at(state: State, path: str) -> PyTree:
    node: PyTree = state
    for segment in path.split("/"):
        node = node.get(segment, MISSING) if isinstance(node, Mapping) else MISSING
    return node


def _misfits(children: Mapping[str, PyTree], given: Mapping[str, PyTree]) -> Iterator[str]:
    missing = [path for path, value in given.items() if value is MISSING]
    if missing:
        yield f"missing in the state dict: {listed(missing)}"
    for path, child in children.items():
        value = given[path]
        if value is MISSING or _fits(child, value):
            continue
        yield f"{quoted(path)}: expected {describe(child)}, got {describe(value)}"


def _fits(child: PyTree, value: PyTree) -> bool:
    """Whether a value has the shape and dtype of a leaf; of other containers Flax says it."""
    shape = getattr(child, "shape", None)
    if shape is None or (shape == () and isinstance(value, int | float | complex)):
        return True
    return signature(child) == signature(value)


def _unexpected(tree: Tree, state: State, children: Mapping[str, PyTree]) -> Iterator[str]:
    """What is in the state dict and in no place of the Tree."""
    expected = {*children, *aliases(tree)}
    unexpected: list[str] = []
    waiting = [*state.items()]
    while waiting:
        path, value = waiting.pop()
        if path in expected:
            continue
        is_empty = isinstance(value, Mapping) and not value
        if isinstance(value, Mapping) and any(name.startswith(f"{path}/") for name in expected):
            waiting += [(f"{path}/{name}", below) for name, below in value.items()]
        elif not is_empty:
            unexpected.append(path)
    if unexpected:
        yield f"unexpected in the state dict: {listed(sorted(unexpected))}"


def _unlike_source(tree: Tree, state: State, given: Mapping[str, PyTree]) -> Iterator[str]:
    """The aliases that the state dict gives another value than their source."""
    for alias, tie in aliases(tree).items():
        value, source = _value_at(state, alias), given.get(tie.source, MISSING)
        if value is not MISSING and source is not MISSING and not same(value, tie.read(source)):
            yield f"{quoted(alias)} is tied to {quoted(tie.shown())}, and their values differ"


def _register(serialization: ModuleType) -> None:
    def to_state(tree: Tree) -> State:
        return state_of(tree, serialization.to_state_dict)

    def from_state(tree: Tree, state: State) -> Tree:
        return restored(tree, state, serialization.from_state_dict)

    serialization.register_serialization_state(Tree, to_state, from_state, override=True)


when_imported("flax.serialization", _register)
