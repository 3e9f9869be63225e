"""What differs between two trees, said by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import StructureError, listed
from ._leaf import describe, signature


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
) -> StructureError:
    """All that does not fit as one error: one line if there is one difference, else a line each."""
    lines: list[str] = []
    for path in (*misshapen, *mistyped):
        lines.append(
            f"{prefix + path!r}: expected {describe(expected[path])}{sides[0]}, got {describe(got[path])}{sides[1]}"
        )
    if missing:
        lines.append(f"missing{sides[1]}: {listed(prefix + path for path in missing)}")
    if unexpected:
        lines.append(f"unexpected{sides[1]}: {listed(prefix + path for path in unexpected)}")
    shown = lines[:10] + ([f"and {len(lines) - 10} more"] if len(lines) > 10 else [])
    text = f"{what}: {shown[0]}." if len(shown) == 1 else "\n  ".join([f"{what}:", *shown]) + ("\n" if fix else "")
    return StructureError(
        text + fix,
        *([prefix + path for path in group] for group in (missing, unexpected, misshapen, mistyped)),
    )
