"""Row of a summary: one leaf of a tree or file, or an alias of one."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):  # a frozen dataclass takes three times as long to make, and there may be 100,000
    """One leaf, or an alias of one: then `tied_to` says of which, and its own count and bytes are 0.

    >>> from ptree import summary
    >>> summary({"w": 0.5}).rows[0].path
    'w'
    """

    path: str
    """The path of the leaf, or of the alias."""
    shape: tuple[int, ...] | None
    """Its shape; None for what is no array."""
    dtype: str
    """Its dtype in short, such as f32; for what is no array the name of its type."""
    count: int  # pyright: ignore[reportIncompatibleMethodOverride] a tuple's own `count` is not needed
    """How many numbers it has: 1 for a Python number, 0 for an alias and for what is no number."""
    bytes: int
    """The bytes of its numbers: 0 for an alias and for a Python number."""
    trainable: bool | None
    """Whether it is trained; None where nothing says it."""
    tied_to: str | None
    """The source of an alias with its transforms, as people write it."""
    source: str | None = None
    """The path of the source of an alias."""
    problem: str = ""
    """Why the leaf has no numbers that can be read; "" where it has."""
    output: tuple[int, ...] | None = None
    """With `of=`: the shape of what the leaf first gives together with the inputs."""
    flops: int | None = None
    """With `flops=`: the floating-point operations in which it is a factor."""


Row.__module__ = "ptree.look"  # the body of a NamedTuple takes no other attributes
