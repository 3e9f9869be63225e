"""What mends a table whose modules have a further number in the source, as Keras names a second layer: `forward_gru_1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .row import Row


def fix_of_numbers(idle: Iterable[Row], unused: Iterable[str]) -> str:
    """A sentence with `names=` for the modules that the source numbers; empty if it has none, or several for one of them.

    Args:
        idle: the rows that take no array of the source.
        unused: the names in the source that no row takes.
    """
    rows = {row.sources[0].path: row for row in idle if len(row.sources) == 1}
    found: dict[str, set[str]] = {}
    targets: dict[str, list[str]] = {}
    for name in unused:
        for expected, module, path in _without_number(name):
            if path in rows:
                found.setdefault(expected, set()).add(module)
                targets.setdefault(expected, []).extend(target.path for target in rows[path].targets)
    if not found or any(len(modules) > 1 for modules in found.values()):
        return ""
    names = {_layer_of(targets[expected]): module for expected, (module,) in found.items()}
    return f"The source numbers modules; for a table of layer_table give names={names}."


def _without_number(name: str) -> Iterator[tuple[str, str, str]]:
    """For each module of a name that ends in a number: the module without it, the module, and the whole name without it."""
    segments = name.split("/")
    for at, segment in enumerate(segments[:-1]):
        plain = re.sub("_[0-9]+$", "", segment)
        if plain != segment:
            expected = "/".join([*segments[:at], plain])
            yield expected, "/".join(segments[: at + 1]), "/".join([expected, *segments[at + 1 :]])


def _layer_of(targets: Sequence[str]) -> str:
    """The path of the layer that has all of these leaves."""
    paths = [path.split("/")[:-1] for path in targets]
    shared: list[str] = []
    for segments in zip(*paths, strict=False):
        if len({*segments}) > 1:
            break
        shared.append(segments[0])
    return "/".join(shared)
