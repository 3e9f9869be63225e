"""Tie leaves and nodes of a tree by a table, alias -> source, whose patterns are written out; `ties` lists the table of a tree."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

from .._edit import Hints
from .._errors import PatternError, TieError
from .._paths import Pattern, compile, has_holes, split
from .._tree import (
    BareTree,
    PyTree,
    Structure,
    Tie,
    Tree,
    aliases,
    assemble,
    entries,
    locate,
    opened,
    structure,
)
from .._words import describe, quoted, with_fixes
from .equal_leaves import same_objects
from .misfits import Misfits, Problem

T = TypeVar("T")
TieTable: TypeAlias = Mapping[str, "str | Tie"]


def tie(tree: PyTree, table: TieTable | None = None) -> Tree:
    """A Tree in which each alias of the table, a leaf or a whole subtree, is its source: one leaf, two names.

    >>> from ptree import Param, transposed
    >>> spec = Tree({"embed": {"table": Param((50, 8))}, "head": {"kernel": Param((8, 50))}})
    >>> tie(spec, {"head/kernel": transposed("embed/table")})
    Tree(
      embed/table  f32[50,8]
      head/kernel  = transposed(embed/table)
    )

    A name in the table that is no path of the tree is a pattern. What its wildcards stand for is filled in on
    the right, as in `ptree.rename`; without wildcards there, all that it matches is tied to one source:

    >>> blocks = Tree({"enc": [{"w": 1}, {"w": 2}], "dec": [{"w": 1}, {"w": 2}]})
    >>> ties(tie(blocks, {"dec/*": "enc/*"}))
    {'dec/0/w': 'enc/0/w', 'dec/1/w': 'enc/1/w'}
    >>> ties(tie(blocks, {"{enc,dec}/*": "enc/0"}))
    {'enc/1/w': 'enc/0/w', 'dec/0/w': 'enc/0/w', 'dec/1/w': 'enc/0/w'}

    Without a table, each array object that stands at several paths, the usual way of sharing in JAX, becomes one
    leaf under the first of them, and ties.

    Works on specs, parameters, masks and plain mappings. The source's values stay, the alias's go, and nothing is
    copied. A chain of ties collapses to its first source. JAX, optax and `save` then see one leaf; reading sees both.

    Of a module of Equinox or nnx, or any other container that JAX opens, it makes the Tree of its leaves by path:
    `model` -> `tie(model, table)` -> train, save -> `ptree.unflatten(tied, like=model)`, which is the model again.

    Args:
        tree: a Tree, or a mapping that becomes one.
        table: alias -> source, paths or patterns; the source may be a `transposed(path)`. Without a table, equal
            objects are tied.

    Raises:
        TieError: an end that is missing, other structure, shapes or dtypes, one end inside the other, a
            circle, an alias that is given twice, a pattern that matches nothing, a transform that does not
            fit; it lists all and changes nothing.
        PatternError: a pattern that is malformed, or with another number of wildcards on the right, or of names in braces.
    """
    tree = _as_tree(tree)
    if table is None:
        table = same_objects(tree)
    _check_is_table(table)
    written = _written_out(tree, table)
    misfits = Misfits(tree)
    problems = [*written.problems]
    for alias, source in written.pairs.items():
        problems += misfits.problems(alias, source)
    if problems:
        raise TieError(with_fixes([problem.text for problem in problems], [problem.fix for problem in problems]))
    return _with_ties(structure(tree), written.pairs) if written.pairs else tree


def _as_tree(tree: PyTree) -> Tree:
    """The Tree of a mapping or a list; of any other container, such as a module of Equinox, that of its leaves by path."""
    is_module = not isinstance(tree, Mapping) and type(tree) not in (list, tuple) and opened(tree) is not None
    return Tree(entries(tree)) if is_module else Tree(tree)


def _check_is_table(table: object) -> None:
    if not isinstance(table, Mapping):
        raise TieError(f"the ties are a dict, alias -> source; got {describe(table)}")
    if isinstance(table, BareTree):
        raise TieError("the ties are a dict, alias -> source; got a Tree. The tree comes first, and then the ties")
    problems: list[str] = []
    for alias, source in table.items():
        if not isinstance(source, Tie | str | int):
            problems.append(
                f"cannot tie {quoted(alias)}: expected the path of its source, or ptree.transposed(path), got {describe(source)}"
            )
    if problems:
        raise TieError(with_fixes(problems, ["The order is tie(tree, table)"]))


def _with_ties(before: Structure, pairs: Mapping[str, Tie]) -> Tree:
    """The tree in which each of these paths, and what is below it, gives way to a tie."""
    after: dict[str, PyTree] = {}
    for path, value in before.entries.items():
        alias = path_or_above(path, pairs)
        if alias is None:
            after[path] = value
        else:
            after[alias] = pairs[alias]
    containers = {path: node for path, node in before.containers.items() if path_or_above(path, pairs) is None}
    # each alias was a leaf, so that ties stand for no more leaves than there were, however large the tree is
    return assemble(after, containers, allowed_ties=len(before.entries))


def path_or_above(path: str, paths: Container[str]) -> str | None:
    """The path itself or the one above it that is among these paths."""
    above = path
    while above:
        if above in paths:
            return above
        above = above.rpartition("/")[0]
    return None


class _WrittenOut(NamedTuple):
    """The ties of a table in which patterns are written out, and the problems of the table."""

    pairs: dict[str, Tie]
    problems: list[Problem]


def _written_out(tree: Tree, table: Mapping[str, str | Tie]) -> _WrittenOut:
    pairs: dict[str, Tie] = {}
    keys: dict[str, str] = {}
    problems: list[Problem] = []
    hints = Hints(tree)
    for key, value in table.items():
        source = value if isinstance(value, Tie) else Tie("/".join(split(value)))
        matched = _matched(tree, key, source, hints)
        problems += matched.problems
        for alias, tie in matched.pairs.items():
            first = keys.setdefault(alias, key)
            first_tie = pairs.setdefault(alias, tie)
            if first_tie != tie:
                text = (
                    f"cannot tie {quoted(alias)} twice: {quoted(first)} ties it to {quoted(first_tie.shown())},"
                    f" {quoted(key)} to {quoted(tie.shown())}"
                )
                problems.append(Problem(text, "Leave one of them out."))
    return _WrittenOut(pairs, [*problems, *_nested_aliases(pairs)])


def _nested_aliases(pairs: Mapping[str, Tie]) -> list[Problem]:
    problems: list[Problem] = []
    for alias, tie in pairs.items():
        above = path_or_above(alias.rpartition("/")[0], pairs)
        if above is not None:
            text = (
                f"cannot tie {quoted(alias)} to {quoted(tie.shown())}: the table ties {quoted(above)}, above it, to"
                f" {quoted(pairs[above].shown())}"
            )
            problems.append(Problem(text, "Leave one of them out."))
    return problems


def _matched(tree: Tree, key: str, source: Tie, hints: Hints) -> _WrittenOut:
    """The ties that one name in the table stands for. A name that is in the tree is no pattern."""
    segments = split(key)
    if locate(tree, segments) is not None:
        return _WrittenOut({"/".join(segments): _unescaped(tree, source)}, [])
    pattern = compile(str(key))
    if pattern.literal is not None:
        return _WrittenOut({"/".join(pattern.literal): _unescaped(tree, source)}, [])
    attempt = f"cannot tie {quoted(key)} to {quoted(source.source)}"
    names = list(entries(tree))
    matches = _matches(pattern, names, attempt, source)
    if not matches:
        return _WrittenOut({}, [Problem(f"{attempt}: {hints.why_unmatched(pattern)}", "")])
    pairs: dict[str, Tie] = {}
    is_one = _holds_no_wildcard(tree, source.source)
    for alias, matched in matches.items():
        pairs[alias] = _unescaped(tree, source) if is_one else _filled(pattern, matched, source, attempt)
    # a pattern may match its own source
    others = {alias: tie for alias, tie in pairs.items() if alias != tie.source}
    unused = hints.unused_in_braces(pattern, [name for name in names if pattern.matches(name)])
    return _WrittenOut(others or pairs, [Problem(f"{attempt}: {line}", "") for line in unused])


def _matches(pattern: Pattern, names: list[str], attempt: str, source: Tie) -> dict[str, list[str]]:
    """Each leaf or node that the pattern matches: its path, and the segments of it."""
    found: dict[str, list[str]] = {}
    for name in names:
        segments = name.split("/")
        length = pattern.reaches(segments)
        if length == 0:
            example = split(source.source)[-1]
            raise PatternError(f"{attempt}: it matches the whole tree. Name leaves, as in '**/{example}'")
        if length is not None:
            found["/".join(segments[:length])] = segments[:length]
    return found


def _filled(pattern: Pattern, segments: list[str], source: Tie, attempt: str) -> Tie:
    try:
        return Tie("/".join(pattern.fill_in(source.source, segments)), source.via)
    except PatternError as error:
        raise PatternError(f"{attempt}: {error}") from None


def _holds_no_wildcard(tree: Tree, path: str) -> bool:
    return locate(tree, split(path)) is not None or not has_holes(path)


def _unescaped(tree: Tree, source: Tie) -> Tie:
    """The source without the escapes of a pattern, unless a path is written so."""
    if "\\" not in source.source or locate(tree, split(source.source)) is not None:
        return source
    return Tie(re.sub(r"\\(.)", r"\1", source.source), source.via)


def ties(tree: PyTree) -> dict[str, str | Tie]:
    """Alias -> source for every tie in the tree: the table that `tie` takes.

    >>> ties(tie({"a": 1, "b": 1}, {"b": "a"}))
    {'b': 'a'}

    Args:
        tree: any pytree.

    Raises:
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    return {alias: tie if tie.via else tie.source for alias, tie in aliases(tree).items()}
