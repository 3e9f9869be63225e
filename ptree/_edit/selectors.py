"""Selectors: which leaves of a tree are meant, by path or by what they are.

A selector is a pattern, a compiled regex (that matches the whole path), a predicate `(path, leaf) -> bool`,
or a sequence of these, in which `"!pattern"` takes away what it matches. A sequence that begins by taking
away begins with everything. A part that matches nothing is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._errors import PathError, PatternError
from .._paths import DEEPEST, STACKED, Pattern, compile, escape
from .._tree import LEAF_TYPES, Nested, Tie, Tree, child_named, dict_items, expand, names_in, opened, where_it_stops
from .._words import describe, lines, listed, name_of, nearest, quoted

Selector = str | re.Pattern[str] | Callable[[str, Any], bool] | Sequence[Any]
Leaves = list[tuple[str, Any]]


_LONG = 2 * DEEPEST  # a segment takes two characters at least, so a shorter prefix needs no count


def check_depth(node: Any, prefix: str) -> None:
    """Raise where a tree goes on below what can be walked: recursion has a limit."""
    if len(prefix) >= _LONG and prefix.count("/") >= DEEPEST and opened(node) is not None:
        raise PathError(f"the tree has more than {DEEPEST} levels: it goes on below {quoted(prefix[:-1])}")


def leaves(tree: Any, prefix: str = "") -> Leaves:
    """Every leaf with its path, in declaration order where the tree knows it, else naturally; no aliases."""
    out: Leaves = []
    _collect(tree, prefix, out)
    return out if type(tree) is Tree else distinct(out)


def distinct(found: Leaves) -> Leaves:
    """The leaves, if no two have one path: in a foreign dict the keys 1 and "1", or "a/b" and "a", can clash."""
    if len({path for path, _ in found}) < len(found):
        seen: set[str] = set()
        path = next(path for path, _ in found if path in seen or seen.add(path))
        raise PathError(
            f"the path {path!r} is ambiguous: two leaves have it. Rename a key that holds '/' or is a number"
        )
    return found


def _collect(node: Any, prefix: str, out: Leaves) -> None:
    if len(prefix) >= _LONG:
        check_depth(node, prefix)
    if type(node) is Tree:
        children, layout = node._node
        pairs: Any = [(name, children[at]) for name, at in layout.listing]
    elif type(node) is dict:
        pairs = dict_items(node)
    else:
        inside = opened(node)
        if inside is None:
            out.append((prefix[:-1], node))
            return
        pairs = zip(inside.names, inside.values, strict=True)
    for name, child in pairs:
        if type(child) in LEAF_TYPES:  # most children: spare the call
            out.append((prefix + name, child))
        else:
            _collect(child, f"{prefix}{name}/", out)


def each_entry(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that a tree says, by path: each leaf, a `Tie` at each alias, each node without children."""
    check_depth(tree, prefix)
    if type(tree) is Tree:
        tree = expand(tree, prefix)
    if type(tree) is Nested:
        pairs, empty = [*tree.items()], Tree()
    elif (inside := opened(tree)) is not None:
        pairs, empty = [*zip(inside.names, inside.values, strict=True)], tree
    else:
        yield prefix[:-1], tree
        return
    if not pairs and prefix:
        yield prefix[:-1], empty
    for name, child in pairs:
        yield from each_entry(child, f"{prefix}{name}/")


def entries(tree: Any) -> dict[str, Any]:
    """The entries by path; raises a PathError where two have one path."""
    out: dict[str, Any] = {}
    return out if _only_leaves(tree, "", out) else dict(distinct(list(each_entry(tree))))


