"""Initialisers of fixed values: constant, zeros, ones, identity (gain on the diagonal), and dirac, a convolution that passes
channels through."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from .._errors import InitError
from .._words import describe
from ._dtypes import Scalar, exact, is_inexact
from ._options import Axes, Number, axes_of, called, factory, from_front, scale, unless_default, whole
from ._recipe import Draw, Recipe


def _plan_fill(shape: tuple[int, ...], dtype: DTypeLike, value: ArrayLike) -> Draw:
    # an array of JAX may be a tracer, whose values cannot be checked
    cast = jnp.asarray(value, dtype) if isinstance(value, jax.Array) else exact(value, dtype)
    return Draw(_fill, (cast,))


def _fill(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, value: Scalar) -> jax.Array:
    return jnp.broadcast_to(value, shape)


zeros = Recipe("zeros", _plan_fill, (0,), fill=0)
"""All 0, as it stands: `{"**/bias": zeros}`."""

ones = Recipe("ones", _plan_fill, (1,), fill=1)
"""All 1, as it stands: `{"**/scale": ones}`."""


@factory
def constant(value: Any) -> Recipe:
    """Constant values: every element is the same; an array is broadcast to the shape.

    >>> constant(42)
    constant(42)

    Drawing raises for a number that the leaf's dtype cannot hold, such as 0.5 in an integer or 1e9 in float16.

    Args:
        value: a number, or an array that broadcasts to the shape.

    Raises:
        InitError: a value that is neither a number nor an array of numbers.
    """
    if isinstance(value, (bool, int, float, complex)):
        return Recipe(called("constant", value), _plan_fill, (value,), fill=value)
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise InitError(f"constant takes a number or an array of numbers: {error}") from error
    if not (is_inexact(array.dtype) or array.dtype.kind in "biuV"):  # V: the small integers of ml_dtypes
        raise InitError(f"constant takes a number or an array of numbers, got {describe(value)}")
    # as an option and not as `fill`: an array is not put into a compiled program
    return Recipe(called("constant", array), _plan_fill, (array,))


@factory
def identity(gain: Number = 1.0, batch_axis: Axes = ()) -> Recipe:
    """`gain` on the diagonal of an (in, out) kernel, else 0.

    >>> identity()(jax.random.key(0), (2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    Args:
        gain: the number on the diagonal.
        batch_axis: axes of an ensemble or of experts, of which each index has a diagonal.

    Raises:
        InitError: other than 2 axes beside those of the batch, when it draws.
    """
    text = called("identity", *unless_default(gain, 1), batch_axis=(batch_axis, ()))
    return Recipe(text, _plan_identity, (scale("gain", gain), axes_of(batch_axis, "batch_axis")))


def _plan_identity(shape: tuple[int, ...], dtype: DTypeLike, gain: Number, batch_axis: tuple[int, ...]) -> Draw:
    # known only now: a recipe is made before it sees a shape
    batch = from_front(batch_axis, len(shape), "batch_axis")
    axes = len(shape) - len(batch)
    if axes != 2:
        raise InitError(f"identity needs 2 axes, (in, out); the shape has {axes}")
    cast = gain.astype(dtype) if isinstance(gain, jax.Array) else exact(gain, dtype)
    return Draw(_draw_identity, (cast,), (tuple(batch),))


def _draw_identity(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, gain: Scalar, batch: tuple[int, ...]
) -> jax.Array:
    sides = [size for axis, size in enumerate(shape) if axis not in batch]
    eye = gain * jnp.eye(*sides, dtype=dtype)
    return jnp.broadcast_to(jnp.expand_dims(eye, batch), shape)


@factory
def dirac(groups: int = 1) -> Recipe:
    """A convolution that passes its channels through: 1 at the centre for input i, output i of each group, else 0.

    >>> dirac()(jax.random.key(0), (3, 2, 2))[:, :, 0].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]

    The kernel is (spatial..., in / groups, out); like `torch.nn.init.dirac_`, whose weight is (out, in, spatial...).

    Args:
        groups: in how many groups the channels are passed through.

    Raises:
        InitError: fewer than 3 axes, or an `out` that the groups do not divide, when it draws.
    """
    groups = whole("groups", groups, 1)
    return Recipe(called("dirac", groups=(groups, 1)), _plan_dirac, (groups,))


def _plan_dirac(shape: tuple[int, ...], dtype: DTypeLike, groups: int) -> Draw:
    if len(shape) < 3:
        raise InitError(f"dirac needs 3 axes or more, (spatial..., in, out); the shape has {len(shape)}")
    outputs = shape[-1]
    if outputs % groups:
        raise InitError(f"{groups} groups do not divide {outputs} outputs")
    return Draw(_draw_dirac, fixed=(groups,))


def _draw_dirac(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, groups: int) -> jax.Array:
    *spatial, inputs, outputs = shape
    kernel = np.zeros(shape, dtype)
    outputs_per_group = outputs // groups
    # where a group has more inputs than outputs, the last inputs are not passed on
    channel = np.arange(min(inputs, outputs_per_group))
    centre = tuple(size // 2 for size in spatial)
    for group in range(groups):
        kernel[(*centre, channel, group * outputs_per_group + channel)] = 1
    return jnp.asarray(kernel)
