"""The convolution that layers call: a primitive of JAX with derivatives and a `vmap` that XLA computes right on every mesh."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.lax import ConvDimensionNumbers

Options: TypeAlias = dict[str, Any]
"""The parameters of `jax.lax.conv_general_dilated_p`, which this primitive has too."""

# JAX makes `vmap` over kernels and inputs a convolution in groups of features, and the kernel's gradient of one in groups a
# convolution in groups of the batch (`batch_group_count`). That one XLA computes wrongly on a mesh of several axes of which some
# split the batch (jax 0.9 to 0.10): twice the gradient on a mesh of 2 x 2, or the end of the process. The rules below are those
# of JAX (jax/_src/lax/convolution.py), but none has groups of the batch.
#
# With JAX's name and parameters, for tools that know a convolution by its name, as the conversion to ONNX does.
_convolution_p = Primitive("conv_general_dilated")


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: Sequence[int],
    numbers: ConvDimensionNumbers,
    groups: int = 1,
    input_dilation: Sequence[int] | None = None,
) -> jax.Array:
    """Convolve an input with one batch axis, as `jax.lax.conv_general_dilated` does.

    Args:
        padding: `"SAME"`, `"VALID"`, or (before, after) for each axis of space.
        groups: the number of groups of features.
        input_dilation: the distance of neighbours of the input, which has zeros between them.
    """
    if isinstance(padding, str):
        sizes = [x.shape[axis] for axis in numbers.lhs_spec[2:]]
        windows = [_dilated(kernel.shape[axis], by) for axis, by in zip(numbers.rhs_spec[2:], dilation)]
        padding = jax.lax.padtype_to_pads(sizes, windows, stride, padding)
    x, kernel = _varying_alike(x, kernel)
    return _convolution_p.bind(
        x,
        kernel,
        window_strides=tuple(stride),
        padding=tuple(padding),
        lhs_dilation=tuple(input_dilation or (1,) * len(stride)),
        rhs_dilation=tuple(dilation),
        dimension_numbers=numbers,
        feature_group_count=groups,
        batch_group_count=1,
        precision=jax.config.jax_default_matmul_precision,
        preferred_element_type=None,
        out_sharding=None,
    )


def _varying_alike(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two arrays that vary over the same axes of `jax.shard_map`, as both operands of a primitive must."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x, kernel
    # A 0 varies as the array does that it is made like. XLA leaves out the sums.
    zero_like = lambda array: jnp.zeros_like(array, shape=())  # noqa: E731
    return x + zero_like(kernel), kernel + zero_like(x)


# Values: those of JAX's convolution.

_by_jax = jax.lax.conv_general_dilated
_convolution_p.def_impl(jax.jit(_by_jax, static_argnames=[*signature(_by_jax).parameters][2:]))
_convolution_p.def_effectful_abstract_eval(jax.lax.conv_general_dilated_p.abstract_eval)
mlir.register_lowering(_convolution_p, mlir.lower_fun(_by_jax, multiple_results=False))


# Gradients. Without space and groups, y[batch, out] = x[batch, in] kernel[in, out], so that each is such a product too:
# x[batch, in] = y[batch, out] kernel[out, in] and kernel[in, out] = x[in, batch] y[batch, out].


class _Extent(NamedTuple):
    """One axis of space: the padding before the input, and sizes with what a dilation or stride leaves out."""

    before: int
    input: int
    kernel: int
    output: int


def _extents(x: Any, kernel: Any, y: Any, options: Options) -> list[_Extent]:
    inputs, kernels, outputs = (spec[2:] for spec in options["dimension_numbers"])
    extents: list[_Extent] = []
    for at, (before, _) in enumerate(options["padding"]):
        of_input = _dilated(x.shape[inputs[at]], options["lhs_dilation"][at])
        of_kernel = _dilated(kernel.shape[kernels[at]], options["rhs_dilation"][at])
        of_output = _dilated(y.shape[outputs[at]], options["window_strides"][at])
        extents.append(_Extent(before, of_input, of_kernel, of_output))
    return extents


def _gradient_of_input(y: jax.Array, x: ad.UndefinedPrimal, kernel: jax.Array, **options: Any) -> jax.Array:
    """The gradient of x from that of y: a convolution of it with the mirrored kernel, in and out exchanged."""
    inputs, kernels, outputs = options["dimension_numbers"]
    padding: list[tuple[int, int]] = []
    for extent in _extents(x.aval, kernel, y, options):
        before = extent.kernel - 1 - extent.before
        padding.append((before, extent.input + extent.kernel - 1 - extent.output - before))
    kernel = jax.lax.rev(kernel, kernels[2:])
    kernel = _with_groups_in(kernel, options["feature_group_count"], kernels[0], kernels[1])
    changes = {
        "window_strides": options["lhs_dilation"],
        "lhs_dilation": options["window_strides"],
        "padding": tuple(padding),
        "dimension_numbers": ConvDimensionNumbers(outputs, _exchanged(kernels), inputs),
        "out_sharding": x.aval.sharding,
    }
    return _convolution_p.bind(y, kernel, **{**options, **changes})


def _gradient_of_kernel(y: jax.Array, x: jax.Array, kernel: ad.UndefinedPrimal, **options: Any) -> jax.Array | ad.Zero:
    """The gradient of the kernel from that of y: a convolution of x with it, summed over the batch in place of features."""
    if y.size == 0:
        return ad.Zero(kernel.aval)
    inputs, kernels, outputs = options["dimension_numbers"]
    padding: list[tuple[int, int]] = []
    for extent in _extents(x, kernel.aval, y, options):
        padding.append((extent.before, extent.output - extent.input + extent.kernel - 1 - extent.before))
    x = _with_groups_in(x, options["feature_group_count"], inputs[1], inputs[0])
    changes = {
        "window_strides": options["rhs_dilation"],
        "rhs_dilation": options["window_strides"],
        "padding": tuple(padding),
        "dimension_numbers": ConvDimensionNumbers(_exchanged(inputs), _exchanged(outputs), _exchanged(kernels)),
        "out_sharding": kernel.aval.sharding,
    }
    return _convolution_p.bind(x, y, **{**options, **changes})


ad.defbilinear(_convolution_p, _gradient_of_input, _gradient_of_kernel)


def _dilated(size: int, distance: int) -> int:
    """The size of an axis whose elements come to have this distance."""
    return 0 if size == 0 else (size - 1) * distance + 1


def _exchanged(spec: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an operand with batch and features, or out and in, exchanged."""
    return (spec[1], spec[0], *spec[2:])


