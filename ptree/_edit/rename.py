"""Other names for the leaves of a tree: rename, by pattern or regex."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from operator import is_
from typing import Any, NamedTuple

from .._errors import PatternError, StructureError
from .._paths import compile, fill_in, join, split
from .._tree import Nested, Tie, Tree, build, insert, levels_below, new_key, opened, remade
from .._words import lines, quoted
from .selectors import distinct, each_entry, entries, why_dead


def rename(tree: Any, table: Mapping[str | re.Pattern[str], str]) -> Any:
    """A tree with other names: old pattern -> new path, the first that matches counts.

    >>> rename(Tree({"encoder": {"layer_0": 1, "layer_1": 2}}), {"encoder/layer_*": "blocks/*/scale"})
    Tree(
      blocks/0/scale  1
      blocks/1/scale  2
    )

    What the wildcards on the left stand for is filled in on the right, in order. A pattern that matches a
    node renames it with all that is below. A compiled regex must match a leaf's whole path; its groups are
    filled in as in `re.sub`. Ties follow. Outside of Trees every container keeps its type, a dict of names that was
    flat, or whose keys hold slashes, stays so, and what does not move is shared.

    Raises:
        PatternError: a pattern that renames nothing, or another number of wildcards on the right.
        StructureError: two leaves that land on one path, or one above the other; it names all of
            them. Or a new name inside a container that keeps its own, as a list does.
    """
    if not isinstance(table, Mapping) or not all(
        isinstance(getattr(old, "pattern", old), str) and isinstance(new, str) for old, new in table.items()
    ):
        raise PatternError("the names to change are a dict, a pattern or a compiled regex -> a path")
    if opened(tree) is None:
        raise StructureError("cannot rename: the tree is a single leaf, which has no name")
    plain = isinstance(tree, Mapping) and type(tree) is not Tree
    flat = plain and all(opened(value) is None for value in tree.values())
    old = distinct([(str(key), value) for key, value in tree.items()]) if flat else list(entries(tree).items())
    used: set[Any] = set()
    new = {path: _renamed(path, table, used) for path, _ in old}
    dead = [_why_unused(key, tree) for key in table if key not in used]
    if dead:
        raise PatternError(lines(dead))
    _refuse_clashes(new, flat)
    if type(tree) is Tree:
        return _renamed_tree(tree, new)
    if flat:
        return _remade(tree, {new[str(key)]: value for key, value in tree.items()})
    return _inside(tree, "", "", new)


def _refuse_clashes(new: Mapping[str, str], flat: bool) -> None:
    """Two leaves cannot land on one path, nor, where names are paths, one on a node above the other."""
    came: dict[str, str] = {}
    for path, renamed in new.items():
        if came.setdefault(renamed, path) != path:
            raise StructureError(
                f"cannot rename: {quoted(came[renamed])} and {quoted(path)} both land on {quoted(renamed)}"
            )
    for renamed, path in () if flat else came.items():
        segments = renamed.split("/")
        for above in ("/".join(segments[:n]) for n in range(1, len(segments))):
            if above in came:
                raise StructureError(
                    f"cannot rename: {quoted(came[above])} lands on {quoted(above)}, and {quoted(path)} below it,"
                    f" on {quoted(renamed)}"
                )


def _why_unused(key: Any, tree: Any) -> str:
    if not isinstance(key, str):
        return f"the regex {quoted(key.pattern)} matches no whole path, or an earlier rule takes all that it matches"
    if any(compile(key).matches(path) for path, _ in each_entry(tree)):
        return f"the pattern {quoted(key)} renames nothing: earlier rules take all that it matches"
    return why_dead(compile(key), tree)


def _renamed(path: str, table: Mapping[Any, str], used: set[Any]) -> str:
    segments = path.split("/")
    for key, new in table.items():
        if isinstance(key, re.Pattern):
            match = key.fullmatch(path)
            if match:
                used.add(key)
                try:
                    return _proper(path, new, match.expand(new))
                except (re.error, IndexError) as error:
                    raise PatternError(f"cannot rename {quoted(path)} to {quoted(new)}: {error}") from None
            continue
        pattern = compile(key)
        cut = pattern.reaches(segments)
        if cut is not None:
            used.add(key)
            captures = pattern.captures(segments[:cut]) or ()
            return _proper(path, new, "/".join([*_filled(key, new, captures), *segments[cut:]]))
    return path


def _filled(old: str, new: str, captures: Sequence[str]) -> list[str]:
    try:
        return fill_in(new, captures)
    except PatternError as error:
        raise PatternError(f"cannot rename {quoted(old)} to {quoted(new)}: {error}") from None


def _proper(path: str, new: str, renamed: str) -> str:
    """A new path that is one."""
    if "" in renamed.split("/"):
        why = "has an empty segment" if renamed else "is empty"
        raise PatternError(f"cannot rename {quoted(path)} to {quoted(new)}: the new path {why}")
    return renamed


# --------------------------------------------------------------------------- new places


def _renamed_tree(tree: Tree, new: Mapping[str, str]) -> Tree:
    nested = Nested()
    for path, value in entries(tree).items():
        if type(value) is Tie:
            if value.source not in new:
                raise StructureError(f"cannot rename: {path!r} is tied to {value.source!r}, which holds a container")
            value = Tie(new[value.source], value.via)
        insert(nested, split(new[path]), value)
    return build(nested, tree)


class _Piece(NamedTuple):
    """Something that moves whole: its new path from where it is put together, and the dicts that it lay in."""

    segments: Sequence[str]
    value: Any
    homes: tuple[Mapping[Any, Any], ...]


def _inside(node: Any, path: str, target: str, new: Mapping[str, str]) -> Any:
    """The node that was at a path and is now at the target, with what is below it renamed."""
    below = [name for name, _ in each_entry(node, f"{path}/" if path else "")] if opened(node) is not None else []
    if all(new[name] == target + name[len(path) :] for name in below):
        return node
    if type(node) is Tree:
        start = len(path) + 1
        return _renamed_tree(node, {name[start:]: _relative(new[name], target, path, node) for name in below})
    inside = opened(node)
    assert inside is not None
    if isinstance(node, Mapping):
        pieces = _pieces(node, path, new, ())
        for piece in pieces:
            _relative("/".join(piece.segments), target, path, node)
        depth = len(split(target))
        return _assembled(node, [piece._replace(segments=piece.segments[depth:]) for piece in pieces])
    values = [
        _inside(value, join(path, name), join(target, name), new) if _lands(join(path, name), join(target, name), value, new)
        else _refuse(path, node)
        for name, value in zip(inside.names, inside.values, strict=True)
    ]  # fmt: skip
    return node if all(map(is_, values, inside.values)) else inside.rebuild(values)


def _lands(path: str, target: str, node: Any, new: Mapping[str, str]) -> bool:
    """Whether all that is at or below a path lands at or below the target."""
    names = [name for name, _ in each_entry(node, f"{path}/")]
    return all(new[name] == target or new[name].startswith(f"{target}/") for name in names)


def _refuse(path: str, node: Any) -> Any:
    place = f"inside {quoted(path)}" if path else "at the root"
    raise StructureError(f"cannot rename {place}: a {type(node).__name__} keeps its own names")


def _relative(renamed: str, target: str, path: str, node: Any) -> str:
    if target and not renamed.startswith(f"{target}/"):
        raise StructureError(
            f"cannot rename inside {quoted(path)}: {quoted(renamed)} is not below {quoted(target)}, and a"
            f" {type(node).__name__} stays whole"
        )
    return renamed[len(target) + 1 :] if target else renamed


def _pieces(node: Any, path: str, new: Mapping[str, str], homes: tuple[Mapping[Any, Any], ...]) -> list[_Piece]:
    """What lies below a dict, in as large pieces as stay together."""
    inside = opened(node)
    assert inside is not None
    found: list[_Piece] = []
    for name, value in zip(inside.names, inside.values, strict=True):
        here = join(path, name)
        target = _target(value, here, new)
        if target is not None:
            found.append(_Piece(split(target), _inside(value, here, target, new), (*homes, node)))
        else:
            found += _pieces(value, here, new, (*homes, node))
    return found


def _target(value: Any, here: str, new: Mapping[str, str]) -> str | None:
    """Where a value goes as one piece; None for a dict whose leaves part."""
    names = [name for name, _ in each_entry(value, f"{here}/")]
    ends = [(new[name], name[len(here) :]) for name in names]
    stems = {renamed.removesuffix(end) if renamed.endswith(end) else None for renamed, end in ends}
    if len(stems) == 1 and (stem := stems.pop()):
        return stem
    if isinstance(value, Mapping) and type(value) is not Tree:
        return None
    if all(renamed.startswith(f"{here}/") for renamed, _ in ends):  # a container stays where it is, if it can
        return here
    levels = zip(*(renamed.split("/") for renamed, _ in ends), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len({*names}) == 1, levels)]  # else where all of it goes
    if type(value) is not Tree:
        first = ends[0][1].split("/")[1]  # the name of its first child, which it keeps
        shared = shared[: shared.index(first)] if first in shared else shared
    return "/".join(shared) or _refuse(here, value)


def _assembled(like: Mapping[Any, Any], pieces: Sequence[_Piece]) -> Any:
    """A mapping like this one of the pieces; keys with slashes stay as deep as they are."""
    groups: dict[str, list[_Piece]] = {}
    below = levels_below(like) if any("/" in str(key) for key in like) else None
    for piece in pieces:
        cut = 1
        if below is not None:
            cut = max(len(piece.segments) - max(below - 1 - (levels_below(piece.value) or 0), 0), 1)
        key = "/".join(piece.segments[:cut])
        groups.setdefault(key, []).append(piece._replace(segments=piece.segments[cut:]))
    made: dict[str, Any] = {}
    for key, group in groups.items():
        whole = next((piece for piece in group if not piece.segments), None)
        if whole is not None and len(group) == 1:
            made[key] = whole.value
        elif whole is not None and (not isinstance(whole.value, Mapping) or type(whole.value) is Tree):
            raise StructureError(
                f"cannot rename: {quoted(key)} is a {type(whole.value).__name__}, which takes in no new names"
            )
        elif whole is not None:
            group.remove(whole)
            inside = [_Piece((str(name),), value, (*whole.homes, whole.value)) for name, value in whole.value.items()]
            made[key] = _assembled(whole.value, [*inside, *group])
        else:
            rest, _, homes = group[0]
            made[key] = _assembled(homes[-len(rest)] if len(rest) <= len(homes) else remade(like, {}), group)
    return _remade(like, made)


def _remade(like: Mapping[Any, Any], made: Mapping[str, Any]) -> Any:
    """A mapping like this one with these items; a key that was there before is the same object."""
    old = {str(key): key for key in like}
    stay = {old[name]: None for name in made if name in old}
    keys = {name: old[name] if name in old else new_key(stay, name, "cannot rename") for name in made}
    return remade(like, {keys[name]: value for name, value in made.items()})