def _only_leaves(node: Any, prefix: str, out: dict[str, Any]) -> bool:
    """Fill in the leaves of Trees and dicts that hold nothing else, the common case; False where there is more."""
    if len(prefix) >= _LONG:
        check_depth(node, prefix)
    if type(node) is Tree:
        children, layout = node._node
        if layout.ties or not children:
            return False
        for name, at in layout.listing:
            child = children[at]
            if type(child) is Tree:
                if not _only_leaves(child, f"{prefix}{name}/", out):
                    return False
            elif type(child) in LEAF_TYPES:
                out[prefix + name] = child
            else:
                return False
        return True
    if type(node) is not dict or {*map(type, node)} != {str}:
        return False
    for name, child in dict_items(node):
        if type(child) in LEAF_TYPES and "/" not in name:
            out[prefix + name] = child
        elif "/" in name or not _only_leaves(child, f"{prefix}{name}/", out):
            return False
    return True


def aliases(tree: Any) -> dict[str, Tie]:
    """Each alias and its source, as paths from the root of the tree."""
    return {path: value for path, value in each_entry(tree) if type(value) is Tie}


def choose(tree: Any, selector: Selector | None, among: Leaves | None = None) -> Leaves:
    """The leaves that a selector means, in listing order; all of them where it is None.

    With `among`, what it means of these pairs, such as a tree's leaves and aliases.

    Raises:
        PatternError: a part of the selector is malformed, matches nothing, or matches aliases only.
    """
    if selector is None:
        return leaves(tree)
    found, dead = match(tree, selector, among)
    if dead:
        raise PatternError(lines(dead))
    return found


def match(tree: Any, selector: Selector, among: Leaves | None = None) -> tuple[Leaves, list[str]]:
    """The leaves that a selector means, in listing order; and why each part that matches nothing does not."""
    parts = parse(selector)
    dead: list[str] = []
    if among is None and len(parts) == 1 and not parts[0][0]:
        found = _chosen_by(parts[0][1], tree, None)
        found = found if type(tree) is Tree else distinct(found)
        if not found and not takes_all(parts[0][1]):
            dead.append(_why_dead(parts[0][1], tree))
    else:
        everything = leaves(tree) if among is None else among
        paths = {path for path, _ in everything} if parts[0][0] else set[str]()
        for takes_away, part in parts:
            if isinstance(part, Pattern) and among is not None:
                hits = {path for path, _ in among if part.matches(path)}
            else:
                hits = {path for path, _ in _chosen_by(part, tree, everything)}
            if not hits and not takes_all(part):
                dead.append(_why_dead(part, tree))
            paths = paths - hits if takes_away else paths | hits
        found = [(path, leaf) for path, leaf in everything if path in paths]
        if not found and not dead and everything:
            dead.append("the selector takes away all that it selects")
    return found, dead


def takes_all(part: Any) -> bool:
    """Whether a part of a selector means everything, also where there is nothing: `**`."""
    return isinstance(part, Pattern) and {*part.text.split("/")} == {"**"}


def parse(selector: Selector) -> list[tuple[bool, Any]]:
    """The parts of a selector: whether each takes away, and the `Pattern`, regex or predicate."""
    if isinstance(selector, str):
        if selector.startswith("!"):
            return [(True, compile(selector[1:]))]
        return [(False, compile(selector))]
    if isinstance(selector, re.Pattern) and isinstance(selector.pattern, bytes):
        raise PatternError(f"the regex {quoted(selector.pattern)} is of bytes, and paths are strings")
    if isinstance(selector, re.Pattern) or callable(selector):
        return [(False, selector)]
    if isinstance(selector, Sequence) and len(selector) and not isinstance(selector, bytes):
        return [part for inner in selector for part in parse(inner)]
    raise PatternError(
        f"not a selector: {describe(selector) if hasattr(selector, 'shape') else quoted(selector)}; a selector is a pattern such as"
        " '**/bias', a compiled regex, a function (path, leaf) -> bool, or a sequence of these"
    )


def _chosen_by(part: Any, tree: Any, everything: Leaves | None) -> Leaves:
    if isinstance(part, Pattern):
        found: Leaves = []
        _walk(tree, "", part, part.start, found)
        return found
    everything = leaves(tree) if everything is None else everything
    if isinstance(part, re.Pattern):
        return [(path, leaf) for path, leaf in everything if part.fullmatch(path)]
    found = []
    for path, leaf in everything:
        try:
            if part(path, leaf):
                found.append((path, leaf))
        except Exception as error:
            error.add_note(f"in the predicate {name_of(part)!r} at {quoted(path)}, {describe(leaf)}")
            raise
    return found


