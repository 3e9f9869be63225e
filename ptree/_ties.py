"""Ties: two names for one leaf. tie makes them, untie ends them, ties lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._access import everything
from ._errors import TieError, lines, suggestion
from ._leaf import copied, describe, shape_only, signature
from ._nested import build, expand, place
from ._paths import join, split
from ._select import Selector, aliases, choose, entries
from ._tie import Tie, Transform
from ._tree import MISSING, Tree, find


def _swap(leaf: Any) -> Any:
    return leaf.swapaxes(-1, -2) if len(leaf.shape) > 1 else leaf


_TRANSPOSED = Transform("transposed", _swap, _swap, least_ndim=2)


def transform_named(name: str) -> Transform:
    """The transform of this name, for files, which hold names only."""
    if name != _TRANSPOSED.name:
        raise TieError(f"no transform has the name {name!r}: there is {_TRANSPOSED.name!r}")
    return _TRANSPOSED


def transposed(path: str) -> Tie:
    """The leaf at a path with its last two axes swapped: an output kernel (d, vocab) from a table (vocab, d).

    >>> transposed("embed/table")
    transposed('embed/table')

    Also a value in `Tree(...)`, for a tree that is written with its ties. An axis swap moves no data under `jit`.
    """
    return Tie("/".join(split(path)), (_TRANSPOSED,))


def tie(tree: Any, table: Mapping[str, str | Tie]) -> Tree:
    """A Tree in which each alias of the table, a leaf or a whole subtree, is its source: one leaf, two names.

    >>> from ptree import Param
    >>> spec = Tree({"embed": {"table": Param((50, 8))}, "head": {"kernel": Param((8, 50))}})
    >>> tie(spec, {"head/kernel": transposed("embed/table")})
    Tree(
      embed/table  f32[50,8]
      head/kernel  = transposed(embed/table)
    )

    Works on specs, parameters, masks and plain mappings. The source's values stay, the alias's go. A chain
    of ties collapses to its first source. JAX, optax and `save` then see one leaf; reading sees both.

    Raises:
        TieError: an end that is missing, other structure, shapes or dtypes, one end inside the other, a
            circle, or an alias that is given twice; it lists all and changes nothing.
    """
    tree = Tree(tree)
    pairs = [
        (_path(alias), source if isinstance(source, Tie) else Tie(_path(source))) for alias, source in table.items()
    ]
    problems = [problem for alias, source in pairs for problem in _unfit(tree, alias, source)]
    if problems:
        raise TieError(lines(problems))
    if not pairs:
        return tree
    nested = expand(tree)
    for alias, source in pairs:
        *above, name = split(alias)
        node: Any = nested
        for segment in above:
            node = node[segment]
            if type(node) is Tie:
                raise TieError(f"cannot tie {alias!r} to {source.shown()!r}: the table ties what is above it too")
        node[name] = source
    return build(nested, tree)


def _path(given: Any) -> str:
    return "/".join(split(given))


def _unfit(tree: Tree, alias: str, source: Tie) -> list[str]:
    """Why the alias cannot be the source; nothing where it can."""
    asked = f"cannot tie {alias!r} to {source.source!r}"
    there, here = split(source.source), split(alias)
    if there[: len(here)] == here or here[: len(there)] == there:
        return [f"{asked}: " + ("it is the same path" if here == there else "one lies inside the other")]
    ends = {"/".join(end): find(tree, end) for end in (here, there)}
    lost = [path for path, end in ends.items() if end is MISSING]
    if lost:
        names = [path for path, _ in entries(tree)]
        return [f"{asked}: there is no {path!r}.{suggestion(path, [*tree, *names])}" for path in lost]
    a, b = ends.values()
    if (type(a) is Tree) != (type(b) is Tree):
        what = ("a leaf", "a node") if type(b) is Tree else ("a node", "a leaf")
        return [f"{asked}: {alias!r} is {what[0]} and {source.source!r} is {what[1]}"]
    own, new = (everything(end) for end in (a, b))
    problems = [
        f"{asked}: {join(alias, path)!r} has no {join(source.source, path)!r}" for path in own if path not in new
    ]
    problems += [
        f"{asked}: {join(source.source, path)!r} has no {join(alias, path)!r}" for path in new if path not in own
    ]
    for path in own:
        if path not in new:
            continue
        seen, named = source.read(shape_only(new[path])), source.shown(join(source.source, path))
        if any(len(getattr(new[path], "shape", (0,) * 9)) < step.least_ndim for step in source.via):
            problems.append(f"{asked}: {named!r} needs two axes or more, and the source is {describe(new[path])}")
        elif signature(own[path]) != signature(seen):
            problems.append(
                f"{asked}: {join(alias, path)!r} is {describe(own[path])} and {named!r} is {describe(seen)}"
            )
    return problems


def untie(tree: Tree, selector: Selector | None = None) -> Tree:
    """A Tree in which each selected alias (all, without a selector) is a leaf of its own with equal values.

    >>> tree = tie({"a": 1, "b": 1}, {"b": "a"})
    >>> untie(tree)
    Tree(
      a  1
      b  1
    )

    Arrays are copied, so that both leaves can be donated. The selector's patterns match aliases' paths.

    Raises:
        PatternError: the selector is malformed, or matches no alias.
    """
    tree = tree if type(tree) is Tree else Tree(tree)
    tied = aliases(tree)
    if selector is None and not tied:
        return tree
    chosen = list(tied) if selector is None else [path for path, _ in choose(Tree(dict.fromkeys(tied, 0)), selector)]
    nested = expand(tree)
    for alias in chosen:
        place(nested, alias.split("/"), copied(find(tree, alias.split("/"))))
    return build(nested, tree)


def ties(tree: Any) -> dict[str, str | Tie]:
    """Alias -> source for every tie in the tree: the table that `tie` takes.

    >>> ties(tie({"a": 1, "b": 1}, {"b": "a"}))
    {'b': 'a'}
    """
    return {alias: tie if tie.via else tie.source for alias, tie in aliases(tree).items()}
