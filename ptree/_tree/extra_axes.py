"""Stacks whose leaves have more axes in front than when the stack was made, as after `jax.vmap`: no number can name a layer there."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from .._errors import StructureError
from .._paths import STACKED
from .._words import quoted
from .layers import stacked_axes
from .layout import BareTree, Layout, child_of
from .leaf import PyTree


def counted_axes(node: PyTree, outer: int = 0) -> tuple[int, int]:
    """The axes of all leaves below the `:` of a stack in sum, without those of `outer` stacks around it, and how many leaves."""
    leaves = jax.tree.leaves(node)
    axes = sum(len(getattr(leaf, "shape", ())) for leaf in leaves)
    return axes - outer * len(leaves), len(leaves)


def extra_axes(stack: PyTree, outer: int) -> int:
    """How many axes more each leaf of a stack has than when the stack was made; 0 where that is not the same for all.

    Args:
        stack: the node whose one name is `:`.
        outer: how many stacks there are around it on the path.
    """
    if not isinstance(stack, BareTree) or stack._node[1].stack_axes is None:
        return 0
    return _extra(stack._node[1].stack_axes, counted_axes(stack._node[0], outer))


def _extra(made: tuple[int, int], now: tuple[int, int]) -> int:
    """How many axes more each leaf has than when the stack was made, by the axes of all leaves in sum; 0 where that differs."""
    axes, leaves = made
    axes_now, leaves_now = now
    more = axes_now - axes
    if leaves_now != leaves or not leaves or more < leaves or more % leaves:
        return 0
    return more // leaves


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


def made_stack_axes(children: Mapping[str, PyTree], path: str, before: PyTree) -> tuple[int, int] | None:
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
    axes, leaves = counted_axes(children[STACKED], outer)
    return axes - leaves * extra_axes(before, outer), leaves


def with_other_leaves(layout: Layout, old: PyTree, new: PyTree, outer: int) -> Layout:
    """The layout of a stack in which a leaf or node was replaced by another, whose leaves may have other axes."""
    before, after = counted_axes(old, outer), counted_axes(new, outer)
    if layout.stack_axes is None or before == after:
        return layout
    axes, leaves = after
    kept = (axes - leaves * _extra(layout.stack_axes, before), leaves)
    return Layout.of(layout.order, layout.keys, layout.ties, kept)
