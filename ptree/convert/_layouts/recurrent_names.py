"""Names of recurrent layers with two biases, of PyTorch and Gluon, and of layers that a module of several keeps under numbers."""

from __future__ import annotations

from collections.abc import Mapping

from .framework import LayerRow
from .matrices import LINEAR


def layer_number(module: str) -> tuple[str, int]:
    """The module of a recurrent layer, and which of its layers this is: `lstm:1` in `names` is the second one of `lstm`.

    >>> layer_number("encoder/lstm:1"), layer_number("encoder/lstm")
    (('encoder/lstm', 1), ('encoder/lstm', 0))
    """
    before, colon, number = module.rpartition(":")
    if colon and number.isdecimal():
        return before, int(number)
    return module, 0


def two_bias_rows(prefix: str, names: Mapping[str, str], module: str) -> list[LayerRow]:
    """The rows of a recurrent layer with two matrices (gates, in) and two biases.

    Args:
        prefix: of the paths in the layer, such as `forward/`.
        names: `input` and `hidden` -> the names in the module, with `{}` for `weight` and `bias`.
        module: the path of the module that they are in.
    """
    rows: list[LayerRow] = []
    for part, name in names.items():
        rows.append(LayerRow((name.format("weight"),), (f"{prefix}{part}/kernel",), LINEAR, module=module))
        rows.append(LayerRow((name.format("bias"),), (f"{prefix}{part}/bias",), module=module))
    return rows
