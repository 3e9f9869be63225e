"""What flows into each layer of a model, found without computing: the shapes of inputs, and features that are read flattened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from ... import nn
from ..._draw import abstract
from ..._paths import STACKED
from ..._tree import PyTree, Tree
from ...nn import Layer
from ...nn._container import CallPart, Container
from ...nn._layer import Params, layers_in
from .framework import Shape

_OVER_SPACE = (nn.Conv, nn.ConvTranspose, nn.MaxPool, nn.AvgPool)
_EACH_FEATURE = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm)
_KEEP_ORDER = (*_EACH_FEATURE, nn.Dropout, nn.Lambda)


@dataclass(frozen=True)
class _Layout:
    """How the axes of a value lie."""

    has_space: bool
    """Whether it has axes of space, which other frameworks have after the channels."""
    flattened: Shape | None = None
    """The sizes (space..., channels) that its last axis was flattened from."""


class DataFlow:
    """The inputs of the layers inside of a model, by `id` of the layer; of what layers of one's own call, nothing is known."""

    def __init__(self, net: Layer, spec: Tree, inputs: Sequence[PyTree]):
        self.input_shapes: dict[int, Shape] = {}
        self.flattened: dict[int, Shape] = {}
        """The layers that read flattened features of several axes -> the sizes (space..., channels)."""
        self._layouts: dict[int, _Layout] = {}
        # an `id` holds as long as its object is there
        self._values: list[PyTree] = []
        if len(inputs) == 1:
            jax.eval_shape(lambda params, x: self._called(net, params, x), abstract(spec), inputs[0])
        else:
            self._note_input(net, inputs[0])
        self._values.clear()

    def _called(self, layer: Layer, params: Params, x: PyTree) -> PyTree:
        self._note_input(layer, x)
        y = self._output(layer, params, x)
        layout = self._layout_after(layer, x, y)
        self._layouts[id(y)] = layout
        self._values.append(y)
        return y

    def _note_input(self, layer: Layer, x: PyTree) -> None:
        shape = _shape(x)
        if shape is not None:
            self.input_shapes.setdefault(id(layer), shape)

    def _output(self, layer: Layer, params: Params, x: PyTree) -> PyTree:
        if isinstance(layer, nn.Repeat):
            # each repetition has an input of the same shape, so the first one tells all
            ((_, inner),) = layers_in(layer)
            return self._called(inner, params if layer.shared else _of_first_repetition(params), x)
        if isinstance(layer, Container):
            y, _ = layer.run(params, x, self._call_of())
            return y
        return layer(params, x)

    def _call_of(self) -> CallPart:
        def call(name: str, layer: Layer, x: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            return self._called(layer, params.get(name, Tree()), x), params

        return call

    def _layout_after(self, layer: Layer, x: PyTree, y: PyTree) -> _Layout:
        shape, after = _shape(x), _shape(y)
        if shape is None or after is None:
            return _Layout(False)
        before = self._layouts.get(id(x), _Layout(len(shape) >= 4))
        if isinstance(layer, Container) and id(y) in self._layouts:  # what its last part gives
            return self._layouts[id(y)]
        if _holds_convolution(layer):
            return _Layout(len(after) > 2)
        if isinstance(layer, nn.Flatten):
            has_order = before.has_space and len(shape) > 2 and math.prod(shape[1:-1]) > 1 and shape[-1] > 1
            return _Layout(False, shape[1:] if has_order else None)
        if before.flattened is None:
            return _Layout(before.has_space and len(after) == len(shape))
        if isinstance(layer, (nn.Dense, *_EACH_FEATURE)) and shape[-1] == math.prod(before.flattened):
            self.flattened[id(layer)] = before.flattened
        is_kept = isinstance(layer, _KEEP_ORDER) and shape == after
        return before if is_kept else _Layout(False)


def _holds_convolution(layer: Layer) -> bool:
    """Whether this layer, or one inside of it, goes over axes of space."""
    return isinstance(layer, _OVER_SPACE) or any(_holds_convolution(part) for _, part in layers_in(layer))


def _of_first_repetition(params: Params) -> Params:
    if STACKED in params:
        return jax.tree.map(lambda leaf: leaf[0], params[STACKED])
    return params.get("0", Tree())  # without parameters there is no node


def _shape(x: PyTree) -> Shape | None:
    shape = getattr(x, "shape", None)
    return shape if isinstance(shape, tuple) else None
