"""Check a layer's input and parameters, arrays of the right dtype and shape, none foreign; look up nodes; cast to a common
dtype; errors for a misfit."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .._errors import LayerError
from .._shardings import as_traced
from .._tree import DerivedLeaf, PyTree
from .._words import describe, short_dtype
from ._layer import Layer, Params

KERNELS = frozenset({"kernel", "table"})
"""The names of parameters that a layer multiplies with, by `product`."""


class MissingParameterError(LayerError):
    """Error for a parameter that is missing. A container without any parameters for the layer says so instead."""


def misfit(layer: Layer, expected: str, got: str) -> LayerError:
    """The error for an input or parameters that do not fit; containers add the path of the layer."""
    return LayerError(f"{layer!r}: expected {expected}, got {got}")


def floats(layer: Layer, x: PyTree) -> jax.Array:
    """The input, checked to be an array of real floats with at least one axis."""
    return _of_kind(layer, x, jnp.floating, "floats")


def floats_or_complex(layer: Layer, x: PyTree) -> jax.Array:
    """The input, checked to be an array of real or complex floats with at least one axis."""
    return _of_kind(layer, x, jnp.inexact, "floats")


def _of_kind(layer: Layer, x: PyTree, kind: type, numbers: str) -> jax.Array:
    # By attributes, as arrays, tracers and `jax.ShapeDtypeStruct` have no class in common.
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise misfit(layer, "an array", f"a {type(x).__name__}")
    if not x.shape or not is_of_dtype(x, kind):
        real = "real " if is_of_dtype(x, jnp.complexfloating) else ""
        raise misfit(layer, f"an input of {real}{numbers} with at least one axis", described(x))
    return x


def is_of_dtype(x: PyTree, kind: type) -> bool:
    """Whether an input is an array of JAX or NumPy of this kind of dtype, such as `jnp.floating`."""
    try:
        return bool(jnp.issubdtype(x.dtype, kind))
    except (AttributeError, TypeError):  # TypeError: the dtype of another library, such as PyTorch's
        return False


def is_foreign(x: PyTree) -> bool:
    """Whether an input is a tensor of another library, such as PyTorch."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return False
    return not is_of_dtype(x, np.generic) and not is_of_dtype(x, jax.dtypes.extended)


def described(x: PyTree) -> str:
    """An input for a message; a tensor of another library with its type, as its dtype may have the same name as JAX's."""
    if is_foreign(x):
        return f"{describe(x)} of {type(x).__module__}.{type(x).__name__}: make it a NumPy array"
    return describe(x)


def parameter(params: Params, name: str, layer: Layer, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Look up the array of this name in the layer's parameters; raise if its shape does not fit."""
    leaf = _child(params, name, layer)
    if name not in KERNELS and _only_multiplies(leaf):
        raise misfit(layer, f"an array as {name}", repr(leaf))
    if isinstance(leaf, Mapping) or not hasattr(leaf, "shape"):
        raise misfit(layer, f"an array as {name}", describe(leaf))
    if shape is not None and leaf.shape != shape:
        article = "an" if name[0] in "aeiou" else "a"
        raise misfit(layer, f"{article} {name} of the shape {shape}", describe(leaf))
    return leaf


def _only_multiplies(leaf: PyTree) -> bool:
    """Whether a parameter is a derived kernel, which can be multiplied with, and not added or scaled."""
    return isinstance(leaf, DerivedLeaf)


def parameters_in(params: Params, name: str, layer: Layer) -> Params:
    """Look up the node of this name in the layer's parameters; raise if it is an array."""
    node = _child(params, name, layer)
    if not isinstance(node, Mapping):
        raise misfit(layer, f"a node of parameters as {name}", describe(node))
    return node


def _child(params: Params, name: str, layer: Layer) -> PyTree:
    try:
        return params[name]
    except (KeyError, TypeError):  # TypeError: an array or None in the place of a mapping
        there = sorted(params) if isinstance(params, Mapping) else describe(params)
        expected = f"{layer!r}: expected the parameter {name!r}"
        raise MissingParameterError(f"{expected}, got parameters {there}") from None


def cast(layer: Layer, dtype: DTypeLike | None, *arrays: jax.Array) -> list[jax.Array]:
    """Cast arrays, the input and parameters of a layer, to one dtype; None for the one that JAX promotes them to."""
    dtype = common_dtype(layer, dtype, *arrays)
    return [array.astype(dtype) for array in arrays]


def common_dtype(layer: Layer, dtype: DTypeLike | None, *arrays: jax.Array) -> DTypeLike:
    """The dtype that a layer computes in: this one, or by default the one that JAX promotes the arrays to.

    Raises:
        LayerError: dtypes that JAX does not promote, such as 8-bit floats, or complex numbers and a real dtype.
    """
    if dtype is None:
        try:
            return jnp.result_type(*arrays)
        except (TypeError, ValueError):  # ValueError: under `jax.numpy_dtype_promotion("strict")`
            expected = "dtypes that JAX promotes to one, or the option dtype=, such as dtype=jnp.float32"
            raise misfit(layer, expected, " and ".join(map(describe, arrays))) from None
    is_real = not jnp.issubdtype(dtype, jnp.complexfloating)
    # The cast would drop the imaginary part.
    if is_real and any(jnp.iscomplexobj(array) for array in arrays):
        raise misfit(layer, f"real numbers for dtype={short_dtype(dtype)}", " and ".join(map(describe, arrays)))
    return dtype


def widened(x: jax.Array) -> jax.Array:
    """Cast an input to float32 at least: sums of many numbers in bfloat16 would be wrong."""
    # Not by promotion, which JAX refuses for 8-bit floats.
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def axes_of_input(layer: Layer, axes: int | tuple[int, ...], x: PyTree) -> tuple[int, ...]:
    """Axes counted from the front, in order; raise if the input does not have them."""
    ndim = len(x.shape)
    if axes == -1 and ndim:  # the usual axis, first for speed: 2 us
        return (ndim - 1,)
    several = axes if isinstance(axes, tuple) else (axes,)
    from_front = {axis % ndim for axis in several if -ndim <= axis < ndim}
    if len(from_front) < len(several):
        raise misfit(layer, f"an input with the axes {axes}", describe(x))
    return tuple(sorted(from_front))


def shapes_of(x: PyTree) -> PyTree:
    """The shapes and dtypes of an input, without values.

    Raises:
        LayerError: an input that is no array, nor a number of Python, nor a tree of them.
    """
    # `eval_shape` takes arrays of NumPy, Python numbers and nested inputs alike.
    try:
        return jax.eval_shape(lambda x: x, jax.tree.map(as_traced, x))
    except TypeError:
        got = ", ".join(described(leaf) for leaf in jax.tree.leaves(x))
        raise LayerError(f"expected an input of arrays, got {got}") from None
