"""Layers: frozen dataclasses with `spec(x)`, a Tree of `Param`, and a pure call `layer(params, x)`."""

__all__ = [
    "GRU", "LSTM", "RNN", "AvgPool", "BatchNorm", "Bidirectional", "Conv", "ConvTranspose", "Dense", "Dropout", "Embedding",
    "Flatten", "GroupNorm", "Lambda", "Layer", "LayerNorm", "MaxPool", "MultiHeadAttention", "Parallel", "RMSNorm",
    "Repeat", "Residual", "Rotary", "Sequential",
]  # fmt: skip

# the base of all layers
from ._layer import Layer as Layer

# layers with parameters
from ._dense import Dense as Dense
from ._embedding import Embedding as Embedding
from ._conv import Conv as Conv
from ._conv import ConvTranspose as ConvTranspose
from ._norm import LayerNorm as LayerNorm
from ._norm import RMSNorm as RMSNorm
from ._norm import GroupNorm as GroupNorm
from ._norm import BatchNorm as BatchNorm
from ._attention import MultiHeadAttention as MultiHeadAttention
from ._rotary import Rotary as Rotary
from ._recurrent import LSTM as LSTM
from ._recurrent import GRU as GRU
from ._recurrent import RNN as RNN
from ._bidirectional import Bidirectional as Bidirectional

# layers without
from ._pool import MaxPool as MaxPool
from ._pool import AvgPool as AvgPool
from ._dropout import Dropout as Dropout
from ._flatten import Flatten as Flatten
from ._lambda import Lambda as Lambda

# layers of layers
from ._sequential import Sequential as Sequential
from ._residual import Residual as Residual
from ._parallel import Parallel as Parallel
from ._repeat import Repeat as Repeat
