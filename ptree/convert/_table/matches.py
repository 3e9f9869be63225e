"""Matches: which row takes which arrays of a source; arrays that a fused row takes together; arrays that no row takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..._paths import STACKED
from ..._words import quoted
from .._named_arrays import NamedArray, NamedArrays
from .names import Captures
from .row import Row, captured


@dataclass(frozen=True)
class Match:
    """The arrays that a row takes together."""

    row: Row
    captures: Captures
    """What the wildcards of the row's first pattern stand for."""
    sources: tuple[NamedArray, ...]


class Matches:
    """The rows of a table matched with the arrays of a source: the first row that matches a name takes it."""

    def __init__(self, rows: Sequence[Row], arrays: NamedArrays):
        self._rows, self._arrays = rows, arrays
        self._literal = _literal_rows(rows)
        self._by_ending = _rows_by_ending(rows)
        self._taken: set[str] = set()
        # (row, captures) -> the arrays at the places of the row's patterns
        self._groups: dict[tuple[int, Captures], dict[int, NamedArray]] = {}
        self._match_all()

    def _match_all(self) -> None:
        for path, array in self._arrays.by_path.items():
            # a whole stack comes before its layers, which only it can take
            if array.same_as in self._taken and array.same_as.split("/").count(STACKED):
                continue
            place = self._place_of(path)
            if place is None:
                continue
            number, position, captures = place
            self._groups.setdefault((number, captures), {})[position] = array
            self._taken.add(path)

    def _place_of(self, path: str) -> tuple[int, int, Captures] | None:
        """The first row that matches a name: its number, which of its patterns, and what the wildcards stand for."""
        literal = self._literal.get(path)
        for number in self._rows_to_try(path):
            if literal is not None and literal[0] < number:
                break
            found = self._in_row(number, path)
            if found is not None:
                return found
        return None if literal is None else (*literal, ())

    def _rows_to_try(self, path: str) -> list[int]:
        """The rows with wildcards that may take a name, by its last two segments: few of the many rows of a large table."""
        segments = path.split("/")
        numbers: set[int] = set()
        for length in range(3):
            numbers.update(self._by_ending.get(tuple(segments[-length:] if length else ()), ()))
        return sorted(numbers)

    def _in_row(self, number: int, path: str) -> tuple[int, int, Captures] | None:
        patterns = self._rows[number].sources
        for position, pattern in enumerate(patterns):
            # a wildcard means single layers: only a pattern that spells `:` means the whole stack
            if STACKED in path.split("/") and STACKED not in pattern.path.split("/"):
                continue
            captures = captured(patterns, position, path)
            if captures is not None:
                return number, position, captures
        return None

    def complete(self) -> Iterator[Match]:
        """The matches of which all arrays are there."""
        for (number, captures), sources in self._groups.items():
            row = self._rows[number]
            if len(sources) == len(row.sources):
                yield Match(row, captures, tuple(sources[position] for position in range(len(row.sources))))

    def problems(self) -> Iterator[str]:
        """A sentence for each row that lacks arrays: all of a literal name, or some of those that it takes together."""
        for (number, captures), sources in self._groups.items():
            row = self._rows[number]
            if len(sources) == len(row.sources):
                continue
            there = ", ".join(quoted(array.name) for array in sources.values())
            lacking = [row.sources[position] for position in range(len(row.sources)) if position not in sources]
            names = [self._name_of(pattern.write(row.sources[0].translate(captures, pattern))) for pattern in lacking]
            yield f"the row {row.text} takes {there} together with {', '.join(map(quoted, names))}, which the source lacks"

    def _name_of(self, path: str | None) -> str:
        """A path as the source would write it."""
        if path is None:
            return "an array of another name"
        return path.replace("/", ".") if self._arrays.is_dotted else path

    def idle_rows(self) -> tuple[str, ...]:
        """The rows that take no array of the source, as text: right for what may be absent, and what a misspelt row looks like."""
        busy = {number for number, _ in self._groups}
        return tuple(row.text for number, row in enumerate(self._rows) if row.sources and number not in busy)

    def unused(self) -> tuple[str, ...]:
        """The names of the arrays whose numbers no row takes, under any of their names."""
        covered = self._covered()
        return tuple(
            array.name for path, array in self._arrays.by_path.items() if path not in covered and not array.is_layer
        )

    def _covered(self) -> set[str]:
        """The paths of the arrays whose numbers are taken under some name."""
        covered = set(self._taken)
        layers: dict[str, list[str]] = {}
        for path, array in self._arrays.by_path.items():
            if array.is_layer:
                layers.setdefault(array.same_as, []).append(path)
            elif array.same_as and (path in covered or array.same_as in covered):
                covered |= {path, array.same_as}
        for whole, single in layers.items():
            if all(layer in self._taken for layer in single):
                covered.add(whole)
        return covered


def _is_literal(row: Row) -> bool:
    """Whether a row has no wildcards, so that its names can be looked up."""
    return all(pattern.compiled.literal is not None for pattern in row.sources)


def _rows_by_ending(rows: Sequence[Row]) -> dict[tuple[str, ...], list[int]]:
    """The last plain segments of a pattern -> the rows with wildcards that have such a pattern."""
    found: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        if not _is_literal(row):
            for pattern in row.sources:
                found.setdefault(pattern.ending, []).append(number)
    return found


def _literal_rows(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Name -> the first row without wildcards that takes it, and which of the row's patterns it is."""
    found: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        if _is_literal(row):
            for position, pattern in enumerate(row.sources):
                found.setdefault("/".join(pattern.compiled.literal or ()), (number, position))
                if pattern.is_dotted:  # beside names with slashes, a dot is a part of a name
                    found.setdefault(pattern.text, (number, position))
    return found
