"""Checks of a layer's input and parameters: arrays, dtypes, shapes, and the errors of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._errors import LayerError
from .._tree import PyTree
from .._words import describe
from ._layer import Layer, Params


class MissingParameterError(LayerError):
    """A layer's parameters lack one; a container that has nothing at all for the layer says that instead."""


def misfit(layer: Layer, expected: str, got: str) -> LayerError:
    """The error for an input or parameters that do not fit; containers add where the layer is."""
    return LayerError(f"{layer!r}: expected {expected}, got {got}")


def floats(layer: Layer, x: PyTree) -> jax.Array:
    """The input, checked to be an array of floats with at least one axis."""
    # By attributes, as arrays, tracers and `jax.ShapeDtypeStruct` have no class in common.
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise misfit(layer, "an array", f"a {type(x).__name__}")
    if not x.shape or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise misfit(layer, "an input of floats with at least one axis", describe(x))
    return x


def parameter(params: Params, name: str, layer: Layer, shape: tuple[int, ...] | None = None) -> jax.Array:
    """The array of this name among the layer's parameters, checked to be of the shape."""
    leaf = _child(params, name, layer)
    if isinstance(leaf, Mapping) or not hasattr(leaf, "shape"):
        raise misfit(layer, f"an array as {name}", describe(leaf))
    if shape is not None and leaf.shape != shape:
        article = "an" if name[0] in "aeiou" else "a"
        raise misfit(layer, f"{article} {name} of the shape {shape}", describe(leaf))
    return leaf


def parameters_in(params: Params, name: str, layer: Layer) -> Params:
    """The node of this name among the layer's parameters."""
    node = _child(params, name, layer)
    if not isinstance(node, Mapping):
        raise misfit(layer, f"a node of parameters as {name}", describe(node))
    return node


def _child(params: Params, name: str, layer: Layer) -> PyTree:
    try:
        return params[name]
    except (KeyError, TypeError):
        there = sorted(params) if isinstance(params, Mapping) else describe(params)
        expected = f"{layer!r}: expected the parameter {name!r}"
        raise MissingParameterError(f"{expected}, got parameters {there}") from None


def cast(dtype: DTypeLike | None, *arrays: jax.Array) -> list[jax.Array]:
    """The arrays in the dtype that a layer computes in; None is what JAX promotes them to."""
    dtype = jnp.result_type(*arrays) if dtype is None else dtype
    return [array.astype(dtype) for array in arrays]


def shapes_of(x: PyTree) -> PyTree:
    """The input's shapes and dtypes."""
    return jax.eval_shape(lambda x: x, x)
