"""Write a file of Keras 2, with a warning of layers whose weights Keras would exchange: it assigns them by their order."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from .._foreign.keras_writing import layers_in_doubt, write_keras_h5
from .._words import listed, quoted

_FRAMES = 4
"""Of this function, two of `write`, and then the caller's."""


def write_keras2(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write weights in Keras 2's form; warns where layers of equal shapes may not be in the model's order."""
    doubtful = layers_in_doubt(arrays)
    if doubtful:
        warnings.warn(
            f"{quoted(path)}: Keras assigns the weights of a file of Keras 2 by the order of the layers, and not by their names."
            f" These have equal shapes and may not be in the order of the model: {listed(doubtful[0])}. If they are not, their"
            " weights are exchanged: write(..., template=) with a file that the model saved goes by names, and so does"
            " load_weights(path, by_name=True) of Keras 2",
            stacklevel=_FRAMES,
        )
    write_keras_h5(path, arrays)
