"""Walk through the layers of a model and give the rows of each: names in another framework, paths here, operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ..._edit import get, paths
from ..._paths import STACKED, escape, join
from ..._tree import Tree, aliases
from ..._words import quoted
from ...nn import BatchNorm, Dense, GroupNorm, Layer, LayerNorm, Repeat, RMSNorm
from ...nn._layer import layers_in
from .._table.names import NamePattern
from .._table.row import Row
from .data_flow import DataFlow
from .framework import PARAMETERS, Framework, LayerRow, NoEqualError, Place, Shape, quoted_names
from .layer_forms import LayerForms
from .model_layers import of_repetition
from .module_names import ModuleNames
from .repeated_rows import folded


@dataclass(frozen=True)
class _Leaf:
    """A leaf of the model: its shape in a single layer, and whether it is a further name of another leaf."""

    shape: Shape
    first: str
    """The path of the leaf in the model's arrays: of a further name the path of the first."""
    is_alias: bool


_Leaves = Mapping[str, _Leaf]
"""Paths in a layer -> leaves, with those of layers inside."""


@dataclass(frozen=True)
class _LayerNode:
    """A layer in the tree of the model's layers."""

    layer: Layer
    path: str
    leaves: _Leaves
    module: str


@dataclass(frozen=True)
class Walk:
    """Gives the rows of all layers of a model."""

    framework: Framework
    names: ModuleNames
    forms: LayerForms
    flow: DataFlow
    covered: Sequence[NamePattern]
    """Patterns of the paths that other rows give."""
    is_pair: bool
    """Whether the framework has the model's parameters and statistics as a pair."""

    def rows(self, net: Layer, spec: Tree) -> Iterator[Row | str]:
        """A row for each array of the framework; or a sentence why there is none."""
        tied = aliases(spec)
        leaves: dict[str, _Leaf] = {}
        for path in paths(spec, aliases=True):
            first = tied[path].source if path in tied else path
            leaves[path] = _Leaf(tuple(get(spec, path).shape), first, path in tied)
        return self._rows_of(_LayerNode(net, "", leaves, self.names.root))

    def _rows_of(self, node: _LayerNode) -> Iterator[Row | str]:
        if all(self._is_covered(join(node.path, leaf)) for leaf in node.leaves):
            return
        refusal = self._refusal(node)
        if refusal is not None:
            yield (
                f"{_described(node)} in {self.framework.title}: {refusal}. Give its rows in own={{...}}, with"
                " `flatten_order` where features have another order there"
            )
            return
        is_alias = all(leaf.is_alias for leaf in node.leaves.values())
        if is_alias and not self.framework.names_shared_twice:
            return
        try:
            found = self._rows_by_rule(node)
        except NoEqualError as error:
            yield f"{_described(node)} in {self.framework.title}: {error}"
            return
        for row in found:
            yield from self._written(node, row)
        given = {target for row in found for target in row.targets}
        rest = {path: leaf for path, leaf in node.leaves.items() if path not in given}
        yield from self._rows_of_parts(node, rest)

    def _rows_by_rule(self, node: _LayerNode) -> Sequence[LayerRow]:
        """The rows of the layer itself; none for layers that hold others, and for layers of your own.

        Raises:
            NoEqualError: the framework has no such layer, or not in this form.
        """
        rule = self.framework.rule_of(node.layer)
        form = self.forms.form_of(node.path, node.layer)
        if rule is None:
            return []
        shapes = {path: leaf.shape for path, leaf in node.leaves.items()}
        place = Place(
            node.layer, shapes, node.module, self._named_parts(node),
            self.flow.input_shapes.get(node.path), self._flattened(node), form,
        )  # fmt: skip
        return rule(place)

    def _named_parts(self, node: _LayerNode) -> dict[str, str]:
        """The parts of the layer that have a module of their own in `names`."""
        named: dict[str, str] = {}
        for part in dict.fromkeys(leaf.partition("/")[0] for leaf in node.leaves if "/" in leaf):
            module = self.names.module_of(join(node.path, part))
            if module is not None:
                named[part] = module
        return named

    def _flattened(self, node: _LayerNode) -> Shape | None:
        """The sizes of the features that the layer reads flattened, where their order is another one."""
        if not self.framework.has_channels_first:
            return None
        sizes = [self.flow.order.sizes_at(leaf.first) for leaf in node.leaves.values()]
        return next((each for each in sizes if each is not None), None)

    def _refusal(self, node: _LayerNode) -> str | None:
        """Why the rows of a layer are not known, where `own` does not give those that depend on the order of features."""
        if not self.framework.has_channels_first or self.framework.rule_of(node.layer) is None:
            return None
        uncovered = [leaf for path, leaf in node.leaves.items() if not self._is_covered(join(node.path, path))]
        for leaf in uncovered:
            reason = self.flow.untraced or self.flow.order.refusal_at(leaf.first)
            if reason:
                return reason
        is_flattened = any(self.flow.order.sizes_at(leaf.first) is not None for leaf in uncovered)
        if is_flattened and not _has_rows_in_order(node.layer):
            return "it reads features that are flattened in another order there"
        return None

    def _written(self, node: _LayerNode, row: LayerRow) -> Iterator[Row | str]:
        """The row with whole names and paths, unless other rows give what it gives."""
        targets = [join(node.path, target) for target in row.targets]
        covered = [target for target in targets if self._is_covered(target)]
        module = node.module if row.module is None else row.module
        collection = row.collection or (PARAMETERS if self.is_pair else "")
        names = [self.framework.name(collection, module, source) for source in row.sources]
        if not covered:
            yield Row(_literals(names), _literals(targets), row.operation)
        elif len(covered) < len(targets):
            yield (
                f"own has a row for {quoted_names(covered)}, and {quoted_names(names)} gives {quoted_names(targets)} together:"
                " write rows for all of them"
            )

    def _is_covered(self, path: str) -> bool:
        return any(pattern.read(path) is not None for pattern in self.covered)

    def _rows_of_parts(self, node: _LayerNode, rest: _Leaves) -> Iterator[Row | str]:
        """The rows of the layers inside, and a sentence for leaves that no layer inside has."""
        inside = [*self._parts(node, rest)]
        rows = [[*self._rows_of(part.node)] for part in inside]
        if isinstance(node.layer, Repeat):
            yield from folded(rows)
        else:
            yield from chain.from_iterable(rows)
        of_parts = {path for part in inside for path in part.paths}
        unknown = [join(node.path, leaf) for leaf in rest if leaf not in of_parts]
        unknown = [path for path in unknown if not self._is_covered(path)]
        if unknown:
            yield (
                f"{_described(node)}: the layout of {quoted_names(sorted(unknown))} in {self.framework.title} is not known: say it"
                " in own={name there: path, or (path, operation)}"
            )

    def _parts(self, node: _LayerNode, rest: _Leaves) -> Iterator[_Inside]:
        """The layers inside that have some of these leaves; a repeated layer once for each repetition."""
        if isinstance(node.layer, Repeat):
            yield from self._repetitions(node, node.layer, rest)
            return
        for name, part in layers_in(node.layer):
            leaves = _below(rest, name)
            if leaves:
                path = join(node.path, name)
                yield _Inside(_LayerNode(part, path, leaves, self._module(node, name)), _with_prefix(leaves, name))

    def _repetitions(self, node: _LayerNode, repeat: Repeat, rest: _Leaves) -> Iterator[_Inside]:
        ((_, part),) = layers_in(repeat)
        if repeat.shared:
            yield _Inside(replace(node, layer=part, leaves=rest), {*rest})
            return
        stacked = _below(rest, STACKED)
        for at in range(repeat.n):
            number = str(at)
            leaves = {path: _of_layer(leaf, at) for path, leaf in stacked.items()} or _below(rest, number)
            inside = _LayerNode(part, join(node.path, number), leaves, self._module(node, number))
            yield _Inside(inside, _with_prefix(leaves, STACKED if stacked else number))

    def _module(self, node: _LayerNode, part: str) -> str:
        named = self.names.module_of(join(node.path, part))
        return self.framework.part_path(node.module, node.layer, part) if named is None else named


