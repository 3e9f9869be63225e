"""Find the arrays that a row gives for other layers than any other row does: `h.0.mask` alone beside `h.0.w` and `h.1.w`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..._paths import STACKED, Pattern, compile
from ..._paths.dotted_names import paths_of_names
from ..._words import listed, quoted
from .names import NamePattern
from .row import Row
from .step import Step

_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class PartialLayers:
    """Arrays of one name that a row gives for some layers, and those of the other rows with the most similar layers."""

    row: Row
    name: str
    """With `*` for the number of the layer: `h.*.mask`."""
    other_name: str
    """The name of the other arrays: `h.*.w`."""
    there: tuple[str, ...]
    """The layers of these arrays: `h.0`."""
    missing: tuple[str, ...]
    """The layers of the other arrays alone."""
    beside: tuple[str, ...]
    """The layers of these arrays alone."""

    @property
    def text(self) -> str:
        """What differs: `'h.*.mask' is there for ['h.0'], and not for ['h.1'] as 'h.*.w' is`."""
        text = f"{quoted(self.name)} is there for {listed(self.there)}"
        if self.missing:
            text += f", and not for {listed(self.missing)} as {quoted(self.other_name)} is"
        if self.beside:
            text += f"; {quoted(self.other_name)} is not there for {listed(self.beside)}"
        return text


class _Result(NamedTuple):
    """A result of a step."""

    step: Step
    pattern: NamePattern
    path: tuple[str, ...]
    shape: tuple[int, ...]


class _Ending(NamedTuple):
    """What the paths of arrays have in common that differ in the numbers of their layers."""

    layer: str
    """The path of the layer with `*` for its numbers: `h/*`."""
    rest: str
    """The path in the layer: `attn/mask`."""

    @property
    def path(self) -> str:
        return f"{self.layer}/{self.rest}"


_Layers: TypeAlias = dict[tuple[int, ...], str]
"""The numbers of layers -> their paths."""


def partial_layers(steps: Sequence[Step]) -> tuple[PartialLayers, ...]:
    """The arrays in layers of which no other arrays are in the same layers; none where a layer has one array only.

    Which layers there are is said by the arrays of the source; those that are written back say nothing of it.
    """
    names = [target for step in steps for target in step.targets]
    paths = {name: path for path, name in paths_of_names(names).items()}
    separator = "." if any(path != name for name, path in paths.items()) else "/"
    results = [*_results(steps, paths)]
    converted = [result for result in results if not result.step.operation.is_written_back]
    known: dict[str, dict[_Ending, _Layers]] = {}
    found: list[PartialLayers] = []
    for pattern, ours in _by_pattern(results).items():
        layers = _pattern_of_layers(pattern)
        if layers is None:
            continue
        if layers.text not in known:
            known[layers.text] = _by_ending(converted, layers)
        for ending, there in _by_ending(ours, layers).items():
            nearest = _nearest(ending, there, known[layers.text])
            if nearest is None:
                continue
            partial = _differences(ours[0].step.row, (ending, there), nearest, separator)
            if partial.missing or partial.row.operation.is_written_back:
                found.append(partial)
    return tuple(found)


def _results(steps: Iterable[Step], paths: Mapping[str, str]) -> Iterator[_Result]:
    for step in steps:
        for pattern, target, described in zip(step.row.targets, step.targets, step.outcome, strict=False):
            yield _Result(step, pattern, tuple(paths[target].split("/")), described.shape)


def _by_pattern(results: Iterable[_Result]) -> dict[NamePattern, list[_Result]]:
    found: dict[NamePattern, list[_Result]] = {}
    for result in results:
        found.setdefault(result.pattern, []).append(result)
    return found


def _pattern_of_layers(pattern: NamePattern) -> Pattern | None:
    """A pattern as far as its last wildcard or stack: `h/*` of `h/*/attn/mask` and of `h/:/mask`; None where it has none.

    Of `**`, which stands for any layer or none, there is none either.
    """
    segments = ["*" if segment == STACKED else segment for segment in pattern.path.split("/")]
    if "**" in segments:
        return None
    wild = [at for at, segment in enumerate(segments[:-1]) if compile(segment).literal is None]
    return compile("/".join(segments[: wild[-1] + 1])) if wild else None


def _by_ending(results: Iterable[_Result], layers: Pattern) -> dict[_Ending, _Layers]:
    """The results in layers that a pattern matches; a whole stack is in each of its layers."""
    length = layers.text.count("/") + 1
    found: dict[_Ending, _Layers] = {}
    for result in results:
        rest = "/".join(result.path[length:])
        if not rest:
            continue
        for segments in _single_layers(result.path[:length], result.shape):
            path = "/".join(segments)
            numbers = tuple(map(int, _NUMBER.findall(path)))
            if numbers and layers.captures(segments) is not None:
                found.setdefault(_Ending(_NUMBER.sub("*", path), rest), {})[numbers] = path
    return found


def _single_layers(segments: Sequence[str], shape: Sequence[int]) -> Iterator[Sequence[str]]:
    """The start of a path; that of a stack with each of its numbers."""
    if STACKED not in segments or not shape:
        yield segments
        return
    at = segments.index(STACKED)
    for number in range(shape[0]):
        yield (*segments[:at], str(number), *segments[at + 1 :])


def _nearest(ending: _Ending, there: _Layers, known: Mapping[_Ending, _Layers]) -> tuple[_Ending, _Layers] | None:
    """The other arrays with the most similar layers; None where some have the same layers, or there are no others."""
    others = {other: layers for other, layers in known.items() if other.layer == ending.layer and other != ending}
    if not others or any(layers.keys() == there.keys() for layers in others.values()):
        return None
    nearest = min(others, key=lambda other: len(others[other].keys() ^ there.keys()))
    return nearest, others[nearest]


def _differences(
    row: Row, ours: tuple[_Ending, _Layers], other: tuple[_Ending, _Layers], separator: str
) -> PartialLayers:
    (ending, there), (other_ending, others) = ours, other

    def written(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(path.replace("/", separator) for path in paths)

    missing = [others[numbers] for numbers in sorted(others) if numbers not in there]
    beside = [there[numbers] for numbers in sorted(there) if numbers not in others]
    name, other_name = written([ending.path, other_ending.path])
    return PartialLayers(row, name, other_name, written(there.values()), written(missing), written(beside))
