"""Select leaves of a source, a tree or a file, by pattern, regex, predicate, mask or a sequence of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Generic, TypeVar

from ..._errors import PatternError
from ..._paths import (
    STACKED,
    MaskPredicate,
    Part,
    PathIndex,
    Pattern,
    Predicate,
    Selector,
    compile,
    is_everything,
    parse_selector,
    unused_alternatives,
    unused_in_words,
)
from ..._paths.dotted_names import with_slashes
from ..._words import lines, name_of, quoted, suggestion
from .source import Source

L = TypeVar("L")


def selected(source: Source, selector: Selector | None = None) -> list[str]:
    """The paths of the leaves that a selector means, in the order of the source; of all leaves where it is None.

    A leaf has all its names: a pattern or regex that matches an alias selects the leaf. A predicate gets the leaf of a
    tree, and of a file its `LeafInfo`. Nothing is read from the file.

    Raises:
        PatternError: a part of the selector is malformed or matches nothing; the nearest name is suggested.
    """
    if selector is None:
        return list(source.leaves)
    if source.is_file:
        sources = {path: alias.source for path, alias in source.aliases.items()}
        return Names(source.leaves, sources).selected(selector)
    # with JAX, which a look at a file does without
    from ..._edit import choose
    from .tree_source import TreeSource

    if not isinstance(source, TreeSource):
        raise TypeError(f"a source of a tree is a TreeSource, got {type(source).__name__}")
    return [path for path, _ in choose(source.tree, selector)]


class Names(Generic[L]):
    """The names of leaves, which the parts of a selector are matched with; for what is no tree.

    Args:
        leaves: the leaves by path.
        sources: alias -> path.
        are_parts: whether they are some of a tree, and its stacks are apart; a mask has the others too.
    """

    def __init__(self, leaves: Mapping[str, L], sources: Mapping[str, str], *, are_parts: bool = False):
        self.leaves = leaves
        self.are_parts = are_parts
        self.leaf_of = {path: path for path in leaves}
        """Each name, own path or alias -> the leaf's own path."""
        for alias, source in sources.items():
            if source in leaves:
                self.leaf_of[alias] = source
        self.index = PathIndex([*self.leaf_of])

    def selected(self, selector: Selector) -> list[str]:
        """The paths of the leaves that a selector means, in order.

        Raises:
            PatternError: a part of the selector is malformed or matches nothing.
        """
        parts = parse_selector(self._with_masks(selector))
        chosen: set[str] = {*self.leaves} if parts[0].removes else set()
        problems: list[str] = []
        for given in parts:
            part, names = self._read(given)
            problems += self._problems(part, names)
            found = {self.leaf_of[name] for name in names}
            chosen = chosen - found if part.removes else chosen | found
        if not chosen and not problems and self.leaves and not all(map(is_everything, parts)):
            problems.append("the selector removes all that it selects")
        if problems:
            raise PatternError(lines(problems))
        return [path for path in self.leaves if path in chosen]

    def _with_masks(self, selector: Selector) -> Selector:
        """The selector, with a predicate in the place of each mask."""
        if _has_no_mask(selector):
            return selector
        from ..._edit.masks import MaskReader  # with JAX, which a look at a file does without

        return MaskReader(lambda: self.leaf_of, are_parts=self.are_parts).read(selector)

    def _read(self, part: Part) -> tuple[Part, list[str]]:
        """A part of a selector, and the names that it matches: as paths or, where none fits, as names with dots, as PyTorch has them."""
        names = self._matched(part)
        if names or not isinstance(part.test, Pattern):
            return part, names
        try:
            as_path = part._replace(test=compile(with_slashes(part.test.text)))
        except PatternError:  # a dot in brackets
            return part, names
        names = self._matched(as_path)
        return (as_path, names) if names else (part, names)

    def _matched(self, part: Part) -> list[str]:
        """The names that a part of a selector matches."""
        test = part.test
        if isinstance(test, Pattern):
            return [name for name in self.leaf_of if test.matches(name)]
        if isinstance(test, re.Pattern):
            return [name for name in self.leaf_of if test.fullmatch(name)]
        return [path for path, leaf in self.leaves.items() if _is_true(test, path, leaf)]

    def _problems(self, part: Part, names: Sequence[str]) -> list[str]:
        """Why a part, or an alternative in its braces, matches nothing."""
        test = part.test
        if not names:
            return [] if is_everything(part) else [self._why_unmatched(test)]
        if not isinstance(test, Pattern):
            return []
        unused = unused_alternatives(test, names)
        if not unused:
            return []
        segments = {segment for name in self.leaf_of for segment in name.split("/")}
        hint = suggestion(unused[0], segments)
        return [f"{unused_in_words(test, unused)} nothing.{hint}"]

    def _suggested_path(self, text: str) -> str | None:
        """What a misspelt name with dots likely meant, as a path."""
        path = with_slashes(text)
        try:
            return None if path == text else self.index.suggest(path)
        except PatternError:
            return None

    def _why_unmatched(self, test: Pattern | re.Pattern[str] | Predicate) -> str:
        if isinstance(test, re.Pattern):
            return f"the regex {quoted(test.pattern)} matches the whole of no path"
        if isinstance(test, MaskPredicate):
            return (
                "the mask is True at no leaf" if not self.are_parts else "the mask is True at no leaf that was observed"
            )
        if not isinstance(test, Pattern):
            return f"the predicate {name_of(test)!r} is true of no leaf"
        near = self.index.suggest(test.text) or self._suggested_path(test.text)
        hint = "" if near is None else f" Did you mean {quoted(near)}?"
        if near is None and re.search(r"\d", test.text) and _has_stacks(self.leaf_of):
            hint = " In a stack '*' is all layers; a single layer cannot be selected in a file"
        return f"the pattern {quoted(test.text)} matches nothing in {len(self.leaves)} leaves.{hint}"


def _has_no_mask(selector: object) -> bool:
    """Whether a selector is of patterns, regexes and functions alone."""
    if isinstance(selector, str | re.Pattern | FunctionType):
        return True
    return isinstance(selector, list | tuple) and all(map(_has_no_mask, selector))


def _is_true(predicate: Predicate, path: str, leaf: object) -> bool:
    try:
        return bool(predicate(path, leaf))
    except Exception as error:
        error.add_note(f"in the predicate {name_of(predicate)!r} at {quoted(path)}")
        raise


def _has_stacks(names: Iterable[str]) -> bool:
    return any(STACKED in name.split("/") for name in names)
