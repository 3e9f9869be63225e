"""Check one tree against another: readings and differences, in missing, unexpected, misshapen and mistyped leaves, a line each
in one error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .._errors import StructureError
from .._paths import natural
from .._tree import Leaf, PyTree, Tie, entries, leaves, shape_only, signature
from .._words import SHOWN, describe_apart, lines, listed, quoted


def check(tree: PyTree, like: PyTree) -> None:
    """Check a tree against another, and raise one error that lists all differences by path: leaves, shapes, dtypes, ties.

    >>> check({"w": 1, "b": 2}, like={"w": 1, "c": 2})
    Traceback (most recent call last):
        ...
    ptree.StructureError: the tree is not like `like`:
      missing in the tree: ['c']
      unexpected in the tree: ['b']

    Either may be parameters, a spec or an abstract tree. Values are not compared, and containers may be of
    other kinds as long as the paths are the same.

    Args:
        tree: the tree that is checked.
        like: the tree that it should be like.

    Raises:
        StructureError: with the lists `missing`, `unexpected`, `misshapen` and `mistyped`.
    """
    expected, got = entries(like), entries(tree)
    apart = _tied_otherwise(expected, got)
    found = differences(dict(leaves(like)), dict(leaves(tree)), apart)
    if not found and not apart:
        return
    ties = [
        f"{quoted(path)} is {_standing(path, expected)} in `like`, and {_standing(path, got)} in the tree"
        for path in apart
    ]
    sides = (" in `like`", " in the tree")
    raise structure_error("the tree is not like `like`", found, expected, got, sides=sides, ties=ties)


def _tied_otherwise(expected: Mapping[str, PyTree], got: Mapping[str, PyTree]) -> list[str]:
    """The paths that are an alias in one of the two, and not the same alias in the other."""
    paths: set[str] = set()
    for path in expected.keys() | got.keys():
        ends = [end for end in (expected.get(path), got.get(path)) if type(end) is Tie]
        if len(ends) == 1 or (len(ends) == 2 and ends[0] != ends[1]):
            paths.add(path)
    return sorted(paths, key=natural)


def _standing(path: str, entries: Mapping[str, PyTree]) -> str:
    if path not in entries:
        return "missing"
    value = entries[path]
    return f"tied to {quoted(value.shown())}" if type(value) is Tie else "a leaf of its own"


class Differences(NamedTuple):
    """In what the leaves of two trees differ: lists of paths."""

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    misshapen: Sequence[str] = ()
    mistyped: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen or self.mistyped)

    def without(self, paths: Collection[str]) -> Differences:
        """The differences at all other paths."""
        groups = [[path for path in group if path not in paths] for group in self]
        return Differences(*groups)


def differences(expected: Mapping[str, Leaf], got: Mapping[str, Leaf], but: Sequence[str] = ()) -> Differences:
    """Which paths, `but` these, are missing, unexpected, misshapen and mistyped."""
    missing = [path for path in expected if path not in got and path not in but]
    unexpected = [path for path in got if path not in expected and path not in but]
    misshapen: list[str] = []
    mistyped: list[str] = []
    for path, leaf in expected.items():
        before, after = signature(leaf), signature(got.get(path, leaf))
        if before == after:
            continue
        if isinstance(before, tuple) and isinstance(after, tuple) and before[0] != after[0]:
            misshapen.append(path)
        else:
            mistyped.append(path)
    return Differences(missing, unexpected, misshapen, mistyped)


def readings(tree: PyTree) -> dict[str, PyTree]:
    """Collect all readings of a tree by path: leaves, the shapes that aliases show, empty nodes."""
    leaf_at = dict(leaves(tree))
    found: dict[str, PyTree] = {}
    for path, value in entries(tree).items():
        is_alias = type(value) is Tie and value.source in leaf_at
        found[path] = value.read(shape_only(leaf_at[value.source])) if is_alias else value
    return found


def structure_error(
    what: str,
    found: Differences,
    expected: Mapping[str, Leaf] = {},
    got: Mapping[str, Leaf] = {},
    *,
    prefix: str = "",
    fix: str = "",
    sides: tuple[str, str] = ("", ""),
    ties: Sequence[str] = (),
) -> StructureError:
    """Make one error of all differences: one line if there is one, else a line each.

    `prefix` goes before each path; `sides` says behind each value where it is.
    """
    problems = [
        *_unfit_lines(found, expected, got, prefix, sides),
        *_name_lines(found, prefix, sides),
        *lines(ties).splitlines(),
    ]
    groups = [_shown_paths(group, prefix) for group in found]
    if len(problems) == 1:
        text = f"{what}: {problems[0]}."
        return StructureError(f"{text} {fix}" if fix else text, *groups)
    text = "\n  ".join([f"{what}:", *problems])
    return StructureError(f"{text}\n{fix}" if fix else text, *groups)


def _shown_paths(paths: Sequence[str], prefix: str) -> list[str]:
    return sorted((prefix + path for path in paths), key=natural)


def _unfit_lines(
    found: Differences, expected: Mapping[str, Leaf], got: Mapping[str, Leaf], prefix: str, sides: tuple[str, str]
) -> list[str]:
    """A line for each leaf of another shape or dtype: the first ten, then a count."""
    unfit = sorted([*found.misshapen, *found.mistyped], key=natural)
    problems: list[str] = []
    for path in unfit[:SHOWN]:
        name = quoted(prefix + path) if prefix + path else "the root"
        before, after = describe_apart(expected[path], got[path])
        problems.append(f"{name}: expected {before}{sides[0]}, got {after}{sides[1]}")
    if len(unfit) > SHOWN:
        problems.append(f"and {len(unfit) - SHOWN} more of another shape or dtype")
    return problems


def _name_lines(found: Differences, prefix: str, sides: tuple[str, str]) -> list[str]:
    problems: list[str] = []
    if found.missing:
        problems.append(f"missing{sides[1]}: {listed(_shown_paths(found.missing, prefix))}")
    if found.unexpected:
        problems.append(f"unexpected{sides[1]}: {listed(_shown_paths(found.unexpected, prefix))}")
    return problems
