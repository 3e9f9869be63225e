"""What a pickle may be read as: plain containers, and inert descriptions of the functions, classes and objects that it names.

Nothing here calls anything that a pickle names. A dict is a list of keys and values, as a dict of hostile keys can take for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a function or class in a pickle, which is never looked up."""

    module: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class PickledDict:
    """A dict, as the keys and values that were put into it, in turn."""

    flat: list[object] = field(default_factory=list)

    def items(self) -> Iterator[tuple[object, object]]:
        return zip(self.flat[::2], self.flat[1::2])


@dataclass(slots=True, eq=False)
class PickledObject:
    """An object of a class that is not made: its class, the arguments that it would be made with, and its state."""

    made_by: Global
    args: tuple[object, ...] = ()
    state: object = None
    items: PickledDict = field(default_factory=PickledDict)
    """What it holds as a dict, if its class is a kind of dict."""
    elements: list[object] = field(default_factory=list)
    """What it holds as a list, if its class is a kind of list."""
