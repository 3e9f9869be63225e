"""Layers: frozen dataclasses with `spec(x)`, a Tree of `Param`, and a pure `__call__(params, x)`."""

__all__ = ["Dense", "Dropout", "Embedding", "Flatten", "Layer", "LayerNorm", "Sequential"]

from ._layer import Layer as Layer
from ._linear import Dense as Dense
from ._linear import Embedding as Embedding
from ._norm import LayerNorm as LayerNorm
from ._sequential import Sequential as Sequential
from ._shape import Dropout as Dropout
from ._shape import Flatten as Flatten
