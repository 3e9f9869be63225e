"""The reference of the state machine: every name of every leaf in one flat dict, with no tree, no tie and no stack.

Two names that share a leaf have one cell. A name that is seen through a transpose says so. A stack is only a name with a
`:` in it, whose array has an axis more in front. Each operation is a few lines over that dict.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Name:
    """Which cell a name reads, and whether through a transpose."""

    cell: int
    turned: bool = False


@dataclass
class Model:
    """Names of leaves, and the values of the cells that they read."""

    names: dict[str, Name] = field(default_factory=dict)
    cells: dict[int, np.ndarray] = field(default_factory=dict)
    created: int = 0

    # what is there

    def value(self, name: str) -> np.ndarray:
        entry = self.names[name]
        value = self.cells[entry.cell]
        return value.T if entry.turned else value

    def shape(self, name: str) -> tuple[int, ...]:
        return self.value(name).shape

    def sharers(self, name: str) -> list[str]:
        """All names of the leaf of this name."""
        return [other for other, entry in self.names.items() if entry.cell == self.names[name].cell]

    def is_shared(self, name: str) -> bool:
        return len(self.sharers(name)) > 1

    def below(self, node: str) -> list[str]:
        """The names of the leaves below a node."""
        return [name for name in self.names if name.startswith(f"{node}/")]

    def nodes(self) -> list[str]:
        found = set()
        for name in self.names:
            segments = name.split("/")
            found |= {"/".join(segments[:cut]) for cut in range(1, len(segments))}
        return sorted(found)

    def children(self, node: str) -> list[str]:
        return sorted({name[len(node) + 1 :].split("/")[0] for name in self.below(node)})

    def numbered(self) -> dict[str, np.ndarray]:
        """Single layers of all stacked leaves, under numbers."""
        found = {}
        for name in self.names:
            for path, value in _layers(name.split("/"), self.value(name), 0):
                if path != name:
                    found[path] = value
        return found

    # what changes

    def add(self, name: str, value: np.ndarray) -> None:
        self.created += 1
        self.cells[self.created] = np.array(value)
        self.names[name] = Name(self.created)

    def write(self, name: str, value: np.ndarray) -> None:
        """A value through one name, which all names of the leaf then read."""
        entry = self.names[name]
        self.cells[entry.cell] = np.array(value.T if entry.turned else value)

    def remove(self, name: str) -> None:
        cell = self.names.pop(name).cell
        if not any(entry.cell == cell for entry in self.names.values()):
            del self.cells[cell]

    def rename(self, old: str, new: str) -> None:
        self.names[new] = self.names.pop(old)

    def share(self, alias: str, source: str, turned: bool, with_alias: list[str]) -> None:
        """Make some names of the alias's leaf read the source's instead."""
        first, base = self.names[alias], self.names[source]
        for name in with_alias:
            # seen from the alias the name may be turned, and the alias is a turned view of the source
            is_turned = (self.names[name].turned != first.turned) != (turned != base.turned)
            self.names[name] = Name(base.cell, is_turned)
        if not any(entry.cell == first.cell for entry in self.names.values()):
            del self.cells[first.cell]

    def separate(self, name: str) -> None:
        value = self.value(name)
        self.remove(name)
        self.add(name, value)

    # stacks

    def cannot_stack(self, node: str, source_of: dict[str, str]) -> bool:
        """Whether the children of a node are no layers that can be stacked: other names, shapes or ties, or a tie out of a layer."""
        numbers = self.children(node)
        if sorted(numbers) != sorted(map(str, range(len(numbers)))):
            return True
        layers = [f"{node}/{number}" for number in numbers]
        if any(
            other != layer and not other.startswith(f"{layer}/") for layer in layers for other in self._reached(layer)
        ):
            return True
        first = self._of_layer(layers[0], source_of)
        return any(self._of_layer(layer, source_of) != first for layer in layers)

    def _leaves_of(self, layer: str) -> list[str]:
        return [layer] if layer in self.names else self.below(layer)

    def _reached(self, layer: str) -> set[str]:
        """All names of the leaves of a layer."""
        return {other for name in self._leaves_of(layer) for other in self.sharers(name)}

    def _of_layer(self, layer: str, source_of: dict[str, str]) -> dict[str, object]:
        """What must be the same in all layers: for each name its shape, and the name in the layer that owns its leaf."""
        found = {}
        for name in self._leaves_of(layer):
            source = source_of.get(name, name)
            found[name[len(layer) :]] = (self.shape(name), source[len(layer) :])
        return found

    def stack(self, node: str) -> None:
        axis = node.split("/").count(":")
        layers = [f"{node}/{at}" for at in range(len(self.children(node)))]
        cell_of: dict[int, int] = {}
        names = {}
        for first in self._leaves_of(layers[0]):
            rest = first[len(layers[0]) :]
            cell = self.names[first].cell
            if cell not in cell_of:
                self.created += 1
                cell_of[cell] = self.created
                self.cells[self.created] = np.stack([self.value(layer + rest) for layer in layers], axis)
            names[f"{node}/:{rest}"] = Name(cell_of[cell])
        for name in self.below(node):
            self.remove(name)
        self.names.update(names)

    def cannot_unstack(self, node: str) -> bool:
        """Whether a tie leads out of the stack, or its leaves do not say how many layers there are."""
        inside = f"{node}/:"
        return any(not other.startswith(inside) for other in self._reached(inside))

    def unstack(self, node: str) -> None:
        axis = node.split("/").count(":")
        cell_of: dict[tuple[int, int], int] = {}
        names = {}
        for name in self.below(node):
            rest, value, cell = name[len(node) + 2 :], self.value(name), self.names[name].cell
            for at in range(value.shape[axis]):
                if (cell, at) not in cell_of:
                    self.created += 1
                    cell_of[cell, at] = self.created
                    self.cells[self.created] = np.take(value, at, axis)
                names[f"{node}/{at}{rest}"] = Name(cell_of[cell, at])
        for name in self.below(node):
            self.remove(name)
        self.names.update(names)


def _layers(segments, value, axis):
    """The value under each spelling of a path in which some `:` are numbers."""
    if ":" not in segments:
        yield "/".join(segments), value
        return
    at = segments.index(":")
    before, after = segments[:at], segments[at + 1 :]
    for path, part in _layers(after, value, axis + 1):
        yield "/".join([*before, ":", *([path] if path else [])]), part
    for number in range(value.shape[axis]):
        for path, part in _layers(after, np.take(value, number, axis), axis):
            yield "/".join([*before, str(number), *([path] if path else [])]), part
