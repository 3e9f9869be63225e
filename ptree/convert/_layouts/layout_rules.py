"""The layout of what each layer returns: known layers and functions that can be followed keep an order, all others do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax

from ... import nn
from ..._tree import PyTree
from ..._words import quoted
from ...nn import Layer
from ...nn._layer import Foreign, Params, layers_in
from .axis_order import (
    CHANNELS,
    ChannelsFirst,
    ChannelsLast,
    Layout,
    Unknown,
    channels_first,
    doubtful,
    follows_input,
    has_channels_in_one_axis,
    has_mixed_axes,
)
from .framework import Shape
from .function_axes import axes_after, goes_over_space

CONVOLUTIONS = (nn.Conv, nn.ConvTranspose)
POOLS = (nn.MaxPool, nn.AvgPool)
NORMS_OF_CHANNELS = (nn.BatchNorm, nn.GroupNorm)
NORMS_OF_LAST_AXIS = (nn.LayerNorm, nn.RMSNorm)
CHANNELS_LAST = (
    nn.Dense, nn.Embedding, nn.LSTM, nn.GRU, nn.RNN, nn.Bidirectional, nn.MultiHeadAttention,
)  # fmt: skip


def layout_after(path: str, layer: Layer, params: Params, x: PyTree, y: PyTree, before: Layout) -> Layout:
    """The layout of what a single layer returns."""
    kind, shape, after = type(layer), shape_of(x), shape_of(y)
    named = named_layer(path, layer)
    if kind in CHANNELS_LAST:
        return ChannelsLast()
    if shape is None or after is None:
        return layout_after_unseen(named, before)
    if kind in CONVOLUTIONS:
        has_one_batch_axis = len(after) == _rank_with_batch(params)
        return channels_first(after) if has_one_batch_axis else doubtful(after, f"{named}, has not one axis of batch")
    if kind is nn.Dropout:
        return before
    if kind is nn.Flatten:
        return _after_flatten(before, after)
    if kind in POOLS:
        return _after_channels(named, before, after)
    if kind in NORMS_OF_CHANNELS:
        return _after_norm_of_channels(named, layer, before, after)
    if kind in NORMS_OF_LAST_AXIS:
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
    if not isinstance(before, ChannelsFirst) or len(after) == 2 or has_mixed_axes(before) or is_over_axes(layer):
        return before
    if before.is_input:
        return ChannelsLast()
    return doubtful(after, f"{named}, reads channels last there, and its input may have them first")


def _after_own(named: str, layer: Layer, before: Layout, after: Shape) -> Layout:
    """The layout after a layer of your own."""
    reason = f"{named}, is a layer of your own"
    is_last = isinstance(before, ChannelsLast) or follows_input(before)
    if is_last and not isinstance(layer, Foreign) and not _holds_channels_first(layer):
        return ChannelsLast()
    if isinstance(before, ChannelsFirst) and len(before.axes) == len(after) > 2 and has_channels_in_one_axis(before):
        return doubtful(after, reason)
    return Unknown(reason)


def layout_after_function(
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
    arrays = jax.tree.leaves(inputs)
    if shape_of(y) is None or len(arrays) != len(layouts):
        return otherwise
    known = [_as_channels_first(layout, value, reason) for layout, value in zip(layouts, arrays, strict=True)]
    if any(isinstance(layout, ChannelsLast) for layout in layouts):
        known = [_with_one_axis_of_places(layout, value) for layout, value in zip(known, arrays, strict=True)]
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
    natural = channels_first(shape_of(value) or ())
    has_space = any(axis.position > CHANNELS for axes in natural.axes for axis in axes)
    return replace(natural, doubt=reason, is_certain=not has_space)


def _with_one_axis_of_places(layout: ChannelsFirst, value: PyTree) -> ChannelsFirst:
    """The layout with tokens as one axis, as sequences have them that were never images."""
    if not has_channels_in_one_axis(layout):
        return layout
    return replace(layout, axes=channels_first(shape_of(value) or ()).axes)


def layout_after_unseen(reason: str, before: Layout) -> Layout:
    return before if isinstance(before, ChannelsLast) else Unknown(reason)


def is_over_axes(layer: Layer) -> bool:
    """Whether a norm is over other axes than the last one alone."""
    if not isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return False
    return layer.axis not in (-1, (-1,)) or layer.feature_axes not in (None, -1, (-1,))


def _rank_with_batch(params: Params) -> int:
    """How many axes the input of a convolution has, with one of batch."""
    return len(params["kernel"].shape)


def _holds_channels_first(layer: Layer) -> bool:
    """Whether a layer inside has its channels first in the other framework."""
    inside = [part for _, part in layers_in(layer)]
    kinds = (*CONVOLUTIONS, *POOLS, *NORMS_OF_CHANNELS, Foreign)
    return any(isinstance(part, kinds) or _holds_channels_first(part) for part in inside)


def named_layer(path: str, layer: Layer) -> str:
    return f"{quoted(path)}, {layer if isinstance(layer, nn.Lambda) else type(layer).__name__}"


def shape_of(x: PyTree) -> Shape | None:
    shape = getattr(x, "shape", None)
    return shape if isinstance(shape, tuple) else None
