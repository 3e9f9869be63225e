"""What differs between two trees, said by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import StructureError
from .._paths import natural
from .._tree import signature
from .._words import SHOWN, describe, lines, listed, quoted
from .selectors import aliases, leaves


def check(tree: Any, like: Any) -> None:
    """Raise one error that lists by path all in which a tree differs from another: leaves, shapes, dtypes, ties.

    >>> check({"w": 1, "b": 2}, like={"w": 1, "c": 2})
    Traceback (most recent call last):
        ...
    ptree.StructureError: the tree is not like `like`:
      missing in the tree: ['c']
      unexpected in the tree: ['b']

    Either may be parameters, a spec or an abstract tree. Values are not compared, and containers may be of
    other kinds as long as the paths are the same.

    Raises:
        StructureError: with the lists `missing`, `unexpected`, `misshapen` and `mistyped`.
    """
    expected, got = dict(leaves(like)), dict(leaves(tree))
    wanted, tied = aliases(like), aliases(tree)
    missing, unexpected, misshapen, mistyped = differences(expected, got)
    apart = [alias for alias in sorted({*wanted, *tied}, key=natural) if wanted.get(alias) != tied.get(alias)]
    told = [
        f"{quoted(alias)} is {_kept(alias, wanted, expected)} in `like`, and {_kept(alias, tied, got)} in the tree"
        for alias in apart
    ]
    missing = [path for path in missing if path not in apart]
    unexpected = [path for path in unexpected if path not in apart]
    if missing or unexpected or misshapen or mistyped or told:
        raise structure_error(
            "the tree is not like `like`", missing, unexpected, misshapen, mistyped, expected, got,
            sides=(" in `like`", " in the tree"), ties=told,
        )  # fmt: skip


def _kept(path: str, tied: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if path in tied:
        return f"tied to {tied[path].shown()!r}"
    return "a leaf of its own" if path in known else "missing"


def differences(
    expected: Mapping[str, Any], got: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[str]]:
    """Which paths are missing, unexpected, misshapen and mistyped."""
    missing = [path for path in expected if path not in got]
    unexpected = [path for path in got if path not in expected]
    misshapen: list[str] = []
    mistyped: list[str] = []
    for path, leaf in expected.items():
        was, now = signature(leaf), signature(got.get(path, leaf))
        if isinstance(was, tuple) and isinstance(now, tuple) and was[0] != now[0]:
            misshapen.append(path)
        elif was != now:
            mistyped.append(path)
    return missing, unexpected, misshapen, mistyped


def structure_error(
    what: str,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    misshapen: Sequence[str] = (),
    mistyped: Sequence[str] = (),
    expected: Mapping[str, Any] = {},
    got: Mapping[str, Any] = {},
    *,
    prefix: str = "",
    fix: str = "",
    sides: tuple[str, str] = ("", ""),
    ties: Sequence[str] = (),
) -> StructureError:
    """All that does not fit as one error: one line if there is one difference, else a line each."""
    differ = sorted([*misshapen, *mistyped], key=natural)
    told: list[str] = []
    for path in differ[:SHOWN]:
        told.append(
            f"{quoted(prefix + path) if prefix + path else 'the root'}: expected {describe(expected[path])}{sides[0]}, got {describe(got[path])}{sides[1]}"
        )
    if len(differ) > SHOWN:
        told.append(f"and {len(differ) - SHOWN} more of another shape or dtype")
    groups = [
        sorted((prefix + path for path in group), key=natural) for group in (missing, unexpected, misshapen, mistyped)
    ]
    told += [
        f"{name}{sides[1]}: {listed(group)}"
        for name, group in zip(("missing", "unexpected"), groups, strict=False)
        if group
    ]
    told += lines(ties).splitlines()
    text = f"{what}: {told[0]}." if len(told) == 1 else "\n  ".join([f"{what}:", *told])
    return StructureError(f"{text}{(' ' if len(told) == 1 else chr(10)) if fix else ''}{fix}", *groups)