@dataclass(frozen=True)
class _Inside:
    """A layer inside of another, and the paths of its leaves in that."""

    node: _LayerNode
    paths: set[str]


def _of_layer(leaf: _Leaf, number: int) -> _Leaf:
    """A leaf of one layer of a stack."""
    return replace(leaf, shape=leaf.shape[1:], first=of_repetition(leaf.first, number))


def _has_rows_in_order(layer: Layer) -> bool:
    """Whether the layer's arrays can be put into another order of the features that it reads."""
    if isinstance(layer, Dense):
        return not isinstance(layer.axis, tuple) or len(layer.axis) == 1
    if not isinstance(layer, (LayerNorm, RMSNorm)):
        return isinstance(layer, (BatchNorm, GroupNorm))
    return layer.axis in (-1, (-1,)) and layer.feature_axes in (None, -1, (-1,))


def _below(leaves: _Leaves, name: str) -> dict[str, _Leaf]:
    """The leaves of a part, by their paths in it."""
    start = f"{name}/"
    return {path.removeprefix(start): leaf for path, leaf in leaves.items() if path.startswith(start)}


def _with_prefix(paths_inside: Iterable[str], name: str) -> set[str]:
    return {f"{name}/{path}" for path in paths_inside}


def _literals(names: Iterable[str]) -> tuple[NamePattern, ...]:
    return tuple(NamePattern(escape(name)) for name in names)


def _described(node: _LayerNode) -> str:
    """The layer for a message: its path and its class."""
    path = quoted(node.path) if node.path else "the model"
    return f"{path}, {type(node.layer).__name__}"
