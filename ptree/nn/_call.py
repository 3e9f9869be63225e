"""How a container calls its parts, and how a layer asks for its input and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._draw import abstract, child_key
from .._edit import set
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._layer import takes

_NOTHING = Tree()


Options = Mapping[str, Any]


def apply(
    layer: Any, name: str, params: Any, x: Any, key: Any = None, train: bool = False, options: Options = _NOTHING
) -> Any:
    """What one part of a container does to its input; a plain function has no parameters."""
    if not hasattr(layer, "spec"):
        return layer(x)
    return _called(layer, layer, name, params, x, {**options, "train": True} if train else options, key)


def update(layer: Any, name: str, params: Any, x: Any, key: Any = None, options: Options = _NOTHING) -> tuple[Any, Any]:
    """What one part does in training: the output, and the container's parameters with the part's new statistics."""
    if not hasattr(layer, "updated"):
        return apply(layer, name, params, x, key, True, options), params
    y, own = _called(layer, layer.updated, name, params, x, options, key)
    old = params.get(name, _NOTHING) if isinstance(params, Mapping) else _NOTHING
    return y, params if own is old or not own else set(params, name, own)


def check_options(layer: Any, options: Options) -> None:
    """An option that no layer of a container takes is a mistake."""
    if unknown := [name for name in options if not takes(layer, name)]:
        raise LayerError(f"{type(layer).__name__}: expected options that a layer in it takes, got {unknown}")


def _called(layer: Any, function: Any, name: str, params: Any, x: Any, options: Options, key: Any) -> Any:
    own = params  # what is no mapping goes on to the layer that needs a parameter, and is refused there
    if isinstance(params, Mapping):
        own = params.get(name, _NOTHING)
    options = {option: value for option, value in options.items() if takes(layer, option)}
    if key is not None and (function is not layer or takes(layer, "key")):
        options["key"] = child_key(key, name)
    try:
        return function(own, x, **options)
    except LayerError as error:
        if own is _NOTHING and not error.path and "expected the parameter" in error.what:
            raise unfit(layer, f"parameters under the name {name!r}", f"parameters {sorted(params)}") from None
        raise error.inside(name) from None


def declared(layer: Any, name: str, x: Any) -> Tree:
    """The spec of one part, for an input of this shape."""
    if not hasattr(layer, "spec"):
        return _NOTHING
    try:
        return layer.spec(x)
    except LayerError as error:
        raise error.inside(name) from None


def shape_after(layer: Any, name: str, spec: Tree, x: Any) -> Any:
    """The input of the next part, as shapes and dtypes."""
    return jax.eval_shape(lambda params, x: apply(layer, name, params, x), Tree({name: abstract(spec)}), x)


def shape_of(x: Any) -> Any:
    """The input's shapes and dtypes."""
    return jax.eval_shape(lambda x: x, x)


def floating(layer: Any, x: Any) -> Any:
    """The input of a layer that computes with it: an array with at least one axis, not of whole numbers."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise unfit(layer, "an array", f"a {type(x).__name__}")
    if not x.shape or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise unfit(layer, "an input of floats with at least one axis", describe(x))
    return x


def unfit(layer: Any, expected: str, got: str) -> LayerError:
    """The error for an input or parameters that do not fit; containers add where the layer is."""
    return LayerError(f"{layer!r}: expected {expected}, got {got}")


def need(params: Any, name: str, layer: Any, shape: tuple[int, ...] | None = None) -> Any:
    """A layer's own parameter, or an error that says which is missing, or of another shape."""
    try:
        leaf = params[name]
    except (KeyError, TypeError):
        there = sorted(params) if isinstance(params, Mapping) else describe(params)
        raise unfit(layer, f"the parameter {name!r}", f"parameters {there}") from None
    if not isinstance(leaf, Mapping) and not hasattr(leaf, "shape"):
        raise unfit(layer, f"an array as {name}", describe(leaf))
    if shape is not None and getattr(leaf, "shape", None) != shape:
        raise unfit(layer, f"{'an' if name[0] in 'aeiou' else 'a'} {name} of the shape {shape}", describe(leaf))
    return leaf


def cast(dtype: Any, *arrays: Any) -> list[Any]:
    """Arrays in the dtype that a layer computes in: the one it was told, else what JAX promotes them to."""
    dtype = jnp.result_type(*arrays) if dtype is None else dtype
    return [array.astype(dtype) for array in arrays]
