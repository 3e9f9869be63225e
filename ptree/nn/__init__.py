"""Layers: frozen dataclasses with `spec(x)`, a Tree of `Param`, and a pure `__call__(params, x)`."""

__all__ = [
    "GRU", "LSTM", "AvgPool", "BatchNorm", "Conv", "ConvTranspose", "Dense", "Dropout", "Embedding", "Flatten", "GroupNorm",
    "Lambda", "Layer", "LayerNorm", "MaxPool", "MultiHeadAttention", "Parallel", "RMSNorm", "Repeat", "Residual",
    "Sequential",
]  # fmt: skip

# what every layer is
from ._layer import Layer as Layer

# layers with parameters
from ._linear import Dense as Dense
from ._linear import Embedding as Embedding
from ._conv import Conv as Conv
from ._conv import ConvTranspose as ConvTranspose
from ._norm import LayerNorm as LayerNorm
from ._norm import RMSNorm as RMSNorm
from ._norm import GroupNorm as GroupNorm
from ._norm import BatchNorm as BatchNorm
from ._attention import MultiHeadAttention as MultiHeadAttention
from ._recurrent import LSTM as LSTM
from ._recurrent import GRU as GRU

# layers without
from ._conv import MaxPool as MaxPool
from ._conv import AvgPool as AvgPool
from ._shape import Dropout as Dropout
from ._shape import Flatten as Flatten
from ._branches import Lambda as Lambda

# layers of layers
from ._sequential import Sequential as Sequential
from ._branches import Residual as Residual
from ._branches import Parallel as Parallel
from ._repeat import Repeat as Repeat