def _walk(node: Any, prefix: str, pattern: Pattern, state: Any, out: Leaves) -> None:
    """Collect what lies below a node and matches; a branch in which nothing can match is not entered."""
    if state.accepts:
        _collect(node, prefix, out)
        return
    if len(prefix) >= _LONG:
        check_depth(node, prefix)
    if type(node) is Tree:
        layout, children = node._layout, node._children
        listing = layout.listing
        if state.names is not None:  # only these can lead on
            listing = [(name, layout.index[name]) for name in state.names if name in layout.index]
        known = state.next
        for name, at in listing:
            after = known[name] if name in known else pattern.step(state, name)
            if after is not None:
                _walk(children[at], f"{prefix}{name}/", pattern, after, out)
        return
    if type(node) is dict and state.names is not None and _plain_names(node):  # only these can lead on
        known = [(name, node[name]) for name in state.names if name in node]
    elif (inside := opened(node)) is not None:
        known = zip(inside.names, inside.values, strict=True)
    else:
        return
    for name, child in known:
        after = state
        for segment in name.split("/"):  # a key of a foreign dict may hold a slash
            after = after and pattern.step(after, segment)
            if after is None or after.accepts:
                break
        if after is not None:
            _walk(child, f"{prefix}{name}/", pattern, after, out)


def _plain_names(node: dict[Any, Any]) -> bool:
    """Whether every key is a string without a slash, so that each is one segment."""
    try:
        return "/" not in "".join(node)
    except TypeError:
        return False


# ----------------------------------------------------------------- patterns that match nothing


def _why_dead(part: Any, tree: Any) -> str:
    if isinstance(part, re.Pattern):
        return f"the regex {quoted(part.pattern)} matches the whole of no path"
    if not isinstance(part, Pattern):
        return f"the predicate {name_of(part)!r} is true of no leaf"
    return why_dead(part, tree)


def why_dead(pattern: Pattern, tree: Any) -> str:
    """One line on why a pattern matches no leaf, with the path that was likely meant."""
    asked = f"the pattern {quoted(pattern.text)} matches nothing"
    tied = [(alias, tie) for alias, tie in aliases(tree).items() if pattern.matches(alias)]
    if tied:
        alias, tie = tied[0]
        names = list(dict.fromkeys(tie.source for _, tie in tied))
        return (
            f"the pattern {quoted(pattern.text)} matches only aliases: {alias!r} is tied to {tie.shown()!r}."
            f" A leaf is matched by its own path: name {listed(names) if len(names) > 1 else repr(names[0])}"
        )
    if pattern.literal is not None:
        there = "there is no leaf below it"
        return f"{asked}: {where_it_stops(tree, pattern.literal, names_in, child_named, there)}"
    paths = [path for path, _ in leaves(tree)]
    meant = _meant(pattern.text, paths)
    if not meant and re.search(r"\d", pattern.text) and any(f"/{STACKED}/" in f"/{path}/" for path in paths):
        meant = " Leaves of a stack have ':' in the place of a number, which '*' matches"
    return f"{asked} in {len(paths)} leaves.{meant}"


def _meant(text: str, paths: Sequence[str]) -> str:
    """` Did you mean 'x'?` with each segment of a pattern that no path has replaced by the nearest that one has."""
    parts = text.split("/")
    if "{" in text or len(parts) > 32:
        return ""
    known = {segment for path in paths for segment in path.split("/")}
    for at, part in enumerate(parts):
        if part != "**" and not any(map(compile(part).matches, known)):
            near = nearest(part, known)
            parts[at] = part if near is None else escape(near)
    meant = "/".join(parts)
    return f" Did you mean {quoted(meant)}?" if any(map(compile(meant).matches, paths)) else ""
