"""Ties: two names for one leaf. tie makes them, untie ends them, ties lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import is_
from typing import Any

import jax

from .._edit import Selector, aliases, choose, each_entry, get, why_dead
from .._errors import PatternError, TieError
from .._paths import compile, fill_in, split
from .._tree import MISSING, Tie, Tree, build, copied, expand, find, opened, place, shape_only
from .._words import describe, listed, quoted, with_fixes
from .equal_leaves import shared
from .misfits import Fit, Problem


def tie(tree: Any, table: Mapping[str, str | Tie] | None = None) -> Tree:
    """A Tree in which each alias of the table, a leaf or a whole subtree, is its source: one leaf, two names.

    >>> from ptree import Param, transposed
    >>> spec = Tree({"embed": {"table": Param((50, 8))}, "head": {"kernel": Param((8, 50))}})
    >>> tie(spec, {"head/kernel": transposed("embed/table")})
    Tree(
      embed/table  f32[50,8]
      head/kernel  = transposed(embed/table)
    )

    A name in the table that is no path of the tree is a pattern. What its wildcards stand for is filled in on
    the right; without wildcards there, all that it matches is tied to one source:

    >>> blocks = Tree({"enc": [{"w": 1}, {"w": 2}], "dec": [{"w": 1}, {"w": 2}]})
    >>> ties(tie(blocks, {"dec/*": "enc/*"}))
    {'dec/0/w': 'enc/0/w', 'dec/1/w': 'enc/1/w'}
    >>> ties(tie(blocks, {"{enc,dec}/*": "enc/0"}))
    {'enc/1/w': 'enc/0/w', 'dec/0/w': 'enc/0/w', 'dec/1/w': 'enc/0/w'}

    Without a table, each array object that stands at several paths, the usual way of sharing in JAX, becomes one
    leaf under the first of them, and ties.

    Works on specs, parameters, masks and plain mappings. The source's values stay, the alias's go, and nothing is
    copied. A chain of ties collapses to its first source. JAX, optax and `save` then see one leaf; reading sees both.

    Raises:
        TieError: an end that is missing, other structure, shapes or dtypes, one end inside the other, a
            circle, an alias that is given twice, a pattern that matches nothing, a transform that does not
            fit; it lists all and changes nothing.
        PatternError: a pattern that is malformed, or with another number of wildcards on the right.
    """
    tree = Tree(tree)
    if table is None:
        table = shared(tree)
    if not isinstance(table, Mapping):
        raise TieError(f"the ties are a dict, alias -> source; got {describe(table)}")
    pairs, problems = _written_out(tree, table)
    fit = Fit(tree)
    for alias, source in pairs.items():
        problems += fit.problems(alias, source)
    if problems:
        texts, fixes = zip(*problems, strict=True)
        raise TieError(with_fixes(texts, fixes))
    if not pairs:
        return tree
    nested = expand(tree)
    for alias, source in pairs.items():
        place(nested, alias.split("/"), source)
    return build(nested, tree)


def _written_out(tree: Tree, table: Mapping[Any, Any]) -> tuple[dict[str, Tie], list[Problem]]:
    """The ties of a table, its patterns written out; and what is wrong with it."""
    pairs: dict[str, Tie] = {}
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in table.items():
        source = value if isinstance(value, Tie) else Tie("/".join(split(value)))
        found = _matched(tree, key, source)
        if not found:
            text = f"cannot tie {quoted(key)} to {quoted(source.source)}: {why_dead(compile(key), tree)}"
            problems.append((text, ""))
        for alias, tie in found.items():
            first = given.setdefault(alias, key)
            if pairs.setdefault(alias, tie) != tie:
                text = (
                    f"cannot tie {alias!r} twice: {quoted(first)} ties it to {pairs[alias].shown()!r},"
                    f" {quoted(key)} to {tie.shown()!r}"
                )
                problems.append((text, "Leave one of them out."))
    for alias, tie in pairs.items():
        segments = alias.split("/")
        above = next((path for n in range(1, len(segments)) if (path := "/".join(segments[:n])) in pairs), None)
        if above is not None:
            text = f"cannot tie {alias!r} to {tie.shown()!r}: the table ties {above!r}, above it, to {pairs[above].shown()!r}"
            problems.append((text, "Leave one of them out."))
    return pairs, problems


def _matched(tree: Tree, key: Any, source: Tie) -> dict[str, Tie]:
    """What a name in the table stands for: alias -> source. A name that is in the tree is no pattern."""
    if find(tree, split(key)) is not MISSING:
        return {"/".join(split(key)): _real(tree, source)}
    pattern = compile(str(key))
    if pattern.literal is not None:
        return {"/".join(pattern.literal): _real(tree, source)}
    one = _real(tree, source) if _holds_no_wildcard(tree, source.source) else None
    found: dict[str, Tie] = {}
    for path, _ in each_entry(tree):
        segments = path.split("/")
        cut = pattern.reaches(segments)
        if cut == 0:
            raise PatternError(
                f"cannot tie {quoted(key)} to {quoted(source.source)}: it matches the whole tree. Name leaves, as in"
                f" '**/{split(source.source)[-1]}'"
            )
        if cut is None or (alias := "/".join(segments[:cut])) in found:
            continue
        try:
            filled = "/".join(fill_in(source.source, pattern.captures(segments[:cut]) or ())) if one is None else ""
        except PatternError as error:
            raise PatternError(f"cannot tie {quoted(key)} to {quoted(source.source)}: {error}") from None
        found[alias] = one or Tie(filled, source.via)
    # a pattern may match its own source
    return {alias: tie for alias, tie in found.items() if alias != tie.source} or found


def _holds_no_wildcard(tree: Tree, path: str) -> bool:
    return find(tree, split(path)) is not MISSING or not re.search(r"(?<!\\)[*?]", path)


def _real(tree: Tree, source: Tie) -> Tie:
    """The source with its escapes taken out, unless a path is written so."""
    if "\\" not in source.source or find(tree, split(source.source)) is not MISSING:
        return source
    return Tie(re.sub(r"\\(.)", r"\1", source.source), source.via)


# ------------------------------------------------------------------------------- untie, and what is tied


def untie(tree: Any, selector: Selector | None = None) -> Any:
    """A tree in which each selected alias (all, without a selector) is a leaf of its own with equal values.

    >>> tree = tie({"a": 1, "b": 1}, {"b": "a"})
    >>> untie(tree)
    Tree(
      a  1
      b  1
    )

    Arrays are copied, so that both leaves can be donated. The selector's patterns match aliases' paths; a predicate
    is given shapes and dtypes. Works on any pytree that holds Trees, such as an optax state.

    Raises:
        PatternError: the selector is malformed, or matches no alias.
    """
    tied = aliases(tree)
    if selector is None:
        return untied(tree, frozenset(tied))
    known = Tree({alias: tie.read(jax.tree.map(shape_only, get(tree, tie.source))) for alias, tie in tied.items()})
    try:
        return untied(tree, frozenset(path for path, _ in choose(known, selector)))
    except PatternError as error:
        sources = {tie.source for tie in tied.values()}
        if isinstance(selector, str) and selector in sources:
            own = listed(alias for alias, tie in tied.items() if tie.source == selector)
            raise PatternError(f"{quoted(selector)} is a source: name its aliases, {own}") from error
        raise


def untied(node: Any, names: frozenset[str], prefix: str = "") -> Any:
    """The tree in which these aliases are leaves of their own."""
    if not any(name.startswith(prefix) for name in names):
        return node
    if type(node) is Tree:
        nested = expand(node)
        for alias, _ in [(path, value) for path, value in each_entry(nested) if type(value) is Tie]:
            if prefix + alias in names:
                place(nested, alias.split("/"), jax.tree.map(copied, find(node, alias.split("/"))))
        node = build(nested, node)
    inside = opened(node)
    if inside is None:
        return node
    pairs = zip(inside.names, inside.values, strict=True)
    new = [untied(value, names, f"{prefix}{name}/") for name, value in pairs]
    return node if all(map(is_, new, inside.values)) else inside.rebuild(new)


def ties(tree: Any) -> dict[str, str | Tie]:
    """Alias -> source for every tie in the tree: the table that `tie` takes.

    >>> ties(tie({"a": 1, "b": 1}, {"b": "a"}))
    {'b': 'a'}
    """
    return {alias: tie if tie.via else tie.source for alias, tie in aliases(tree).items()}
