"""Convolution in groups of features, with a gradient of the kernel that is right on every mesh."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def convolution(x: jax.Array, kernel: jax.Array, groups: int, **options: Any) -> jax.Array:
    """Convolve an input with one batch axis and features last.

    With groups, JAX's own gradient of the kernel is a convolution in groups of the batch. Where the batch is divided over some
    axes of a mesh with `AxisType.Auto`, XLA adds its parts up over the other axes too (jax 0.9 to 0.10; twice the gradient on a
    mesh of 2 x 2). Here it is a convolution in groups of features, which XLA divides right, and on a CPU it takes 0.1 to 1.05
    of the time.

    Args:
        options: as `jax.lax.conv_general_dilated` takes them.
    """
    if groups == 1:
        return jax.lax.conv_general_dilated(x, kernel, **options)
    # a dict has no hash, which JAX needs of what is not differentiated
    return _in_groups(x, kernel, groups, tuple(options.items()))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _in_groups(x: jax.Array, kernel: jax.Array, groups: int, options: tuple[tuple[str, Any], ...]) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, feature_group_count=groups, **dict(options))


def _tangent(
    groups: int, options: tuple[tuple[str, Any], ...], primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array | SymbolicZero]:
    x, kernel = primals
    x_tangent, kernel_tangent = tangents
    y = _in_groups(x, kernel, groups, options)
    parts: list[jax.Array] = []
    if not isinstance(x_tangent, SymbolicZero):
        parts.append(_in_groups(x_tangent, kernel, groups, options))
    if not isinstance(kernel_tangent, SymbolicZero):
        parts.append(_in_groups_of_the_batch(x, kernel_tangent, groups, options))
    return y, sum(parts[1:], start=parts[0]) if parts else SymbolicZero(jax.typeof(y))


_in_groups.defjvp(_tangent, symbolic_zeros=True)


def _in_groups_of_the_batch(
    x: jax.Array, kernel: jax.Array, groups: int, options: tuple[tuple[str, Any], ...]
) -> jax.Array:
    """The same values, by a convolution that JAX transposes, for the gradient of the kernel, to one in groups of features."""
    batch, *space, features = x.shape
    x = x.reshape(batch, *space, groups, features // groups)
    x = jnp.moveaxis(x, -2, 0).reshape(groups * batch, *space, features // groups)
    return jax.lax.conv_general_dilated(x, kernel, batch_group_count=groups, **dict(options))
