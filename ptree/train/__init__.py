"""Train by rules: optimisers by path, freezing that freezes, one step, state that follows parameters, low-rank views.

This room stands on `nn`, whose layers multiply with kernels that stand for others, and on `look`, which observes a step.
"""

# low-rank adaptation
from ._lora.lora import lora as lora  # small factors beside kernels
from ._lora.lora import merged as merged  # kernels and factors as plain parameters
from ._lora.lora import view as view  # the parameters as a model reads them with the factors
from ._lora.rank import Rank as Rank  # the rank of a kernel's change, and its scale
