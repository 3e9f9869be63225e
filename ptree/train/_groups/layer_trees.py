"""Rename ":" to "*" in the paths of a stack, and back, for an optimiser that is mapped over its layers."""

from __future__ import annotations

from collections.abc import Callable

import jax

from ..._edit import unflatten
from ..._errors import StructureError
from ..._paths import STACKED
from ..._tree import BareTree, PyTree, Tie, entries, leaves, stacked_axes
from ..._words import listed

EACH = "*"
"""The name of a stack's layer in the paths of a tree of one layer: `blocks/*/kernel`, which the same patterns match."""


IN_NO_STACK = "others"
"""What leaves in no stack are together under; the path of a stack ends in `:`."""


def paths_by_stack(tree: PyTree) -> dict[str, tuple[str, ...]]:
    """The paths of the leaves of each stack, `blocks/:`, the innermost one of a leaf; those in no stack under `others`."""
    found: dict[str, list[str]] = {}
    for path, _ in leaves(tree):
        found.setdefault(stack_of(path) or IN_NO_STACK, []).append(path)
    return {stack: tuple(paths) for stack, paths in found.items()}


def stack_of(path: str) -> str:
    """The path of the innermost stack on a path; "" where there is none."""
    segments = path.split("/")
    if STACKED not in segments:
        return ""
    end = len(segments) - segments[::-1].index(STACKED)
    return "/".join(segments[:end])


def layer_tree(tree: PyTree) -> PyTree:
    """The same leaves in a Tree whose stacks are named as single layers."""
    return _renamed(tree, STACKED, EACH)


def stacked_tree(tree: PyTree) -> PyTree:
    """The inverse of `layer_tree`."""
    return _renamed(tree, EACH, STACKED)


def _renamed(tree: PyTree, before: str, after: str) -> PyTree:
    found: dict[str, PyTree] = {}
    for path, value in entries(tree).items():
        if type(value) is Tie:
            value = Tie(_with_segment(value.source, before, after), value.via)
        found[_with_segment(path, before, after)] = value
    return unflatten(found)


def _with_segment(path: str, before: str, after: str) -> str:
    return "/".join(after if segment == before else segment for segment in path.split("/"))


def in_state(function: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """The state of an optimiser with this function of each Tree in it: moments, accumulators, masks."""
    return jax.tree.map(lambda node: _of_tree(function, node), state, is_leaf=_is_tree)


def _of_tree(function: Callable[[PyTree], PyTree], node: PyTree) -> PyTree:
    return function(node) if _is_tree(node) else node


def _is_tree(node: PyTree) -> bool:
    return isinstance(node, BareTree)


def layer_counts_of(tree: PyTree, stack: str) -> tuple[int, ...]:
    """The number of layers of a stack whose leaves are all of the tree, and of the stacks around it, from outside in.

    Raises:
        StructureError: leaves with other numbers of layers.
    """
    axes = stacked_axes(stack)
    counts = {path: leaf.shape[:axes] for path, leaf in leaves(tree)}
    if len({*counts.values()}) > 1:
        shown = [f"{path} {'x'.join(map(str, count))}" for path, count in counts.items()]
        raise StructureError(f"the leaves of {stack!r} have different numbers of layers: {listed(shown)}")
    return next(iter(counts.values()))
