"""Stacks whose leaves have more axes in front than when the stack was made, as after `jax.vmap`: no number can name a layer there."""

from __future__ import annotations

import jax

from .._errors import StructureError
from .._paths import STACKED
from .._words import quoted
from .layout import BareTree, child_of
from .leaf import PyTree


def counted_axes(node: PyTree, outer: int = 0) -> tuple[int, int]:
    """The axes of all leaves below the `:` of a stack in sum, without those of `outer` stacks around it, and how many leaves."""
    leaves = jax.tree.leaves(node)
    axes = sum(len(getattr(leaf, "shape", ())) for leaf in leaves)
    return axes - outer * len(leaves), len(leaves)


def check_no_extra_axes(stack: PyTree, outer: int, path: str) -> None:
    """Raise where each leaf of a stack has more axes than when the stack was made: a number would index another axis.

    Args:
        stack: the node whose one name is `:`.
        outer: how many stacks there are around it on the path.
        path: of the stack, for the message.

    Raises:
        StructureError: as the first axis may count members of an ensemble, examples, or outputs.
    """
    if not isinstance(stack, BareTree) or stack._node[1].stack_axes is None:
        return
    axes, leaves = stack._node[1].stack_axes
    axes_now, leaves_now = counted_axes(stack._node[0], outer)
    more = axes_now - axes
    if leaves_now != leaves or not leaves or more < leaves or more % leaves:
        return
    count = more // leaves
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


def made_stack_axes(children: dict[str, PyTree], outer: int) -> tuple[int, int] | None:
    """What the layout of a new node keeps of a stack's axes; None for a node that is no stack."""
    if len(children) != 1 or STACKED not in children:
        return None
    return counted_axes(children[STACKED], outer)
