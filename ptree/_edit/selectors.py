"""Selectors: match their parts with a tree, choose leaves or single layers, add and remove overlapping layers; problems of
what matches nothing.

A selector is a pattern, a compiled regex (that matches the whole path), a predicate `(path, leaf) -> bool`, a mask (a tree
of bools with the same paths), or a sequence of these, in which `"!pattern"` removes what it matches. The parts of a
sequence are applied in order; one that begins by removing begins with everything. A part that matches nothing is an error.

A leaf has all its names: a pattern or regex that matches its own path or an alias selects it. A predicate is asked
once for each leaf, with its own path. In a stack `*` and `:` are all layers, and a number names a single layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import NamedTuple, TypeAlias, TypeVar

from .._errors import PatternError
from .._paths import (
    MaskPredicate,
    Part,
    Pattern,
    Predicate,
    Selector,
    compile,
    is_everything,
    parse_selector,
    unused_alternatives,
)
from .._tree import (
    BareTree,
    Index,
    Leaf,
    Leaves,
    PyTree,
    distinct,
    leaves,
    stacked_axes,
)
from .._words import describe, lines, listed, name_of, quoted
from .hints import Hints
from .leaf_names import LeafName, names_of_leaves
from .masks import with_masks
from .pattern_walk import PatternWalk, Selected

K = TypeVar("K")

# ------------------------------------------------------------------------------- what is selected


class Match(NamedTuple):
    """What a selector means in a tree, and why each part that matches nothing does not."""

    selected: list[Selected]
    problems: list[str]


def choose(tree: PyTree, selector: Selector | None) -> Leaves:
    """The leaves that a selector means, under their own paths, in listing order; all of them where it is None.

    Raises:
        PatternError: a part of the selector is malformed or matches nothing, or it names single layers of a stack.
    """
    if selector is None:
        return leaves(tree)
    simple = simply_chosen(tree, selector)
    if simple is not None:
        return simple
    selected = _checked(match(tree, selector))
    problem = single_layers(selected)
    if problem:
        raise PatternError(problem)
    return [(one.own_path, one.leaf) for one in selected]


def choose_values(tree: PyTree, selector: Selector | None) -> Leaves:
    """The leaves, and the single layers of stacks, that a selector means: path and value.

    Raises:
        PatternError: a part of the selector is malformed or matches nothing.
    """
    if selector is None:
        return leaves(tree)
    simple = simply_chosen(tree, selector)
    if simple is not None:
        return simple
    return [(one.path, one.value()) for one in choose_layers(tree, selector)]


def choose_layers(tree: PyTree, selector: Selector) -> list[Selected]:
    """The leaves, and the single layers of stacks, that a selector means, and by which name.

    Raises:
        PatternError: a part of the selector is malformed or matches nothing.
    """
    return _checked(match(tree, selector))


def simply_chosen(tree: PyTree, selector: Selector) -> Leaves | None:
    """What one pattern matches, if by own paths alone and all of it; None where it takes a closer look.

    Spares an object for each leaf: a third of the time at 1,000 leaves.
    """
    walk = simply_matched(tree, selector)
    return None if walk is None or walk.others else walk.whole


def simply_matched(tree: PyTree, selector: Selector) -> PatternWalk | None:
    """What one pattern matches, if each of its alternatives matches leaves by own paths; None where it takes a closer look."""
    if not isinstance(selector, str) or selector.startswith("!"):
        return None
    pattern = compile(selector)
    walk = _walked(pattern, tree)
    if not walk.whole:
        return None
    if "{" in selector and unused_alternatives(pattern, [path for path, _ in walk.whole]):
        return None
    return walk


def _checked(found: Match) -> list[Selected]:
    if found.problems:
        raise PatternError(lines(found.problems))
    return found.selected


def single_layers(selected: Iterable[Selected]) -> str:
    """The problem with single layers of a stack where one thing is wanted for each leaf; empty where there are none."""
    single = [one for one in selected if one.layers]
    if not single:
        return ""
    is_one = len(single) == 1
    layers = quoted(single[0].path) if is_one else listed(one.path for one in single)
    stacked = [*dict.fromkeys(one.own_path for one in single)]
    whole = quoted(stacked[0]) if len(stacked) == 1 else listed(stacked)
    return (
        f"{layers} {'is a single layer' if is_one else 'are single layers'} of {whole}, one leaf for all layers:"
        " write '*' in the place of the number, or ptree.stacks.unstack first"
    )


def match(tree: PyTree, selector: Selector, hints: Hints | None = None) -> Match:
    """Match a selector with a tree, and list what it selects in listing order; `hints` are shared by several selectors of one tree."""
    parts = parse_selector(with_masks(tree, selector))
    hints = Hints(tree) if hints is None else hints
    begins_with_all = parts[0].removes
    if len(parts) == 1 and not begins_with_all:
        found = _matched(parts[0], tree)
        return Match(_in_listing_order(tree, found), _problems(parts[0], found, hints))
    chosen = _Chosen(tree)
    if begins_with_all:
        chosen.add([Selected(path, leaf) for path, leaf in chosen.everything])
    problems: list[str] = []
    for part in parts:
        found = _matched(part, tree)
        problems += _problems(part, found, hints)
        if part.removes:
            chosen.remove(found)
        else:
            chosen.add(found)
    selected = chosen.selected()
    if problems and begins_with_all and len(parts) > 1:
        problems.append("(the selector begins with '!', so it begins with all leaves)")
    if not selected and not problems and chosen.everything:
        problems.append("the selector removes all that it selects")
    return Match(selected, problems)


class _Chosen:
    """The selection of the parts of a selector so far: whole leaves, or some of their layers."""

    def __init__(self, tree: PyTree):
        self.everything = leaves(tree)
        self._whole: dict[str, Selected] = {}
        self._layers: dict[str, dict[LayerNumbers, Selected]] = {}

    def add(self, found: Iterable[Selected]) -> None:
        for one in found:
            # a leaf that matches by its own path too is named by that
            if one.layers:
                _add_under(self._layers.setdefault(one.own_path, {}), layer_numbers(one), one)
            else:
                _add_under(self._whole, one.own_path, one)

    def remove(self, found: Iterable[Selected]) -> None:
        for one in found:
            path = one.own_path
            if not one.layers:
                self._whole.pop(path, None)
                self._layers.pop(path, None)
                continue
            if path in self._whole:
                self._layers[path] = _single_layers_of(self._whole.pop(path))
            self._layers[path] = _without(self._layers.get(path, {}), one.layers)

    def selected(self) -> list[Selected]:
        found: list[Selected] = []
        for path, _ in self.everything:
            if path in self._whole:
                found.append(self._whole[path])
            elif path in self._layers:
                found += _apart(self._layers[path])
        return found


LayerNumbers: TypeAlias = tuple[int, ...]
"""An index into stacks that sorts, and has a hash in every version of Python: -1 for all layers."""


def _add_under(chosen: dict[K, Selected], key: K, one: Selected) -> None:
    """Add what is selected; a leaf that matches by its own path too is named by that, and not by an alias."""
    if key not in chosen or not one.alias:
        chosen[key] = one


def layer_numbers(one: Selected) -> LayerNumbers:
    return tuple(-1 if isinstance(number, slice) else number for number in one.layers)


def _apart(layers: Mapping[LayerNumbers, Selected]) -> list[Selected]:
    """The layers in order; where some are in others, as with groups/1 and groups/:/blocks/1, one by one."""
    ordered = [layer for _, layer in sorted(layers.items())]
    if not any(_overlap(one.layers, other.layers) for one, other in combinations(ordered, 2)):
        return ordered
    single: dict[LayerNumbers, Selected] = {}
    for one in ordered:
        for index, layer in _single_layers_of(one).items():
            single.setdefault(index, layer)
    return [layer for _, layer in sorted(single.items())]


def _single_layers_of(one: Selected) -> dict[LayerNumbers, Selected]:
    """All single layers that are selected, each named to the last stack on its path."""
    axes = max(stacked_axes(one.own_path), stacked_axes(one.alias))
    shape = getattr(one.leaf, "shape", ())
    if len(shape) < axes:
        raise PatternError(
            f"{quoted(one.own_path)} holds one value for all layers of a stack, of which none can be selected or"
            " removed alone: ptree.stacks.unstack it first"
        )
    found: dict[LayerNumbers, Selected] = {}
    for index in product(*map(range, shape[:axes])):
        if _overlap(one.layers, index):
            found[index] = one._replace(layers=index)
    return found


def _without(layers: Mapping[LayerNumbers, Selected], gone: Index) -> dict[LayerNumbers, Selected]:
    """The layers that are left without some; one that loses a part of itself is taken apart first."""
    left: dict[LayerNumbers, Selected] = {}
    for index, one in layers.items():
        if not _overlap(one.layers, gone):
            left[index] = one
        elif not _covers(gone, one.layers):
            single = _single_layers_of(one)
            left.update({at: layer for at, layer in single.items() if not _overlap(at, gone)})
    return left


def _covers(outer: Index, inner: Index) -> bool:
    """Whether an index into stacks covers another one: all its layers."""
    if len(outer) > len(inner):
        return False
    return all(isinstance(a, slice) or a == b for a, b in zip(outer, inner, strict=False))


def _overlap(a: Index, b: Index) -> bool:
    """Whether two indices into the same stacks have a layer in common."""
    return all(isinstance(i, slice) or isinstance(j, slice) or i == j for i, j in zip(a, b, strict=False))


def _in_listing_order(tree: PyTree, found: list[Selected]) -> list[Selected]:
    if not any(one.alias or one.layers for one in found):
        return found  # the common case: a walk meets leaves in listing order
    chosen = _Chosen(tree)
    chosen.add(found)
    return chosen.selected()


# ------------------------------------------------------------------------------------ matching


def _matched(part: Part, tree: PyTree) -> list[Selected]:
    """What a part matches; a leaf or layer once for each of its names that match."""
    if isinstance(part.test, Pattern):
        walk = _walked(part.test, tree)
        return [*(Selected(path, leaf) for path, leaf in walk.whole), *walk.others]
    if isinstance(part.test, re.Pattern):
        return _matched_by_regex(part.test, tree)
    return [Selected(path, leaf) for path, leaf in leaves(tree) if _is_true(part.test, path, leaf)]


def _walked(pattern: Pattern, tree: PyTree) -> PatternWalk:
    walk = PatternWalk(pattern)
    walk.visit(tree, "", pattern.start, ())
    if not isinstance(tree, BareTree):
        distinct(walk.whole)
    return walk


def _matched_by_regex(regex: re.Pattern[str], tree: PyTree) -> list[Selected]:
    found: list[Selected] = []
    for name in names_of_leaves(tree):
        if regex.fullmatch(name.name):
            found.append(Selected(name.path, name.leaf, (), "" if name.tie is None else name.name))
    return found


def _is_true(predicate: Predicate, path: str, leaf: Leaf) -> bool:
    try:
        return bool(predicate(path, leaf))
    except Exception as error:
        error.add_note(f"in the predicate {name_of(predicate)!r} at {quoted(path)}, {describe(leaf)}")
        raise


ProblemsOfPart: TypeAlias = Callable[[Part, Sequence[str]], list[str]]
"""What is wrong with a part of a selector that matches these names."""


def choose_names(
    tree: PyTree, selector: Selector, names: Sequence[LeafName], problems_of: ProblemsOfPart | None = None
) -> list[str]:
    """Choose the names that a selector means: here each name counts by itself, not the leaf that it names.

    Args:
        tree: any pytree.
        selector: which names.
        names: those that there are to choose from.
        problems_of: says why a part matches none of them, where these are not all names of the tree.

    Raises:
        PatternError: a part of the selector is malformed or matches none of the names.
    """
    parts = parse_selector(with_masks(tree, selector))
    if problems_of is None:
        problems_of = partial(_problems_with_names, Hints(tree))
    chosen: dict[str, None] = dict.fromkeys(name.name for name in names) if parts[0].removes else {}
    problems: list[str] = []
    for part in parts:
        found = [name.name for name in names if _means_name(part, name)]
        as_layers = [] if found or not isinstance(part.test, Pattern) else _matched(part, tree)
        about_layers = single_layers(as_layers)  # which have no names of their own
        problems += [about_layers] if about_layers else problems_of(part, found)
        for name in found:
            if part.removes:
                chosen.pop(name, None)
            else:
                chosen[name] = None
    if not chosen and not problems and names:
        problems.append("the selector removes all that it selects")
    if problems:
        raise PatternError(lines(problems))
    return [name.name for name in names if name.name in chosen]


def _means_name(part: Part, name: LeafName) -> bool:
    if isinstance(part.test, Pattern):
        return part.test.matches(name.name)
    if isinstance(part.test, re.Pattern):
        return part.test.fullmatch(name.name) is not None
    if isinstance(part.test, MaskPredicate):  # it marks leaves, under all their names
        return part.test(name.path, name.leaf)
    return _is_true(part.test, name.name, name.seen_shape())


# ----------------------------------------------------------------- what matches nothing


def _problems(part: Part, found: Sequence[Selected], hints: Hints) -> list[str]:
    """Why a part, or an alternative in its braces, matches nothing."""
    if isinstance(part.test, Pattern) and "{" not in part.test.text and found:
        return []
    return _problems_with_names(hints, part, [one.name for one in found])


def _problems_with_names(hints: Hints, part: Part, names: Sequence[str]) -> list[str]:
    """Find why a part, or an alternative in its braces, matches nothing, given the names that it matches."""
    if not names:
        return [] if is_everything(part) else [_why_unmatched(part.test, hints)]
    return hints.unused_in_braces(part.test, names) if isinstance(part.test, Pattern) else []


def _why_unmatched(test: Pattern | re.Pattern[str] | Predicate, hints: Hints) -> str:
    if isinstance(test, re.Pattern):
        return f"the regex {quoted(test.pattern)} matches the whole of no path"
    if isinstance(test, MaskPredicate):
        return "the mask is True at no leaf"
    if not isinstance(test, Pattern):
        return f"the predicate {name_of(test)!r} is true of no leaf"
    return hints.why_unmatched(test)
