"""Lines of a summary, before they are laid out: for each block its name, contents, size and output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ..._paths import STACKED
from ..._words import columns, printable
from .fold import Block, Size
from .row import Row

INDENT = "  "


class Line(NamedTuple):
    """A line of a summary: a leaf, a node with its leaves, or the head of a node."""

    label: str
    contents: str
    size: Size | None
    """None of an alias that has no operations: it has no numbers of its own."""
    output: tuple[int, ...] | None = None
    level: int = 0


RoomFor: TypeAlias = Callable[[Size], int]
"""The columns that there are for the contents of a node of this size."""


def lines_of(blocks: Iterable[Block], dtype: str, room_for: RoomFor) -> list[Line]:
    """The lines of blocks and all below them: the leaves of a node in its own line, if there is room for them.

    A dtype is written where it is not `dtype`.
    """
    return [line for block in blocks for line in _lines(block, dtype, room_for, 0)]


def _lines(block: Block, dtype: str, room_for: RoomFor, level: int) -> Iterator[Line]:
    label = INDENT * level + _label(block)
    if block.tied_to:
        size = block.size if block.size.flops else None  # a tied name has work of its own, but no numbers
        output = block.leaf.output if block.leaf is not None else None
        yield Line(label, f"= {printable(block.tied_to)}", size, output, level)
    elif block.leaf is not None:
        yield Line(label, leaf_text(block.leaf, dtype), block.size, block.leaf.output, level)
    elif not block.children:
        leaves = "1 leaf" if block.size.leaves == 1 else f"{block.size.leaves:,} leaves"
        yield Line(label, leaves, block.size, None, level)
    else:
        inside = _leaves_in_one_line(block.children, dtype)
        if inside and columns(inside) <= room_for(block.size):
            yield Line(label, inside, block.size, _last_output(block.children), level)
            return
        yield Line(label, "", block.size, None, level)
        for child in block.children:
            yield from _lines(child, dtype, room_for, level + 1)


def _label(block: Block) -> str:
    name = block.name or "''"
    if block.leaf is None:
        name += "/"
    return f"{name} x{block.times}" if block.times > 1 else name


def _leaves_in_one_line(children: Sequence[Block], dtype: str) -> str:
    """The leaves of a node as one text: `weight [384], bias [384]`; "" of a node with other nodes in it."""
    texts: list[str] = []
    for child in children:
        if child.leaf is None or child.times > 1:
            return ""
        shown = f"= {printable(child.tied_to)}" if child.tied_to else leaf_text(child.leaf, dtype)
        texts.append(f"{child.name} {shown}")
    return ", ".join(texts)


def _last_output(children: Sequence[Block]) -> tuple[int, ...] | None:
    outputs = [child.leaf.output for child in children if child.leaf is not None]
    found = [output for output in outputs if output is not None]
    return found[-1] if found else None


def leaf_text(row: Row, dtype: str) -> str:
    """A leaf as its shape, and what is unusual about it: `[1, 512] i64`, `[3] frozen`; of a stack the shape of a layer."""
    words: list[str] = []
    if row.shape is not None:
        stacks = row.path.split("/").count(STACKED)
        words.append(str([*row.shape[stacks:]]))
    if row.dtype != dtype or row.shape is None:
        words.append(printable(row.dtype))
    if row.trainable is False:
        words.append("frozen")
    if row.problem:
        words.append("(unreadable)")
    return " ".join(words)
