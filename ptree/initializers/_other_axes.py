"""An initialiser with other axes of features in and out, and whether two initialisers draw alike: for weights of other layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from .._errors import InitError
from ._fans import Fan
from ._presets import TorchBias
from ._recipe import Initializer, Recipe, draw_of
from ._scheme import Scheme


def with_axes(initializer: Any, in_axis: int, out_axis: int, batch_axes: tuple[int, ...] = ()) -> Any:
    """The initialiser with these axes wherever it has axes of a fan, also in its parts; any other function as it is.

    Without `batch_axes` it keeps those that it has.

    >>> from ptree import initializers as I
    >>> with_axes(I.he_normal(), -1, -2).at((8, 2), np.dtype("float32")) == I.he_normal().at((2, 8), np.dtype("float32"))
    True
    """
    if isinstance(initializer, Fan):
        return replace(initializer, in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axes or initializer.batch_axis)
    axes = (in_axis, out_axis, batch_axes)
    if isinstance(initializer, tuple):
        return tuple(with_axes(part, *axes) for part in initializer)
    if isinstance(initializer, Recipe):
        return replace(initializer, options=with_axes(initializer.options, *axes))
    if isinstance(initializer, TorchBias):
        return replace(initializer, fan=with_axes(initializer.fan, *axes))
    if isinstance(initializer, Scheme):
        kernel, bias = with_axes((initializer.kernel, initializer.bias), *axes)
        return Scheme(kernel, bias, initializer.kernel_names, initializer.bias_names)
    return initializer


def draw_alike(one: Initializer, other: Initializer, shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether two initialisers draw the same numbers of a key, as far as one can know before they draw."""
    try:
        numbers, kind = jax.tree.flatten(draw_of(one, shape, dtype))
        others, other_kind = jax.tree.flatten(draw_of(other, shape, dtype))
    except InitError:  # the draw itself will raise it, with the path
        return True
    if kind != other_kind:
        return False
    if any(isinstance(number, Tracer) for number in (*numbers, *others)):
        return True
    return all(map(np.array_equal, numbers, others))
