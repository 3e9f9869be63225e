"""FlowNotes: what is found of a model's parameters while its steps are followed: the order of their features, and refusals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ... import nn
from .axis_order import (
    ChannelsFirst,
    ChannelsLast,
    Constant,
    Layout,
    UnknownOrderError,
    flattened_sizes,
    has_channels_in_one_axis,
)
from .feature_order import FeatureOrder
from .model_layers import ModelLayers

_WITH_CHANNELS_LAST = (nn.Dense, nn.Embedding, nn.LSTM, nn.GRU, nn.RNN, nn.MultiHeadAttention)
"""Layers whose matrices give features that are last there too."""

_OUT_OF_ORDER = (
    "it goes with features that are flattened in another order there, and is used transposed, sliced or in a product"
)


class FlowNotes:
    """The order of the features that each parameter goes with, and the inputs that are read with channels first."""

    def __init__(self, layers: ModelLayers):
        self.order = FeatureOrder()
        self.channels_first_inputs: set[int] = set()
        """The inputs that a convolution, a pool or a norm of channels reads, by number."""
        self._layers = layers
        self._out_of_order: set[str] = set()
        """The parameters that are used transposed too, or in another way."""

    def note(self, parameter: Constant, layout: Layout, read: Sequence[int]) -> None:
        """Note that a parameter goes with the features in these axes."""
        try:
            sizes = flattened_sizes(layout, read)
        except UnknownOrderError as error:
            self.refuse(parameter.leaves, f"the order there of the features that it reads is not known: {error}")
            return
        if parameter.is_in_order:
            for leaf in self._single(parameter.leaves):
                self.order.note(leaf, sizes)
            return
        self._out_of_order.update(self._single(parameter.leaves))
        if sizes is not None:
            self.refuse(parameter.leaves, _OUT_OF_ORDER)

    def note_channels_first(self, layout: Layout, readers: Sequence[str]) -> None:
        """Note what a layer with channels first reads, whose parameters are `readers`."""
        if isinstance(layout, ChannelsLast) and layout.divided:
            self._refuse_image(layout, readers)
        if isinstance(layout, ChannelsFirst) and has_channels_in_one_axis(layout):
            self.channels_first_inputs.update(layout.inputs)

    def _refuse_image(self, layout: ChannelsLast, readers: Sequence[str]) -> None:
        """Refuse an image that was made of a vector: the layer that gave the vector; of an input the layer that reads it."""
        reason = made_an_image(layout)
        if layout.writers:
            self.refuse(layout.writers, f"its output {reason}")
            return
        self.refuse(
            readers,
            f"an input of the model {reason}. If the module permutes it after the reshape, or is given its features in its own"
            " order, the rows of this layer are the usual ones",
        )

    def refuse(self, leaves: Iterable[str], reason: str) -> None:
        for leaf in self._single(leaves):
            self.order.refuse(leaf, reason)

    def refuse_out_of_order(self) -> None:
        """Refuse, at the end, the parameters that go with flattened features in one place and are used in another way elsewhere."""
        for leaf in self._out_of_order:
            if self.order.sizes_at(leaf) is not None:
                self.order.refuse(leaf, _OUT_OF_ORDER)

    def has_channels_last(self, leaves: Iterable[str]) -> bool:
        """Whether parameters are of a layer whose features are last there too."""
        return any(isinstance(self._layers.owner(leaf)[1], _WITH_CHANNELS_LAST) for leaf in self._single(leaves))

    def _single(self, leaves: Iterable[str]) -> list[str]:
        return [single for leaf in leaves for single in self._layers.single(leaf)]


def made_an_image(layout: ChannelsLast) -> str:
    """The end of a sentence about a vector whose last axis was divided."""
    line = f" at {layout.line}" if layout.line else ""
    return f"is reshaped to an image or a sequence{line}, whose features have another order there if channels come first in the reshape"
