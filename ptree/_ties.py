"""Ties: two names for one leaf. tie makes them, untie ends them, ties lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._access import everything
from ._errors import PatternError, TieError, lines, quoted, suggestion
from ._leaf import copied, describe, largest_difference, shape_only, signature
from ._nested import build, expand, place
from ._paths import Pattern, compile, fill_in, join, split
from ._select import Selector, aliases, choose, entries, why_dead
from ._tie import Tie
from ._tree import MISSING, Tree, find, indexed
from ._twins import is_transpose, shared


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
    fixes: dict[str, None] = {}
    for alias, source in pairs.items():
        problems += _unfit(tree, alias, source, fixes)
    if problems:
        text = lines(problems)
        if fixes:
            text += ("" if text.endswith("?") else ".") + " " if len(problems) == 1 else "\n"
        raise TieError(text + " ".join(fixes))
    if not pairs:
        return tree
    nested = expand(tree)
    for alias, source in pairs.items():
        place(nested, alias.split("/"), source)
    return build(nested, tree)


def _path(given: Any) -> str:
    return "/".join(split(given))


def _written_out(tree: Tree, table: Mapping[Any, Any]) -> tuple[dict[str, Tie], list[str]]:
    """The ties of a table, its patterns written out; and what is wrong with it."""
    pairs: dict[str, Tie] = {}
    given: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in table.items():
        source = value if isinstance(value, Tie) else Tie(_path(value))
        pattern = compile(str(key)) if find(tree, split(key)) is MISSING else None
        literal = split(key) if pattern is None else pattern.literal
        found = {"/".join(literal): source} if literal is not None else {}
        if pattern is not None and literal is None:
            found = _matched(tree, pattern, source)
            if not found:
                problems.append(f"cannot tie {quoted(key)} to {quoted(source.source)}: {why_dead(pattern, tree)}")
        for alias, tie in found.items():
            if pattern is not None and alias == tie.source:
                continue  # a pattern may match its own source
            if pairs.setdefault(alias, tie) != tie:
                problems.append(
                    f"cannot tie {alias!r} twice: {quoted(given[alias])} ties it to {pairs[alias].shown()!r},"
                    f" {quoted(key)} to {tie.shown()!r}. Leave one of them out"
                )
            given.setdefault(alias, key)
    for alias, tie in pairs.items():
        segments = alias.split("/")
        above = [path for n in range(1, len(segments)) if (path := "/".join(segments[:n])) in pairs]
        if above:
            problems.append(
                f"cannot tie {alias!r} to {tie.shown()!r}: the table ties {above[0]!r}, above it, to"
                f" {pairs[above[0]].shown()!r}. Leave one of them out"
            )
    return pairs, problems


def _matched(tree: Tree, pattern: Pattern, source: Tie) -> dict[str, Tie]:
    """Each node or leaf that a pattern matches first on the way down, and its source."""
    found: dict[str, Tie] = {}
    for path, _ in entries(tree):
        segments = path.split("/")
        cut = pattern.reaches(segments)
        if cut is None or (alias := "/".join(segments[:cut])) in found:
            continue
        try:
            filled = fill_in(source.source, ())  # one source for all
        except PatternError:
            try:
                filled = fill_in(source.source, pattern.captures(segments[:cut]) or ())
            except PatternError as error:
                raise PatternError(f"cannot tie {quoted(pattern.text)} to {quoted(source.source)}: {error}") from None
        found[alias] = Tie("/".join(filled), source.via)
    return found


def _unfit(tree: Tree, alias: str, source: Tie, fixes: dict[str, None]) -> list[str]:
    """Why the alias cannot be the source, nothing where it can; and what to do about it."""
    asked = f"cannot tie {alias!r} to {source.source!r}"
    there, here = split(source.source), split(alias)
    if here == there:
        return [f"{asked}: it is the same path"]
    if there[: len(here)] == here or here[: len(there)] == there:
        fixes["Tie two nodes that lie apart, or single leaves in them."] = None
        return [f"{asked}: one lies inside the other"]
    ends = {"/".join(end): find(tree, end) for end in (here, there)}
    single = [(end, layer[0]) for end in (here, there) if (layer := indexed(tree, end)) is not None]
    if single:
        fixes["Tie whole stacks, or ptree.unstack them first."] = None
        return [f"{asked}: {'/'.join(end)!r} is one layer of {'/'.join(whole)!r}" for end, whole in single]
    lost = [path for path, end in ends.items() if end is MISSING]
    if lost:
        names = [path for path, _ in entries(tree)]
        return [f"{asked}: there is no {path!r}.{suggestion(path, [*tree, *names])}" for path in lost]
    a, b = ends.values()
    if (type(a) is Tree) != (type(b) is Tree):
        (node, path), leaf = ((a, alias), there[-1]) if type(a) is Tree else ((b, source.source), here[-1])
        what = ("a leaf", "a node") if type(b) is Tree else ("a node", "a leaf")
        meant = suggestion(leaf, [leaf] if leaf in node else [], path + "/")
        fixes["Name a leaf in it."] = None
        return [f"{asked}: {alias!r} is {what[0]} and {source.source!r} is {what[1]}{'.' if meant else ''}{meant}"]
    own, new = (everything(end) for end in (a, b))
    problems = [
        f"{asked}: {join(alias, path)!r} has no {join(source.source, path)!r}" for path in own if path not in new
    ]
    problems += [
        f"{asked}: {join(source.source, path)!r} has no {join(alias, path)!r}" for path in new if path not in own
    ]
    if problems:
        fixes["Tie the leaves that both have, one by one or by a pattern."] = None
    for path in own:
        if path in new:
            problems += _unfit_leaf(
                asked, join(alias, path), own[path], join(source.source, path), new[path], source, fixes
            )
    return problems


def _unfit_leaf(asked: str, alias: str, own: Any, path: str, leaf: Any, tie: Tie, fixes: dict[str, None]) -> list[str]:
    shown = tie.shown(path)
    seen, passed = shape_only(leaf), path
    for step in tie.via:
        why = step.misfit(seen)
        passed = step.shown(passed)
        if why:
            if signature(own) == signature(leaf):
                fixes["Tie them without a transform."] = None
            return [f"{asked}: {passed!r} {why}, and {path!r} is {describe(leaf)}"]
        seen = step.see(seen)
    if signature(own) != signature(seen):
        about, what = signature(own), signature(seen)
        if not isinstance(about, tuple) or not isinstance(what, tuple):
            pass
        elif about[0] == what[0]:
            fixes["A tie does not cast: give both one dtype first, with ptree.put."] = None
        elif not tie.via and about[0] == (*what[0][:-2], *what[0][:-3:-1]):
            fixes[f"Did you mean ptree.transposed({path!r})?"] = None
        else:
            fixes["A tie neither broadcasts nor reshapes: both need one shape."] = None
        return [f"{asked}: {alias!r} is {describe(own)} and {shown!r} is {describe(seen)}"]
    if not tie.via and is_transpose(own, leaf):
        fixes[f"Did you mean ptree.transposed({path!r})?"] = None
        return [f"{asked}: {alias!r}, {describe(own)}, holds the transpose of {path!r}, {describe(leaf)}"]
    if any(not step.axes for step in tie.via) and isinstance(shape_only(leaf), jax.ShapeDtypeStruct):
        return _unreliable(asked, shown, leaf, tie)
    return []


def _unreliable(asked: str, shown: str, leaf: Any, tie: Tie) -> list[str]:
    """Whether the way through registered transforms and back changes values that are known."""
    if isinstance(leaf, (Tracer, jax.ShapeDtypeStruct)):
        return []
    off = largest_difference(leaf, tie.write(tie.read(leaf))) or 0.0
    least = 0.0
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        finite = np.abs(np.asarray(leaf, np.complex128))
        least = 16 * float(jnp.finfo(leaf.dtype).eps) * float(finite.max(initial=0, where=np.isfinite(finite)))
    if off <= least:
        return []
    return [
        f"{asked}: the inverse of {shown!r} does not undo it: {describe(leaf)} comes back changed by up to {off:.3g}"
    ]


def untie(tree: Tree, selector: Selector | None = None) -> Tree:
    """A Tree in which each selected alias (all, without a selector) is a leaf of its own with equal values.

    >>> tree = tie({"a": 1, "b": 1}, {"b": "a"})
    >>> untie(tree)
    Tree(
      a  1
      b  1
    )

    Arrays are copied, so that both leaves can be donated. The selector's patterns match aliases' paths; a predicate
    is given shapes and dtypes.

    Raises:
        PatternError: the selector is malformed, or matches no alias.
    """
    tree = Tree(tree)
    tied = aliases(tree)
    if selector is None:
        return untied(tree, tied)
    known = Tree({alias: tie.read(shape_only(find(tree, split(tie.source)))) for alias, tie in tied.items()})
    return untied(tree, [path for path, _ in choose(known, selector)])


def untied(tree: Tree, names: Iterable[str]) -> Tree:
    """The Tree in which these aliases are leaves of their own."""
    nested = expand(tree)
    for alias in names:
        place(nested, alias.split("/"), copied(find(tree, alias.split("/"))))
    return build(nested, tree)


def ties(tree: Any) -> dict[str, str | Tie]:
    """Alias -> source for every tie in the tree: the table that `tie` takes.

    >>> ties(tie({"a": 1, "b": 1}, {"b": "a"}))
    {'b': 'a'}
    """
    return {alias: tie if tie.via else tie.source for alias, tie in aliases(tree).items()}
