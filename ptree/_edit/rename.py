"""Rename leaves and containers of any tree by pattern or regex: the new path of each name, and the target that a whole
container moves to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from .._errors import PathError, PatternError, StructureError
from .._paths import compile, fill_in
from .._tree import (
    MISSING,
    BareTree,
    PyTree,
    Structure,
    Tie,
    assemble,
    distinct,
    entries,
    opened,
    own_items,
    structure,
    with_items,
)
from .._words import describe, lines, quoted
from .heirs import nodes_above
from .hints import Hints

T = TypeVar("T")
OldName: TypeAlias = "str | re.Pattern[str]"


def rename(tree: T, table: Mapping[OldName, str]) -> T:
    """A tree with other names: old pattern -> new path, the first that matches counts.

    >>> from ptree import Tree
    >>> rename(Tree({"encoder": {"layer_0": 1, "layer_1": 2}}), {"encoder/layer_*": "blocks/*/scale"})
    Tree(
      blocks/0/scale  1
      blocks/1/scale  2
    )

    What the wildcards on the left stand for is filled in on the right, in order. A pattern that matches a
    node renames it with all that is below. A compiled regex must match a leaf's whole path; its groups are
    filled in as in `re.sub`. In `rename` each name counts by itself: an alias can be renamed without its source. Ties follow.
    Outside of Trees every container keeps its type, a dict of names that was
    flat, or whose keys hold slashes, stays so, and what does not move is shared.

    Args:
        tree: any pytree.
        table: pattern or compiled regex -> new path; a leaf that no entry matches keeps its name.

    Raises:
        PatternError: a pattern that renames nothing, or another number of wildcards on the right.
        StructureError: two leaves that land on one path, or one above the other; it names all of
            them. Or a new name inside a container that keeps its own, as a list does.
    """
    _check_table(tree, table)
    flat = _flat_names(tree)
    names = list(entries(tree)) if flat is None else flat
    rules = {name: _first_rule(name, table) for name in names}
    _check_used(table, rules, tree)
    new = {name: name if rule is None else _renamed(name, rule, table[rule]) for name, rule in rules.items()}
    _check_clashes(new, is_flat=flat is not None)
    if flat is not None:
        values = {str(key): value for key, value in own_items(tree).items()}
        return with_items(tree, {new[name]: value for name, value in values.items()}, "cannot rename")
    before = structure(tree)
    containers = _moved_containers(before, new)
    kinds = {renamed: before.containers[path] for path, renamed in containers.items()}
    try:
        return assemble(_moved_entries(before, new, containers), kinds)
    except (PathError, StructureError) as error:
        raise type(error)(f"cannot rename: {error}") from None


def _check_table(tree: PyTree, table: Mapping[OldName, str]) -> None:
    if not isinstance(table, Mapping):
        raise PatternError(
            f"the names to change are a dict, a pattern or a compiled regex -> a path; got {describe(table)}"
        )
    for old, new in table.items():
        text = old.pattern if isinstance(old, re.Pattern) else old
        if not isinstance(text, str) or not isinstance(new, str):
            raise PatternError(
                "the names to change are a dict, a pattern or a compiled regex -> a path; got"
                f" {quoted(old)}: {describe(new)}"
            )
    if opened(tree) is None:
        raise StructureError("cannot rename: the tree is a single leaf, which has no name")


def _flat_names(tree: PyTree) -> list[str] | None:
    """The keys of a plain mapping of leaves, which stays flat whatever its names hold; None for any other tree."""
    inside = opened(tree)
    if inside is None or not inside.is_mapping or isinstance(tree, BareTree):
        return None
    if any(opened(value) is not None for value in inside.values):
        return None
    return [name for name, _ in distinct([(str(key), value) for key, value in own_items(tree).items()])]


# ------------------------------------------------------------------------------------- new names


def _first_rule(name: str, table: Mapping[OldName, str]) -> OldName | None:
    """The first pattern or regex of the table that matches a name."""
    for old in table:
        if _is_matched(old, name):
            return old
    return None


def _is_matched(old: OldName, name: str) -> bool:
    if isinstance(old, re.Pattern):
        return old.fullmatch(name) is not None
    return compile(old).matches(name)


def _renamed(path: str, old: OldName, new: str) -> str:
    """The new path of a name that a pattern or regex matches."""
    if isinstance(old, re.Pattern):
        found = old.fullmatch(path)
        assert found is not None
        return _checked_path(path, new, _expanded(path, new, found))
    pattern, segments = compile(old), path.split("/")
    length = pattern.reaches(segments)
    assert length is not None
    captures = pattern.captures(segments[:length]) or ()
    renamed = [*_filled(old, new, captures), *segments[length:]]
    return _checked_path(path, new, "/".join(renamed))


def _expanded(path: str, new: str, found: re.Match[str]) -> str:
    try:
        return found.expand(new)
    except (re.error, IndexError) as error:
        raise PatternError(f"cannot rename {quoted(path)} to {quoted(new)}: {error}") from None


def _filled(old: str, new: str, captures: Sequence[str]) -> list[str]:
    try:
        return fill_in(new, captures)
    except PatternError as error:
        raise PatternError(f"cannot rename {quoted(old)} to {quoted(new)}: {error}") from None


def _checked_path(path: str, new: str, renamed: str) -> str:
    """The new path; raises where it is not a valid one."""
    if "" in renamed.split("/"):
        why = "has an empty segment" if renamed else "is empty"
        raise PatternError(f"cannot rename {quoted(path)} to {quoted(new)}: the new path {why}")
    return renamed


def _check_used(table: Mapping[OldName, str], rules: Mapping[str, OldName | None], tree: PyTree) -> None:
    """Raise for each pattern that renames nothing, and each alternative in its braces that matches nothing."""
    used = {*rules.values()}
    hints = Hints(tree)
    problems: list[str] = []
    for old in table:
        if old in used and not (isinstance(old, str) and "{" in old):
            continue
        matched = [name for name in rules if _is_matched(old, name)]
        if old not in used:
            problems.append(_why_unused(old, matched, hints))
        else:
            problems += hints.unused_in_braces(compile(str(old)), matched)
    if problems:
        raise PatternError(lines(problems))


def _why_unused(old: OldName, matched: Sequence[str], hints: Hints) -> str:
    if isinstance(old, re.Pattern):
        return (
            f"the regex {quoted(old.pattern)} matches no whole path, or an earlier rule applies to all that it matches"
        )
    if matched:
        return f"the pattern {quoted(old)} renames nothing: earlier rules apply to all that it matches"
    return hints.why_unmatched(compile(old))


def _check_clashes(new: Mapping[str, str], is_flat: bool) -> None:
    """Raise where two leaves land on one path, or, where names are paths, one on a node above the other."""
    origins: dict[str, str] = {}
    for path, renamed in new.items():
        first = origins.setdefault(renamed, path)
        if first != path:
            raise StructureError(f"cannot rename: {quoted(first)} and {quoted(path)} both land on {quoted(renamed)}")
    if is_flat:
        return
    nodes = nodes_above(origins)
    for above, path in origins.items():
        if above in nodes:
            below = next(renamed for renamed in origins if renamed.startswith(f"{above}/"))
            raise StructureError(
                f"cannot rename: {quoted(path)} lands on {quoted(above)}, and {quoted(origins[below])} below it,"
                f" on {quoted(below)}"
            )


# ------------------------------------------------------------------------------------ new places


def _moved_containers(before: Structure, new: Mapping[str, str]) -> dict[str, str]:
    """Old path -> new path of every container that keeps its kind: a mapping whose leaves part stays only where it is."""
    whole = _whole_moves(new)
    staying = _staying_nodes(new)
    moved: dict[str, str] = {}
    for path, node in before.containers.items():
        if not path:
            _check_root(node, new)
            moved[path] = path
        elif path not in whole:  # it has no leaves
            moved[path] = path
        elif whole[path]:
            moved[path] = whole[path]
        elif not isinstance(node, Mapping):
            moved[path] = _target(path, node, new)
        elif path in staying:
            moved[path] = path
    return moved


def _whole_moves(new: Mapping[str, str]) -> dict[str, str]:
    """Old path -> new path of each node above the names; empty where its leaves go to different places."""
    moves: dict[str, str] = {}
    for old, renamed in new.items():
        while old:
            old, _, old_name = old.rpartition("/")
            renamed, _, new_name = renamed.rpartition("/")
            if old_name != new_name:
                renamed = ""
            first = moves.setdefault(old, renamed)
            if first != renamed:
                moves[old] = renamed = ""
    return moves


def _staying_nodes(new: Mapping[str, str]) -> set[str]:
    """The paths of the nodes above a name that are above its new name too."""
    staying: set[str] = set()
    for old, renamed in new.items():
        above = old.rpartition("/")[0]
        while above and above not in staying:
            if renamed.startswith(f"{above}/"):
                staying.add(above)
            above = above.rpartition("/")[0]
    return staying


def _check_root(node: PyTree, new: Mapping[str, str]) -> None:
    if new and not isinstance(node, Mapping) and not _children_land("", "", node, [*new], new):
        raise _keeps_names("", node)


def _target(path: str, node: PyTree, new: Mapping[str, str]) -> str:
    """Find the target of a container that keeps its names, though its leaves do not all move alike."""
    names = [name for name in new if name.startswith(f"{path}/")]
    for target in dict.fromkeys([path, _shared_stem(node, names, new)]):
        if target and _children_land(path, target, node, names, new):
            return target
    raise _keeps_names(path, node)


def _children_land(path: str, target: str, node: PyTree, names: Sequence[str], new: Mapping[str, str]) -> bool:
    """Whether the leaves below each child of a container land below the child of that name at the target."""
    inside = opened(node)
    assert inside is not None
    for child in inside.names:
        old, to = (f"{end}/{child}" if end else child for end in (path, target))
        for name in names:
            is_below = name == old or name.startswith(f"{old}/")
            if is_below and not (new[name] == to or new[name].startswith(f"{to}/")):
                return False
    return True


def _shared_stem(node: PyTree, names: Sequence[str], new: Mapping[str, str]) -> str:
    """The path that all leaves of a container share after renaming, up to the name of its first child."""
    inside = opened(node)
    assert inside is not None
    paths = [new[name].split("/") for name in names]
    shared: list[str] = []
    for segments in zip(*paths, strict=False):
        if len({*segments}) > 1:
            break
        shared.append(segments[0])
    first = inside.names[0]
    if first in shared:
        shared = shared[: shared.index(first)]
    return "/".join(shared)


def _keeps_names(path: str, node: PyTree) -> StructureError:
    place = f"inside {quoted(path)}" if path else "at the root"
    return StructureError(f"cannot rename {place}: a {type(node).__name__} keeps its own names")


def _moved_entries(before: Structure, new: Mapping[str, str], containers: Mapping[str, str]) -> dict[str, PyTree]:
    moved: dict[str, PyTree] = {}
    for path, value in before.entries.items():
        if value is MISSING:
            continue  # a gap that `partition` left has no name to change
        if type(value) is Tie:
            source = new.get(value.source) or containers.get(value.source)
            if source is None:
                raise StructureError(f"{quoted(path)} is tied to {quoted(value.source)}, whose leaves part")
            value = Tie(source, value.via)
        moved[new[path]] = value
    return moved
