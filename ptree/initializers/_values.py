"""Initialisers that draw nothing: constant, zeros, ones, identity, dirac."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InitError
from ._initializer import Axes, Initializer, axes_of, called, exact, from_front, number


def _constant(key: Any, shape: Any, dtype: Any, value: Any) -> Any:
    value = jnp.asarray(value, dtype) if isinstance(value, jax.Array) else exact(value, dtype)
    return jnp.broadcast_to(value, shape)


zeros = Initializer("zeros", _constant, (0,), fill=0)
"""All 0, as it stands: `{"**/bias": zeros}`."""

ones = Initializer("ones", _constant, (1,), fill=1)
"""All 1, as it stands: `{"**/scale": ones}`."""


def constant(value: Any) -> Initializer:
    """Every element is the value; an array is broadcast to the shape.

    >>> constant(42)
    constant(42)

    Drawing raises for a number that the leaf's dtype cannot hold, such as 0.5 in an integer or 1e9 in float16.
    """
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
    plain = isinstance(value, (bool, int, float, complex))
    return Initializer(called("constant", value), _constant, (value,), fill=value if plain else None)


def identity(gain: float = 1.0, batch_axis: Axes = ()) -> Initializer:
    """`gain` on the diagonal of an (in, out) kernel, else 0.

    >>> identity()(jax.random.key(0), (2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    Raises:
        InitError: other than 2 axes beside those of the batch, when it draws.
    """
    text = called("identity", *([] if gain == 1 else [gain]), batch_axis=(batch_axis, ()))
    return Initializer(text, _identity, (number("gain", gain), axes_of(batch_axis)))


def _identity(key: Any, shape: Any, dtype: Any, gain: Any, batch_axis: Any) -> Any:
    batch = from_front(batch_axis, len(shape), "batch_axis")
    left = [axis for axis in range(len(shape)) if axis not in batch]
    if len(left) != 2:
        raise InitError(f"identity needs 2 axes, (in, out); the shape has {len(left)}")
    eye = jnp.asarray(exact(gain, dtype)) * jnp.eye(*(shape[axis] for axis in left), dtype=dtype)
    return jnp.broadcast_to(jnp.expand_dims(eye, batch), shape)


def dirac(groups: int = 1) -> Initializer:
    """A convolution that passes its channels through: 1 at the centre for input i, output i of each group, else 0.

    >>> dirac()(jax.random.key(0), (3, 2, 2))[:, :, 0].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]

    The kernel is (spatial..., in / groups, out); like `torch.nn.init.dirac_`, whose weight is (out, in, spatial...).

    Raises:
        InitError: fewer than 3 axes, or an `out` that the groups do not divide, when it draws.
    """
    return Initializer(called("dirac", groups=(groups, 1)), _dirac, (groups,))


def _dirac(key: Any, shape: Any, dtype: Any, groups: Any) -> Any:
    if len(shape) < 3:
        raise InitError(f"dirac needs 3 axes or more, (spatial..., in, out); the shape has {len(shape)}")
    *spatial, inputs, outputs = shape
    if groups < 1 or outputs % groups:
        raise InitError(f"{groups} groups do not divide {outputs} outputs")
    kernel = np.zeros(shape, dtype)
    channel = np.arange(min(inputs, outputs // groups))
    centre = tuple(size // 2 for size in spatial)
    for group in range(groups):
        kernel[(*centre, channel, group * (outputs // groups) + channel)] = 1
    return jnp.asarray(kernel)
