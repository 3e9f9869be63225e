"""Layers: frozen dataclasses that declare their parameters, and are called with them.

>>> import jax, jax.numpy as jnp
>>> from ptree import nn
>>> net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
>>> x = jnp.ones((2, 4))
>>> params = net.init(jax.random.key(0), x)
>>> net(params, x).shape
(2, 1)

`layer.spec(x)` gives a `ptree.Tree` of `ptree.Param` for an input like `x`, `layer.init(key, x)` draws it, and `layer(params, x)` is
a pure function. Features are the last axis, and any number of axes may be in front. Most used are `Dense`, `Sequential` and `MultiHeadAttention`;
`Layer` is the base of those that you write. Guide: `examples/guides/layers.md`.
"""

__all__ = [
    "Layer", "Dense", "Embedding", "Conv", "ConvTranspose", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm",
    "MultiHeadAttention", "Rotary", "LSTM", "GRU", "RNN", "Bidirectional", "MaxPool", "AvgPool", "Dropout", "Flatten",
    "Lambda", "Sequential", "Residual", "Parallel", "Repeat",
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
