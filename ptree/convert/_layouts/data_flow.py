"""What flows through a model, found without computing: the shape of each layer's input, and the order of flattened features."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain, repeat

import jax

from ..._draw import abstract
from ..._errors import LayerError
from ..._shardings import as_traced
from ..._tree import PyTree, Tree, map_leaves
from ..._words import describe
from ...nn import Layer
from ...nn._layer import Params
from .axis_order import ChannelsFirst, ChannelsLast, Layout, channels_first_axes, constant, has_space
from .feature_order import FeatureOrder
from .flow_walk import FlowWalk
from .framework import Shape
from .model_layers import ModelLayers


class DataFlow:
    """The inputs of the layers inside a model, by path, and the order of features by path of parameter."""

    def __init__(self, net: Layer, spec: Tree, inputs: Sequence[PyTree]):
        self.input_shapes: dict[str, Shape] = {}
        self.order = FeatureOrder()
        self.untraced = ""
        """Why the model cannot be followed at all; empty if it can."""
        shapes, given = jax.tree.map(as_traced, (abstract(spec), inputs))
        try:
            traced = jax.make_jaxpr(lambda params, inputs: _output(net, params, inputs))(shapes, given)
        except LayerError:
            raise
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            what, _, _ = str(error).partition("\n")
            self.untraced = f"the order of features is not known, as JAX cannot trace the model: {what}"
            return
        layers = ModelLayers(net)
        paths = jax.tree.leaves(map_leaves(spec, lambda path, _: path))
        parameters = [constant(shape, [path]) for path, shape in zip(paths, _shapes(spec), strict=True)]
        arrays = jax.tree.leaves(inputs)
        # who reads the inputs is known after the first walk
        first = FlowWalk(layers)
        first.follow(traced, [*parameters, *map(_undecided, range(len(arrays)), arrays)])
        layouts = [
            _of_input(number, array, number in first.notes.channels_first_inputs) for number, array in enumerate(arrays)
        ]
        walk = FlowWalk(layers)
        walk.follow(traced, [*parameters, *layouts])
        self.order, self.input_shapes = walk.notes.order, walk.input_shapes


def _output(net: Layer, params: Params, inputs: Sequence[PyTree]) -> PyTree:
    """Call a model with the inputs that it declares its parameters for, such as the context of an attention."""
    arguments = inspect.signature(type(net).apply).parameters
    options: dict[str, PyTree] = {}
    positional: list[PyTree] = []
    names = chain(inspect.signature(net.declare).parameters, repeat(""))
    for name, value in zip(names, inputs, strict=False):
        if name in arguments and arguments[name].kind is inspect.Parameter.KEYWORD_ONLY:
            options[name] = value
        else:
            positional.append(value)
    return net(params, *positional, **options)


def _shapes(spec: Tree) -> list[Shape]:
    return [leaf.shape for leaf in jax.tree.leaves(abstract(spec))]


def _undecided(number: int, array: PyTree) -> Layout:
    """The layout of an input before it is known which layers read it."""
    axes = channels_first_axes(array.shape)
    return ChannelsFirst(axes, inputs=frozenset((number,))) if has_space(axes) else ChannelsLast()


def _of_input(number: int, array: PyTree, is_read_as_channels: bool) -> Layout:
    """The layout of an input: an image has its channels first or last in the other framework, a sequence has them last.

    A convolution, a pool or a norm of channels that reads it shows that it may have them first.
    """
    axes = channels_first_axes(array.shape)
    is_image = len(array.shape) > 3
    if not has_space(axes) or not (is_image or is_read_as_channels):
        return ChannelsLast()
    doubt = f"the input {describe(array)} may have its channels first or last there"
    if not is_image:
        doubt = "the input is flattened, and another layer has its channels first there"
    return ChannelsFirst(axes, doubt, frozenset((number,)))
