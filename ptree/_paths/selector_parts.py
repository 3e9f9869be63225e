"""Parse a selector, which says which leaves are meant: a pattern, a regex, a predicate, or a sequence of these with `!`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias, cast

from .._errors import PatternError
from .._words import describe, quoted
from .patterns import Pattern, compile

if TYPE_CHECKING:
    import numpy as np


class Dataclass(Protocol):
    """An object of a class that `dataclasses.dataclass` made, such as a module of Equinox."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Predicate: TypeAlias = Callable[[str, Any], bool]
Mask: TypeAlias = "Mapping[Any, Any] | Sequence[Mask | bool | np.bool_] | Dataclass"
"""A tree of bools, with the containers of the tree: dicts, lists, tuples, modules of Equinox."""
Selector: TypeAlias = "str | re.Pattern[str] | Predicate | Sequence[Selector] | Mask"


class MaskPredicate:
    """A mask as a predicate: whether the leaf at a path is marked."""

    def __init__(self, marked: Mapping[str, bool]):
        self._marked = marked

    def __call__(self, path: str, leaf: Any) -> bool:
        return self._marked[path]


class Part(NamedTuple):
    """One part of a selector: what it matches, and whether that is removed."""

    test: Pattern | re.Pattern[str] | Predicate
    removes: bool


def parse_selector(selector: Selector) -> list[Part]:
    """Parse a selector into its parts, in order.

    Raises:
        PatternError: it is no selector, or a pattern in it is malformed.
    """
    if isinstance(selector, str):
        if selector.startswith("!"):
            return [Part(compile(selector[1:]), removes=True)]
        return [Part(compile(selector), removes=False)]
    if isinstance(selector, re.Pattern) and isinstance(selector.pattern, bytes):
        raise PatternError(f"the regex {quoted(selector.pattern)} is of bytes, and paths are strings")
    if isinstance(selector, re.Pattern) or callable(selector):
        return [Part(selector, removes=False)]
    if isinstance(selector, Sequence) and len(selector) and not isinstance(selector, bytes):
        return [part for inner in selector for part in parse_selector(cast(Selector, inner))]
    if isinstance(selector, Mapping):
        raise PatternError(
            f"not a selector: a {type(selector).__name__}; the tree comes first, and then the selector"
            " (a mask has True or False at each leaf)"
        )
    given = describe(selector) if hasattr(selector, "shape") else quoted(selector)
    raise PatternError(
        f"not a selector: {given}; a selector is a pattern such as"
        " '**/bias', a compiled regex, a function (path, leaf) -> bool, or a sequence of these"
    )


def is_everything(part: Part) -> bool:
    """Whether a part of a selector is `**`, which means everything, also where there is nothing."""
    return isinstance(part.test, Pattern) and {*part.test.text.split("/")} == {"**"}
