"""Stacks whose leaves have more axes in front than when the stack was made, as after `jax.vmap`: no number can name a layer there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from .._errors import StructureError
from .._paths import STACKED
from .._words import quoted
from .layers import stacked_axes
from .layout import BareTree, Layout, StackAxes, child_of
from .leaf import PyTree


def counted_axes(node: PyTree, outer: int = 0) -> StackAxes:
    """The axes of the leaves below the `:` of a stack, without those of `outer` stacks around it."""
    ranks = [rank - outer for rank in _ranks(node)]
    return StackAxes(sum(ranks), len(ranks), ranks[0] if ranks else None)


def _ranks(node: PyTree) -> list[int]:
    return [len(getattr(leaf, "shape", ())) for leaf in jax.tree.leaves(node)]


def extra_axes(stack: PyTree, outer: int) -> int:
    """How many axes more each leaf of a stack has than when the stack was made; 0 where that is not the same for all.

    Args:
        stack: the node whose one name is `:`.
        outer: how many stacks there are around it on the path.
    """
    if not isinstance(stack, BareTree):
        return 0
    children, layout = stack._node
    made = layout.stack_axes
    if made is None or _first_rank(children) - outer == made.first:  # of 1,000 leaves one is looked at
        return 0
    return _extra(made, counted_axes(children, outer))


def _first_rank(children: Sequence[PyTree]) -> int:
    """The number of axes of the first leaf below these nodes; -1 if there is none."""
    for child in children:
        rank = _first_rank(child._node[0]) if isinstance(child, BareTree) else next(iter(_ranks(child)), -1)
        if rank >= 0:
            return rank
    return -1


def _extra(made: StackAxes, now: StackAxes) -> int:
    """How many axes more each leaf has than when the stack was made, by the axes of all leaves in sum; 0 where that differs."""
    more = now.total - made.total
    if now.leaves != made.leaves or not made.leaves or more < made.leaves or more % made.leaves:
        return 0
    return more // made.leaves


def check_no_extra_axes(stack: PyTree, outer: int, path: str) -> None:
    """Raise where each leaf of a stack has more axes than when the stack was made: a number would index another axis.

    Args:
        stack: the node whose one name is `:`.
        outer: how many stacks there are around it on the path.
        path: of the stack, for the message.

    Raises:
        StructureError: as the first axis may count members of an ensemble, examples, or outputs.
    """
    count = extra_axes(stack, outer)
    if count == 0:
        return
    each = "an axis" if count == 1 else f"{count} axes"
    where = f"the stack {quoted(path)}" if path else "the stack"
    layer = f"{path}/3" if path else "3"
    raise StructureError(
        f"no single layers in {where}: each leaf has {each} more than when the stack was made, as jax.vmap and jax.jacobian add"
        f" them. Put the tree under ':', ptree.Tree({{':': tree}}): then {quoted(f'0/{layer}')} is layer 3 of the first member,"
        f" and {quoted(f':/{layer}')} layer 3 of all"
    )


def check_source(owner: BareTree, source: str, outer: int) -> None:
    """Raise where a stack on the way to the source of a tie has more axes than when it was made.

    Args:
        owner: the node that declares the tie.
        source: its path from there.
        outer: how many stacks there are around the owner.
    """
    node: PyTree = owner
    segments = source.split("/")
    for at, name in enumerate(segments):
        if name == STACKED:
            check_no_extra_axes(node, outer, "/".join(segments[:at]))
            outer += 1
        node = child_of(node, name)


def check_tree_without_extra_axes(tree: PyTree) -> None:
    """Raise where a stack anywhere in a tree has more axes than when it was made: its layers would be mistaken.

    Raises:
        StructureError: as `check_no_extra_axes`.
    """
    _check_below(tree, 0, "")


def _check_below(node: PyTree, outer: int, path: str) -> None:
    if not isinstance(node, BareTree):
        return
    check_no_extra_axes(node, outer, path)
    children, layout = node._node
    for name, position in layout.listing:
        below = outer + 1 if name == STACKED else outer
        _check_below(children[position], below, f"{path}/{name}" if path else name)


def made_stack_axes(children: Mapping[str, PyTree], path: str, before: PyTree) -> StackAxes | None:
    """What the layout of a new node at a path keeps of a stack's axes; None for a node that is no stack of arrays.

    Args:
        before: the node in whose place it is made: where that has axes more than when it was made, the new one has them too.
    """
    if len(children) != 1 or STACKED not in children:
        return None
    outer = stacked_axes(path)
    shapes = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(children[STACKED])]
    if not all(len(shape) > outer for shape in shapes):  # labels, say, in whose places arrays may come
        return None
    return _without(counted_axes(children[STACKED], outer), extra_axes(before, outer))


def _without(axes: StackAxes, extra: int) -> StackAxes:
    first = None if axes.first is None else axes.first - extra
    return StackAxes(axes.total - axes.leaves * extra, axes.leaves, first)


def have_other_axes(old: PyTree, new: PyTree) -> bool:
    """Whether the leaves of one node have other numbers of axes than those of another."""
    return _ranks(old) != _ranks(new)


def with_other_leaves(layout: Layout, old: PyTree, new: PyTree, outer: int) -> Layout:
    """The layout of a stack in which a leaf or node was replaced by another, whose leaves have other axes.

    Args:
        old: what the stack had below its `:`, all of it.
        new: what it has now.
    """
    made = layout.stack_axes
    extra = 0 if made is None else _extra(made, counted_axes(old, outer))
    return Layout.of(layout.order, layout.keys, layout.ties, _without(counted_axes(new, outer), extra))
