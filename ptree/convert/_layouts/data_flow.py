"""What flows into each layer of a model, found without computing: the shapes of inputs, and the order of flattened features."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from ... import nn
from ..._draw import abstract
from ..._paths import STACKED, join
from ..._tree import PyTree, Tree
from ..._words import describe
from ...nn import Layer
from ...nn._container import CallPart, Container
from ...nn._layer import Params, layers_in
from .axis_order import (
    ChannelsFirst,
    ChannelsLast,
    Layout,
    Unknown,
    UnknownOrderError,
    decided,
    flattened_sizes,
    has_channels_in_one_axis,
    has_mixed_axes,
    of_input,
)
from .feature_order import FeatureOrder, is_at_or_below
from .framework import Shape
from .layout_rules import (
    CONVOLUTIONS,
    NORMS_OF_CHANNELS,
    NORMS_OF_LAST_AXIS,
    POOLS,
    is_over_axes,
    layout_after,
    layout_after_function,
    layout_after_unseen,
    named_layer,
    shape_of,
)

_WITH_ROWS_IN_ORDER = (nn.Dense, nn.BatchNorm, nn.GroupNorm, *NORMS_OF_LAST_AXIS)
"""The layers whose arrays can be put into another order of the features that they read."""
_READS_NO_FEATURES = (nn.Embedding, nn.Flatten, nn.Dropout, nn.Lambda, *POOLS)


class DataFlow:
    """The inputs of the layers inside a model, by path; layers that a layer of your own calls are not seen."""

    def __init__(self, net: Layer, spec: Tree, inputs: Sequence[PyTree]):
        self.input_shapes: dict[str, Shape] = {}
        self.order = FeatureOrder()
        self._layouts: dict[int, Layout] = {}
        self._readers_of_input: list[str] = []
        """The layers that read the input flattened, which has its axes as here if no layer of channels reads it."""
        self._has_channels_first_input = False
        # an `id` holds as long as its object is there
        self._values: list[PyTree] = []
        if len(inputs) == 1:
            jax.eval_shape(lambda params, x: self._of_input(net, params, x), abstract(spec), inputs[0])
        else:
            self._note_input("", inputs[0])
        self._values.clear()
        if self._has_channels_first_input:
            for path in self._readers_of_input:
                self.order.refuse(path, "the input is flattened, and another layer has its channels first there")

    def _of_input(self, net: Layer, params: Params, x: PyTree) -> PyTree:
        arrays = [leaf for leaf in jax.tree.leaves(x) if shape_of(leaf) is not None]
        for array in (x, *arrays):
            self._keep(array, _of_input(array))
        return self._called("", net, params, x, ())

    def _called(self, path: str, layer: Layer, params: Params, x: PyTree, repetition: tuple[int, ...]) -> PyTree:
        """Call a layer at a path; `repetition` has the number in each Repeat around it."""
        self._note_input(path, x)
        before = self._layout_of(x)
        if isinstance(layer, nn.Repeat):
            return self._repeated(path, layer, params, x, repetition)
        if isinstance(layer, Container):
            outputs: list[PyTree] = []
            y, _ = layer.run(params, x, self._call_of(path, repetition, before, outputs))
            self._keep_output(y, self._after_container(path, layer, x, y, outputs))
            return y
        y = layer(params, x)
        self._read(path, layer, x, before, repetition)
        if type(layer) is nn.Lambda:
            self._keep_output(y, self._after_function(path, layer, x, y))
        else:
            self._keep_output(y, layout_after(path, layer, params, x, y, before))
        return y

    def _after_function(self, path: str, layer: nn.Lambda, x: PyTree, y: PyTree) -> Layout:
        reason = f"{named_layer(path, layer)}, does not keep an order that can be followed"
        layouts = [self._layouts.get(id(leaf), Unknown(reason)) for leaf in jax.tree.leaves(x)]
        return layout_after_function(layer.function, [x], layouts, y, reason)

    def _call_of(self, path: str, repetition: tuple[int, ...], outer: Layout, outputs: list[PyTree]) -> CallPart:
        def call(name: str, layer: Layer, x: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            if id(x) not in self._layouts:  # computed by a container of your own
                self._keep(x, layout_after_unseen(path, outer))
            y = self._called(join(path, name), layer, params.get(name, Tree()), x, repetition)
            outputs.append(y)
            return y, params

        return call

    def _repeated(self, path: str, repeat: nn.Repeat, params: Params, x: PyTree, outside: tuple[int, ...]) -> PyTree:
        ((_, inner),) = layers_in(repeat)
        for number in range(repeat.n):
            before = self._layout_of(x)
            inside = path if repeat.shared else join(path, str(number))
            numbers = outside if repeat.shared else (*outside, number)
            x = self._called(inside, inner, params if repeat.shared else _of_repetition(params, number), x, numbers)
            if self._layout_of(x) == before:  # all others are the same as this one
                if not repeat.shared:
                    self._copy(inside, [join(path, str(other)) for other in range(number + 1, repeat.n)])
                break
        return x

    def _copy(self, path: str, others: Sequence[str]) -> None:
        """Note for other repetitions what is noted for this one."""
        shapes = {inside: shape for inside, shape in self.input_shapes.items() if is_at_or_below(inside, path)}
        for other in others:
            self.input_shapes.update({other + inside.removeprefix(path): shape for inside, shape in shapes.items()})
            self.order.copy(path, other)

    def _after_container(self, path: str, layer: Container, x: PyTree, y: PyTree, outputs: Sequence[PyTree]) -> Layout:
        if type(layer) is nn.Residual:
            return self._combined(path, layer, [x, *outputs], y)
        if type(layer) is nn.Parallel:
            return self._combined(path, layer, outputs, y)
        return self._layouts.get(id(y)) or layout_after_unseen(named_layer(path, layer), self._layout_of(x))

    def _combined(self, path: str, layer: nn.Residual | nn.Parallel, branches: Sequence[PyTree], y: PyTree) -> Layout:
        """The layout of branches that are added up or combined by a function."""
        layouts = decided([self._layout_of(branch) for branch in branches])
        if all(layout == layouts[0] for layout in layouts) and _is_sum(layer):
            return layouts[0]
        if all(isinstance(layout, ChannelsLast) for layout in layouts):
            return ChannelsLast()
        reason = f"{named_layer(path, layer)}, adds up or combines branches with features in different orders"
        function = layer.combine if isinstance(layer, nn.Parallel) and layer.combine is not None else _sum
        layout = layout_after_function(function, branches, layouts, y, reason)
        if isinstance(layout, Unknown) and any(map(has_mixed_axes, layouts)):
            self.order.refuse(path, layout.reason)
        return layout

    def _read(self, path: str, layer: Layer, x: PyTree, before: Layout, repetition: tuple[int, ...]) -> None:
        """Note the order of the features that a layer reads."""
        if shape_of(x) is None:
            return
        self._note_reader_of_input(path, layer, before)
        if isinstance(layer, _READS_NO_FEATURES):
            return
        try:
            sizes = flattened_sizes(before, _features_in(layer))
        except UnknownOrderError as error:
            self.order.refuse(path, f"the order there of the features that it reads is not known: {error}")
            return
        can_be_ordered = isinstance(layer, _WITH_ROWS_IN_ORDER) and not is_over_axes(layer)
        if sizes is not None and not can_be_ordered:
            self.order.refuse(path, "it reads features that are flattened in another order there")
        elif sizes is not None and isinstance(layer, nn.GroupNorm) and layer.groups > 1:
            self.order.refuse(path, "its groups are of other features there, as these are flattened in another order")
        else:
            self.order.note(path, layer._object(), repetition, sizes)

    def _note_reader_of_input(self, path: str, layer: Layer, before: Layout) -> None:
        if not isinstance(before, ChannelsFirst) or not before.is_input:
            return
        if has_mixed_axes(before):
            self._readers_of_input.append(path)
        elif isinstance(layer, (*CONVOLUTIONS, *POOLS, *NORMS_OF_CHANNELS)) and has_channels_in_one_axis(before):
            self._has_channels_first_input = True

    def _note_input(self, path: str, x: PyTree) -> None:
        shape = shape_of(x)
        if shape is not None:
            self.input_shapes.setdefault(path, shape)

    def _layout_of(self, x: PyTree) -> Layout:
        return self._layouts[id(x)]

    def _keep_output(self, y: PyTree, layout: Layout) -> None:
        if shape_of(y) is None:
            for leaf in jax.tree.leaves(y):
                self._keep(leaf, layout)
        self._keep(y, layout)

    def _keep(self, value: PyTree, layout: Layout) -> None:
        self._layouts[id(value)] = layout
        self._values.append(value)


def _of_input(x: PyTree) -> Layout:
    shape = shape_of(x)
    if shape is not None:
        return of_input(shape, f"the input {describe(x)} may have its channels first or last there")
    arrays = [leaf for leaf in jax.tree.leaves(x) if shape_of(leaf) is not None]
    has_images = any(len(leaf.shape) > 3 for leaf in arrays)
    return Unknown("the input is a tree of several arrays") if has_images else ChannelsLast()


def _sum(first: jax.Array, *others: jax.Array) -> jax.Array:
    return sum(others, first)


def _is_sum(layer: Layer) -> bool:
    return not isinstance(layer, nn.Parallel) or layer.combine is None


def _features_in(layer: Layer) -> int:
    """How many of the last axes of its input a layer reads as features."""
    return len(layer.axis) if isinstance(layer, nn.Dense) and isinstance(layer.axis, tuple) else 1


def _of_repetition(params: Params, number: int) -> Params:
    if STACKED in params:
        return jax.tree.map(lambda leaf: leaf[number], params[STACKED])
    return params.get(str(number), Tree())  # without parameters there is no node
