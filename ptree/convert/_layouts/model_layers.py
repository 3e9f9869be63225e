"""ModelLayers: the layers of a model by path, and the layer that a parameter belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from ... import nn
from ..._paths import STACKED, join
from ...nn import Layer
from ...nn._layer import layers_in

_NORMS = (nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class ModelLayers:
    """The layers of a model by path, a repeated layer once for each repetition."""

    def __init__(self, net: Layer):
        self._by_path = dict(_layers("", net))

    def owner(self, leaf: str) -> tuple[str, Layer]:
        """The innermost layer that a parameter belongs to, with its path."""
        path = leaf
        while path and path not in self._by_path:
            path = path.rpartition("/")[0]
        return path, self._by_path[path]

    def called(self, name: str, leaves: tuple[str, ...]) -> str | None:
        """The path of the layer of a class that has these parameters; None if there is none."""
        if not leaves:
            return None
        path, _ = self.owner(leaves[0])
        while True:
            is_whole = all(_is_at_or_below(leaf, path) for leaf in leaves)
            if is_whole and type(self._by_path.get(path)).__name__ == name:
                return path
            if not path:
                return None
            path = path.rpartition("/")[0]

    def norm_at(self, path: str) -> str | None:
        """The class of norms of this package that a layer is of, or derives from; None for other layers."""
        names = [kind.__name__ for kind in _NORMS if isinstance(self._by_path[path], kind)]
        return names[0] if names else None

    def single(self, leaf: str) -> list[str]:
        """The parameters of single layers that a stacked one holds."""
        before, is_stacked, after = _at_stack(leaf)
        repeat = self._by_path.get(before)
        if not is_stacked or not isinstance(repeat, nn.Repeat):
            return [leaf]
        numbers = map(str, range(repeat.n))
        return [single for number in numbers for single in self.single(_with_number(before, number, after))]


def of_repetition(leaf: str, number: int) -> str:
    """The path of a stacked parameter in one of the layers."""
    before, is_stacked, after = _at_stack(leaf)
    return _with_number(before, str(number), after) if is_stacked else leaf


def _at_stack(path: str) -> tuple[str, bool, str]:
    """What is before and after the first stack in a path."""
    segments = path.split("/")
    if STACKED not in segments:
        return path, False, ""
    at = segments.index(STACKED)
    return "/".join(segments[:at]), True, "/".join(segments[at + 1 :])


def _with_number(before: str, number: str, after: str) -> str:
    return "/".join(part for part in (before, number, after) if part)


def _is_at_or_below(leaf: str, path: str) -> bool:
    return not path or leaf == path or leaf.startswith(f"{path}/")


def _layers(path: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    yield path, layer
    for name, part in layers_in(layer):
        if not isinstance(layer, nn.Repeat) or layer.shared:
            yield from _layers(join(path, name), part)
            continue
        for number in range(layer.n):
            yield from _layers(join(path, str(number)), part)