# vmap. The new axis becomes the outer part of one that the convolution has.


def _batched(
    arrays: tuple[jax.Array, jax.Array], axes: tuple[int | None, int | None], **options: Any
) -> tuple[jax.Array, int]:
    (x, kernel), (x_axis, kernel_axis) = arrays, axes
    if any(axis is not None and array.shape[axis] == 0 for array, axis in zip(arrays, axes)):
        return _batch_of_none(arrays, axes, options)
    inputs, kernels, outputs = options["dimension_numbers"]
    if kernel_axis is None:
        assert x_axis is not None
        y = _convolution_p.bind(_merged(x, x_axis, inputs[0]), kernel, **options)
        return _split(y, outputs[0], x.shape[x_axis]), outputs[0]
    count = kernel.shape[kernel_axis]
    if x_axis is not None:
        options["feature_group_count"] *= count
        y = _convolution_p.bind(_merged(x, x_axis, inputs[1]), _merged(kernel, kernel_axis, kernels[0]), **options)
        return _split(y, outputs[1], count), outputs[1]
    # More features; the groups of features stay the outer part.
    groups = options["feature_group_count"]
    out = kernels[0]
    kernel = _split(jnp.moveaxis(kernel, kernel_axis, 0), out + 1, groups)
    kernel = _merged(_merged(kernel, 0, out + 1), out, out)
    y = _convolution_p.bind(x, kernel, **options)
    y = _split(_split(y, outputs[1], groups), outputs[1] + 1, count)
    return _merged(y, outputs[1], outputs[1] + 1), outputs[1]


batching.primitive_batchers[_convolution_p] = _batched


def _batch_of_none(
    arrays: tuple[jax.Array, jax.Array], axes: tuple[int | None, int | None], options: Options
) -> tuple[jax.Array, int]:
    """The result for a new axis without elements: there are no 0 groups."""
    apart = [
        jax.ShapeDtypeStruct([size for at, size in enumerate(array.shape) if at != axis], array.dtype)
        for array, axis in zip(arrays, axes)
    ]
    y = jax.eval_shape(lambda x, kernel: _by_jax(x, kernel, **options), *apart)
    return jnp.zeros((0, *y.shape), y.dtype), 0


def _with_groups_in(array: jax.Array, groups: int, source: int, target: int) -> jax.Array:
    """An operand whose groups, the outer part of one axis, become that of another."""
    return array if groups == 1 else _merged(_split(array, source, groups), source, target)


def _split(array: jax.Array, axis: int, count: int) -> jax.Array:
    """An axis as two, of which the outer one has `count` elements."""
    shape = array.shape
    return array.reshape(*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])


def _merged(array: jax.Array, axis: int, target: int) -> jax.Array:
    """An axis as the outer part of another, `target`, which is counted without it."""
    array = jnp.moveaxis(array, axis, target)
    shape = array.shape
    return array.reshape(*shape[:target], shape[target] * shape[target + 1], *shape[target + 2 :])
