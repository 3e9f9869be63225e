"""What mends a table whose recurrent layers have biases in `like` and none in the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ..._paths import STACKED
from ..._words import quoted

_PARTS = ("hidden", "input")
"""The parts of a recurrent layer, each of which has a bias."""


def fix_of_biases(missing: Collection[str], expected: Mapping[str, object]) -> str:
    """A sentence with the constant that stands for the biases of a recurrent layer; empty where something else is missing too.

    Args:
        missing: the leaves of `like` that the source lacks.
        expected: path -> what `like` has there.
    """
    hidden = [path for path in missing if f"/{path}".endswith("/hidden/bias") and STACKED not in path.split("/")]
    layers = [path.removesuffix("hidden/bias") for path in hidden]
    biases = {f"{layer}{part}/bias" for layer in layers for part in _PARTS}
    if not layers or biases != set(missing):
        return ""
    bias = expected[hidden[0]]
    shape, dtype = getattr(bias, "shape", ()), np.dtype(getattr(bias, "dtype", np.float32))
    options = "" if dtype == np.float32 else f"{quoted(dtype.name)}, "
    row = (
        f'convert.Table({{(): ("{layers[0]}{{hidden,input}}/bias", convert.fill(0, {options}shape={shape}).inverse)}})'
    )
    each = ", and so on for each of them" if len(layers) > 1 else ""
    return f"If the layer is made without biases there, zeros are the same: {row} | table{each}."
