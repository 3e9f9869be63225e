"""What flows into each layer of a model, found without computing: the shapes of inputs, and the order of flattened features.

Only layers in lists of this file, and functions whose steps can be followed, pass an order on; after all others it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax

from ... import nn
from ..._draw import abstract
from ..._paths import STACKED, join
from ..._tree import PyTree, Tree
from ..._words import describe, quoted
from ...nn import Layer
from ...nn._container import CallPart, Container
from ...nn._layer import Foreign, Params, layers_in
from .axis_order import (
    CHANNELS,
    ChannelsFirst,
    ChannelsLast,
    Layout,
    Unknown,
    UnknownOrderError,
    channels_first,
    decided,
    doubtful,
    flattened_sizes,
    follows_input,
    has_channels_in_one_axis,
    has_mixed_axes,
    of_input,
)
from .feature_order import FeatureOrder, is_at_or_below
from .framework import Shape
from .function_axes import axes_after, goes_over_space

_CONVOLUTIONS = (nn.Conv, nn.ConvTranspose)
_POOLS = (nn.MaxPool, nn.AvgPool)
_NORMS_OF_CHANNELS = (nn.BatchNorm, nn.GroupNorm)
_NORMS_OF_LAST_AXIS = (nn.LayerNorm, nn.RMSNorm)
_CHANNELS_LAST = (
    nn.Dense, nn.Embedding, nn.LSTM, nn.GRU, nn.RNN, nn.Bidirectional, nn.MultiHeadAttention,
)  # fmt: skip
_WITH_ROWS_IN_ORDER = (nn.Dense, nn.BatchNorm, nn.GroupNorm, *_NORMS_OF_LAST_AXIS)
"""The layers whose arrays can be put into another order of the features that they read."""
_READS_NO_FEATURES = (nn.Embedding, nn.Flatten, nn.Dropout, nn.Lambda, *_POOLS)


class DataFlow:
    """The inputs of the layers inside a model, by path; layers that a layer of one's own calls are not seen."""

    def __init__(self, net: Layer, spec: Tree, inputs: Sequence[PyTree]):
        self.input_shapes: dict[str, Shape] = {}
        self.order = FeatureOrder()
        self._layouts: dict[int, Layout] = {}
        # an `id` holds as long as its object is there
        self._values: list[PyTree] = []
        if len(inputs) == 1:
            jax.eval_shape(lambda params, x: self._of_input(net, params, x), abstract(spec), inputs[0])
        else:
            self._note_input("", inputs[0])
        self._values.clear()

    def _of_input(self, net: Layer, params: Params, x: PyTree) -> PyTree:
        arrays = [leaf for leaf in jax.tree.leaves(x) if _shape(leaf) is not None]
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
        self._keep_output(y, _after(path, layer, params, x, y, before))
        return y

    def _call_of(self, path: str, repetition: tuple[int, ...], outer: Layout, outputs: list[PyTree]) -> CallPart:
        def call(name: str, layer: Layer, x: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            if id(x) not in self._layouts:  # computed by a container of one's own
                self._keep(x, _after_unseen(path, outer))
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
        return self._layouts.get(id(y)) or _after_unseen(_named(path, layer), self._layout_of(x))

    def _combined(self, path: str, layer: nn.Residual | nn.Parallel, branches: Sequence[PyTree], y: PyTree) -> Layout:
        """The layout of branches that are added up or combined by a function."""
        layouts = decided([self._layout_of(branch) for branch in branches])
        if all(layout == layouts[0] for layout in layouts) and _is_sum(layer):
            return layouts[0]
        if all(isinstance(layout, ChannelsLast) for layout in layouts):
            return ChannelsLast()
        reason = f"{_named(path, layer)}, adds up or combines branches with features in different orders"
        function = layer.combine if isinstance(layer, nn.Parallel) and layer.combine is not None else _sum
        layout = _after_function(function, branches, layouts, y, reason)
        if isinstance(layout, Unknown) and any(map(has_mixed_axes, layouts)):
            self.order.refuse(path, layout.reason)
        return layout

    def _read(self, path: str, layer: Layer, x: PyTree, before: Layout, repetition: tuple[int, ...]) -> None:
        """Note the order of the features that a layer reads."""
        if _shape(x) is None or isinstance(layer, _READS_NO_FEATURES):
            return
        try:
            sizes = flattened_sizes(before, _features_in(layer))
        except UnknownOrderError as error:
            self.order.refuse(path, f"the order there of the features that it reads is not known: {error}")
            return
        can_be_ordered = isinstance(layer, _WITH_ROWS_IN_ORDER) and not _is_over_axes(layer)
        if sizes is not None and not can_be_ordered:
            self.order.refuse(path, "it reads features that are flattened in another order there")
        elif sizes is not None and isinstance(layer, nn.GroupNorm) and layer.groups > 1:
            self.order.refuse(path, "its groups are of other features there, as these are flattened in another order")
        else:
            self.order.note(path, layer._object(), repetition, sizes)

    def _note_input(self, path: str, x: PyTree) -> None:
        shape = _shape(x)
        if shape is not None:
            self.input_shapes.setdefault(path, shape)

    def _layout_of(self, x: PyTree) -> Layout:
        return self._layouts[id(x)]

    def _keep_output(self, y: PyTree, layout: Layout) -> None:
        if _shape(y) is None:
            for leaf in jax.tree.leaves(y):
                self._keep(leaf, layout)
        self._keep(y, layout)

    def _keep(self, value: PyTree, layout: Layout) -> None:
        self._layouts[id(value)] = layout
        self._values.append(value)


def _of_input(x: PyTree) -> Layout:
    shape = _shape(x)
    if shape is not None:
        return of_input(shape, f"the input {describe(x)} may have its channels first or last there")
    arrays = [leaf for leaf in jax.tree.leaves(x) if _shape(leaf) is not None]
    has_images = any(len(leaf.shape) > 3 for leaf in arrays)
    return Unknown("the input is a tree of several arrays") if has_images else ChannelsLast()


def _after(path: str, layer: Layer, params: Params, x: PyTree, y: PyTree, before: Layout) -> Layout:
    """The layout of what a single layer returns."""
    kind, shape, after = type(layer), _shape(x), _shape(y)
    named = _named(path, layer)
    if isinstance(layer, nn.Lambda):
        return _after_function(
            layer.function, [x], [before], y, f"{named}, does not keep an order that can be followed"
        )
    if kind in _CHANNELS_LAST:
        return ChannelsLast()
    if shape is None or after is None:
        return _after_unseen(named, before)
    if kind in _CONVOLUTIONS:
        has_one_batch_axis = len(after) == _rank_with_batch(params)
        return channels_first(after) if has_one_batch_axis else doubtful(after, f"{named}, has not one axis of batch")
    if kind is nn.Dropout:
        return before
    if kind is nn.Flatten:
        return _after_flatten(before, after)
    if kind in _POOLS:
        return _after_channels(named, before, after)
    if kind in _NORMS_OF_CHANNELS:
        return _after_norm_of_channels(named, layer, before, after)
    if kind in _NORMS_OF_LAST_AXIS:
        return _after_last_axis(named, layer, before, after)
    return _after_own(named, layer, before, after)


def _after_flatten(before: Layout, after: Shape) -> Layout:
    if not isinstance(before, ChannelsFirst):
        return before
    batch, *features = before.axes
    return replace(before, axes=(batch, tuple(axis for axes in features for axis in axes))[: len(after)])


def _after_norm_of_channels(named: str, layer: Layer, before: Layout, after: Shape) -> Layout:
    """The layout after a norm of each channel, or of groups of them, which other frameworks have over channels that come first."""
    if isinstance(layer, nn.GroupNorm) and layer.groups > 1 and has_mixed_axes(before):
        return Unknown(f"{named}, has groups of flattened features")
    if len(after) == 2 or has_mixed_axes(before):
        return before
    return _after_channels(named, before, after)


def _after_channels(named: str, before: Layout, after: Shape) -> Layout:
    """The layout after a layer with channels first there."""
    if isinstance(before, Unknown):
        return before
    if has_mixed_axes(before):
        return Unknown(f"{named}, goes over flattened features")
    if isinstance(before, ChannelsFirst) and has_channels_in_one_axis(before):
        return channels_first(after)
    # after a sequence, which is turned there before and perhaps after it
    return doubtful(after, f"{named}, reads channels first there, and its input may have them last")


def _after_last_axis(named: str, layer: Layer, before: Layout, after: Shape) -> Layout:
    """The layout after a norm over the last axis, which other frameworks have last too."""
    if not isinstance(before, ChannelsFirst) or len(after) == 2 or has_mixed_axes(before) or _is_over_axes(layer):
        return before
    if before.is_input:
        return ChannelsLast()
    return doubtful(after, f"{named}, reads channels last there, and its input may have them first")


def _after_own(named: str, layer: Layer, before: Layout, after: Shape) -> Layout:
    """The layout after a layer of one's own."""
    reason = f"{named}, is a layer of your own"
    is_last = isinstance(before, ChannelsLast) or follows_input(before)
    if is_last and not isinstance(layer, Foreign) and not _holds_channels_first(layer):
        return ChannelsLast()
    if isinstance(before, ChannelsFirst) and len(before.axes) == len(after) > 2 and has_channels_in_one_axis(before):
        return doubtful(after, reason)
    return Unknown(reason)


def _after_function(
    function: Callable[..., PyTree], inputs: Sequence[PyTree], layouts: Sequence[Layout], y: PyTree, reason: str
) -> Layout:
    """The layout of what a function returns, which the other framework has as the same steps on its own axes."""
    unknown = [layout for layout in layouts if isinstance(layout, Unknown)]
    if unknown:
        return unknown[0]
    is_last = all(isinstance(layout, ChannelsLast) or follows_input(layout) for layout in layouts)
    if is_last and goes_over_space(function, inputs):
        return Unknown(reason)
    if all(isinstance(layout, ChannelsLast) for layout in layouts):
        return ChannelsLast()
    otherwise = ChannelsLast() if is_last else Unknown(reason)
    if _shape(y) is None or any(_shape(value) is None for value in inputs):
        return otherwise
    known = [_as_channels_first(layout, value, reason) for layout, value in zip(layouts, inputs, strict=True)]
    axes = axes_after(function, inputs, [layout.axes for layout in known])
    if axes is None:
        return otherwise
    # an input is added to what has its channels first there only if it has them first too
    deciding = [layout for layout in known if not layout.is_input] or known
    least_certain = min(deciding, key=lambda layout: layout.is_certain)
    return replace(least_certain, axes=axes)


def _as_channels_first(layout: Layout, value: PyTree, reason: str) -> ChannelsFirst:
    """The layout by axes; for vectors of features both layouts are the same."""
    if isinstance(layout, ChannelsFirst):
        return layout
    natural = channels_first(_shape(value) or ())
    has_space = any(axis.position > CHANNELS for axes in natural.axes for axis in axes)
    return replace(natural, doubt=reason, is_certain=not has_space)


def _after_unseen(reason: str, before: Layout) -> Layout:
    return before if isinstance(before, ChannelsLast) else Unknown(reason)


def _sum(first: jax.Array, *others: jax.Array) -> jax.Array:
    return sum(others, first)


def _is_sum(layer: Layer) -> bool:
    return not isinstance(layer, nn.Parallel) or layer.combine is None


def _is_over_axes(layer: Layer) -> bool:
    """Whether a norm is over other axes than the last one alone."""
    if not isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return False
    return layer.axis not in (-1, (-1,)) or layer.feature_axes not in (None, -1, (-1,))


def _features_in(layer: Layer) -> int:
    """How many of the last axes of its input a layer reads as features."""
    return len(layer.axis) if isinstance(layer, nn.Dense) and isinstance(layer.axis, tuple) else 1


def _rank_with_batch(params: Params) -> int:
    """How many axes the input of a convolution has, with one of batch."""
    return len(params["kernel"].shape)


def _holds_channels_first(layer: Layer) -> bool:
    """Whether a layer inside has its channels first in the other framework."""
    inside = [part for _, part in layers_in(layer)]
    kinds = (*_CONVOLUTIONS, *_POOLS, *_NORMS_OF_CHANNELS, Foreign)
    return any(isinstance(part, kinds) or _holds_channels_first(part) for part in inside)


def _of_repetition(params: Params, number: int) -> Params:
    if STACKED in params:
        return jax.tree.map(lambda leaf: leaf[number], params[STACKED])
    return params.get(str(number), Tree())  # without parameters there is no node


def _named(path: str, layer: Layer) -> str:
    return f"{quoted(path)}, {layer if isinstance(layer, nn.Lambda) else type(layer).__name__}"


def _shape(x: PyTree) -> Shape | None:
    shape = getattr(x, "shape", None)
    return shape if isinstance(shape, tuple) else None
