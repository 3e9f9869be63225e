"""Find the stacks whose layers are leaves of their own on the other side: under the same name, or renamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

from ..._paths import STACKED
from ..._words import number_ranges
from .._sources.source import LeafInfo, Source
from .leaves import UNREADABLE, Side
from .rules import Names, Words, separator_of, words_of
from .sizes import LEAST_COSINE, sizes_of

_MOST_COMPARED = 8
_MOST_STACKED = 6  # axes of stacks in stacks, some of which may be layers on the other side


@dataclass(frozen=True)
class StackPair:
    """A stack on one side, and its layers on the other, in their order."""

    stack: str
    layers: tuple[str, ...]
    is_before: bool
    """Whether the stack is on the side before."""
    name: str
    """The layers as one name: `blocks/{0..5}/w`."""
    axes: tuple[int, ...] = (0,)
    """The axes of the stack along which its layers lie; along others that it has, each layer is a stack itself."""

    def in_order(self, sizes: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The layers, and an index of each, in the order of the stack's numbers: () where a layer is there as a whole.

        Args:
            sizes: of the stacked axes.
        """
        path_of = dict(zip(product(*(range(sizes[axis]) for axis in self.axes)), self.layers))
        for place in product(*map(range, sizes[: self.axes[-1] + 1])):
            index = [at for axis, at in enumerate(place) if axis not in self.axes]
            yield path_of[tuple(place[axis] for axis in self.axes)], tuple(index)


def stacks_by_name(
    source: Source, paths: Iterable[str], others: Iterable[str], is_before: bool
) -> tuple[StackPair, ...]:
    """The stacks whose layers all lie on the other side, each under a name of its own."""
    names = Names(others)
    found: list[StackPair] = []
    for path in paths:
        if STACKED in path:
            pair = _pair_by_name(path, source.leaves[path], names, is_before)
            if pair is not None:
                found.append(pair)
    return tuple(found)


def _pair_by_name(path: str, info: LeafInfo, names: Names, is_before: bool) -> StackPair | None:
    """A stack and its layers on the other side; None if one of them is not there.

    Of a stack of stacks all axes are layers there, or some of them, so that each layer is a stack.
    """
    words = words_of(path)
    places = [place for place, word in enumerate(words) if word == STACKED]
    if not 0 < len(places) <= min(len(info.shape or ()), _MOST_STACKED):
        return None
    for count in range(len(places), 0, -1):
        for axes in combinations(range(len(places)), count):
            sizes = {places[axis]: (info.shape or ())[axis] for axis in axes}
            layers = _layers(words, sizes, names)
            if layers:
                return StackPair(path, layers, is_before, _name_of_layers(words, sizes, layers), axes)
    return None


def _layers(words: Words, sizes: Mapping[int, int], names: Names) -> tuple[str, ...]:
    """The paths of all layers, whose numbers are the words at these places; none if one of them is not there."""
    if not 0 < prod(sizes.values()) <= len(names.words):
        return ()
    layers: list[str] = []
    for indices in product(*map(range, sizes.values())):
        name = list(words)
        for place, index in zip(sizes, indices):
            name[place] = str(index)
        layer = names.path_of.get(tuple(name))
        if layer is None:
            return ()
        layers.append(layer)
    return tuple(layers)


def _name_of_layers(words: Words, sizes: Mapping[int, int], layers: Sequence[str]) -> str:
    """All layers as one name; of one layer its path."""
    if len(layers) == 1:
        return layers[0]
    name = list(words)
    for place, size in sizes.items():
        name[place] = number_ranges(range(size)) if size > 1 else "0"
    return separator_of(layers).join(name)


# -------------------------------------------------------------------------------- renamed


def renamed_stacks(stacks: Mapping[str, Side], others: Mapping[str, Side], is_before: bool) -> tuple[StackPair, ...]:
    """The stacks whose layers lie on the other side under another name: `blocks/:/w` and `h/0/w`, `h/1/w`.

    What comes after the number of the layer must be the same, and their shapes; of the leaves of one name most must look
    alike. A stack for which there are several such families of layers has none.
    """
    paths = [path for path in stacks if words_of(path).count(STACKED) == 1]
    if not paths:
        return ()
    families = _families(others)
    pairs_by_name: dict[tuple[Words, Words], list[StackPair]] = {}
    for path in paths:
        place = words_of(path).index(STACKED)
        name, ending = words_of(path)[:place], words_of(path)[place + 1 :]
        fitting = [
            around for around in families.get(ending, ()) if _fits(stacks[path], families[ending][around], others)
        ]
        if len(fitting) == 1:
            layers = families[ending][fitting[0]]
            in_order = tuple(layers[number] for number in range(len(layers)))
            sizes = {len(fitting[0]): len(in_order)}
            words = (*fitting[0], STACKED, *ending)
            pair = StackPair(path, in_order, is_before, _name_of_layers(words, sizes, in_order))
            pairs_by_name.setdefault((name, fitting[0]), []).append(pair)
    return tuple(pair for pairs in pairs_by_name.values() if _look_alike(pairs, stacks, others) for pair in pairs)


def _families(paths: Iterable[str]) -> dict[Words, dict[Words, dict[int, str]]]:
    """What comes after the number of a layer -> what comes before it -> the path of each number."""
    found: dict[Words, dict[Words, dict[int, str]]] = {}
    for path in paths:
        words = words_of(path)
        for place, word in enumerate(words[:-1]):
            if word.isdecimal():
                family = found.setdefault(words[place + 1 :], {}).setdefault(words[:place], {})
                family[int(word)] = path
    return found


def _fits(stack: Side, layers: Mapping[int, str], others: Mapping[str, Side]) -> bool:
    """Whether these are as many layers as the stack has, each of the shape of its layers."""
    if not stack.shape or sorted(layers) != [*range(stack.shape[0])]:
        return False
    return all(others[path].shape == stack.shape[1:] for path in layers.values())


def _look_alike(pairs: Sequence[StackPair], stacks: Mapping[str, Side], others: Mapping[str, Side]) -> bool:
    """Whether most of the larger stacks begin as their first layers do."""
    by_size = sorted(pairs, key=lambda pair: -stacks[pair.stack].info.count)[:_MOST_COMPARED]
    alike = [_begin_alike(stacks[pair.stack], others[pair.layers[0]]) for pair in by_size]
    return 2 * sum(alike) > len(alike)


def _begin_alike(stack: Side, layer: Side) -> bool:
    if stack.info.is_declared or layer.info.is_declared:
        return True
    if stack.info.problem or layer.info.problem or stack.is_object or layer.is_object:
        return False
    try:
        whole, single = next(stack.chunks(), None), next(layer.chunks(), None)
    except UNREADABLE:
        return False
    if whole is None or single is None:  # no numbers
        return False
    count = min(whole.size, single.size)
    sizes = sizes_of(whole[:count], single[:count])
    return not sizes.differing or sizes.cosine > LEAST_COSINE  # zeros have no cosine
