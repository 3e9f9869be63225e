"""Say which layers of a stack of `like` the results lack, and which they have beside."""

from __future__ import annotations

from collections.abc import Iterable

from ..._edit import leaves
from ..._paths import STACKED
from ..._tree import PyTree, signature
from ..._words import listed, quoted
from ...files._kinds import expected


def misfits_of_layers(results: Iterable[str], like: PyTree, different: Iterable[str]) -> list[str]:
    """A sentence for each stack of `like` whose layers the results do not have, from 0 on.

    Args:
        results: the paths of the results.
        like: the template.
        different: the paths in `like` that are missing or have another shape.
    """
    affected = {*different}
    counts: dict[str, int] = {}
    endings: dict[str, set[str]] = {}
    for path, leaf in leaves(like):
        place, separator, ending = path.partition(f"/{STACKED}/")
        shape = _shape_of(leaf)
        if separator and path in affected and shape:
            counts[place] = shape[0]
            endings.setdefault(place, set()).add(ending)
    found = _layers_found(results, endings)
    sentences = [_sentence(place, count, found.get(place, [])) for place, count in counts.items()]
    return [sentence for sentence in sentences if sentence]


def _shape_of(leaf: PyTree) -> tuple[int, ...]:
    kind = signature(expected(leaf))
    return tuple(kind[0]) if isinstance(kind, tuple) else ()


def _layers_found(results: Iterable[str], endings: dict[str, set[str]]) -> dict[str, list[str]]:
    """The place of each stack -> the names of the layers that the results have of it."""
    found: dict[str, dict[str, None]] = {}
    for path in results:
        segments = path.split("/")
        for at in range(1, len(segments) - 1):
            place, ending = "/".join(segments[:at]), "/".join(segments[at + 1 :])
            if ending in endings.get(place, ()):
                found.setdefault(place, {})[segments[at]] = None
    return {place: [*names] for place, names in found.items()}


def _sentence(place: str, count: int, names: list[str]) -> str:
    right = [str(number) for number in range(count)]
    missing = [name for name in right if name not in names]
    beside = [name for name in names if name not in right]
    if not names or (not missing and not beside):
        return ""
    text = f"the stack {quoted(place)} of `like` has the layers 0 to {count - 1}"
    if missing:
        text += f"; missing from the source: {listed(missing)}"
    if beside:
        text += f"; not in `like`: {listed(beside)}"
    return text
