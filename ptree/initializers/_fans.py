"""Initialisers scaled by fan_in and fan_out: variance_scaling, Xavier (Glorot), Kaiming (He), LeCun, gain; orthogonal; complex
ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import jax
import numpy as np
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import quoted
from ._distributions import plan_normal, plan_truncated
from ._dtypes import Bounds, Scalar, drawn_in, half_open, is_complex, scalar, sqrt
from ._options import Axes, Number, axes_of, called, factory, from_front, number, real, scale, unless_default, whole
from ._recipe import Draw, Recipe

Mode: TypeAlias = Literal["fan_in", "fan_out", "fan_avg"]
Distribution: TypeAlias = Literal["normal", "truncated_normal", "uniform"]


@dataclass(frozen=True)
class Fan:
    """Which axes of a kernel count as in, out and batch; all others are spatial and count for both fans."""

    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        # tuples, so that equal fans are equal; a frozen dataclass can be changed in no other way
        for role in ("in_axis", "out_axis", "batch_axis"):
            object.__setattr__(self, role, axes_of(getattr(self, role), role))
        object.__setattr__(self, "groups", whole("groups", self.groups, 1))

    def of(self, shape: Sequence[int]) -> tuple[float, float]:
        """Compute fan_in and fan_out of a shape.

        Raises:
            InitError: the shape does not have the axes.
        """
        roles = self.roles(shape)
        with_role = {axis for axes in roles.values() for axis in axes}
        spatial = math.prod(size for axis, size in enumerate(shape) if axis not in with_role)
        fan_in = math.prod(shape[axis] for axis in roles["in_axis"]) * spatial
        fan_out = math.prod(shape[axis] for axis in roles["out_axis"]) * spatial
        return fan_in, fan_out / self.groups  # a kernel (spatial..., in / groups, out) has the groups in `out` alone

    def roles(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """Find the axes of each role, counted from the front.

        Raises:
            InitError: the shape does not have them, or one has two roles.
        """
        roles = {
            role: from_front(axes_of(axes, role), len(shape), role)
            for role, axes in (("in_axis", self.in_axis), ("out_axis", self.out_axis), ("batch_axis", self.batch_axis))
        }
        axes = [axis for several in roles.values() for axis in several]
        if len(set(axes)) < len(axes):
            named = ", ".join(f"{role}={several}" for role, several in roles.items())
            raise InitError(f"an axis is named twice: {named}")
        return roles

    def shown(self) -> dict[str, tuple[object, object]]:
        """The options with their defaults, as `called` takes them."""
        return {
            "in_axis": (_one_or_all(self.in_axis), -2),
            "out_axis": (_one_or_all(self.out_axis), -1),
            "batch_axis": (_one_or_all(self.batch_axis), ()),
            "groups": (self.groups, 1),
        }


def _one_or_all(axes: Axes) -> Axes:
    """One axis of a fan as a number, as a person would write it; several as they are."""
    if isinstance(axes, Sequence) and len(axes) == 1:
        return axes[0]
    return axes


@factory
def variance_scaling(
    scale: Number, mode: Mode = "fan_in", distribution: Distribution = "truncated_normal", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Recipe:  # fmt: skip
    """Variance `scale / fan`, where `mode` is `fan_in`, `fan_out` or `fan_avg`, and `distribution` says what is drawn.

    >>> variance_scaling(2.0, "fan_out", "normal", groups=8)
    variance_scaling(2.0, 'fan_out', 'normal', groups=8)

    The distribution is `normal`, `uniform`, or `truncated_normal`, which is cut at two standard deviations and
    widened to just that variance. The docstring of `ptree.initializers` says which axes count as fan.

    Args:
        scale: the factor of the variance, at least 0.
        mode: `fan_in`, `fan_out`, or `fan_avg`, their mean.
        distribution: `normal`, `uniform` or `truncated_normal`.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: another mode or distribution, a negative scale; a shape without the axes, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    text = called("variance_scaling", scale, mode, distribution, **fan.shown())
    return _scaling(text, scale, mode, distribution, fan)


def _scaling(text: str, scale: Number, mode: Mode, distribution: Distribution, fan: Fan) -> Recipe:
    if mode not in get_args(Mode) or distribution not in get_args(Distribution):
        raise InitError(
            "mode must be 'fan_in', 'fan_out' or 'fan_avg', and distribution 'normal', 'truncated_normal' or"
            f" 'uniform'; got {mode!r} and {distribution!r}"
        )
    return Recipe(text, _plan_scaled, (number("scale", scale, 0), mode, distribution, fan))


_CUT_STDDEV = 0.87962566103423978
"""The standard deviation of a unit Gaussian that is cut at two standard deviations."""


def _plan_scaled(
    shape: tuple[int, ...], dtype: DTypeLike, scale: Number, mode: Mode, distribution: Distribution, fan: Fan
) -> Draw:
    """Plan to draw numbers with this distribution and the variance `scale / fan`."""
    wide = drawn_in(dtype)
    variance = scalar(scale / _fan_of_mode(mode, fan, shape), wide)
    if is_complex(wide):
        return Draw(_draw_complex, (variance,), (distribution,))
    # in the dtype that is drawn in, as JAX does
    if distribution == "uniform":
        bound = sqrt(3 * variance)
        return Draw(_draw_symmetric, (bound, half_open(-bound, bound, dtype)))
    stddev = sqrt(variance)
    if distribution == "normal":
        return plan_normal(shape, dtype, stddev)
    return plan_truncated(shape, dtype, stddev / scalar(_CUT_STDDEV, wide), 0.0, -2.0, 2.0)


def _fan_of_mode(mode: Mode, fan: Fan, shape: tuple[int, ...]) -> float:
    """The fan of a shape that a mode means; 1 for a shape without elements."""
    fan_in, fan_out = fan.of(shape)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return fans[mode] or 1.0


def _draw_symmetric(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, bound: Scalar, bounds: Bounds
) -> jax.Array:
    """Draw numbers uniform in [-bound, bound)."""
    return bounds.round(jax.random.uniform(key, shape, drawn_in(dtype), -1) * bound, dtype)


def _draw_complex(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, variance: Scalar, distribution: Distribution
) -> jax.Array:
    """Draw complex numbers with this variance, as JAX does: uniform in a disk, or Gaussian, perhaps cut at a disk."""
    every_axis = range(len(shape))  # of the batch, so that both fans are 1
    draw = jax.nn.initializers.variance_scaling(variance, "fan_in", distribution, (), (), every_axis)
    return draw(key, shape, dtype)


@factory
def xavier_uniform(
    gain: Number = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Recipe:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010); `glorot_uniform` is the same.

    >>> xavier_uniform(2.0), xavier_uniform(in_axis=0, out_axis=(1, 2))
    (xavier_uniform(2.0), xavier_uniform(in_axis=0, out_axis=(1, 2)))

    Args:
        gain: a factor of the standard deviation, such as `gain("tanh")`.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: a gain below 0; axes that are named twice; a shape without the axes, when it draws.
    """
    return _xavier("xavier_uniform", gain, "uniform", Fan(in_axis, out_axis, batch_axis, groups))


@factory
def xavier_normal(
    gain: Number = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Recipe:
    """Gaussian with the variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010); `glorot_normal` is the same.

    >>> xavier_normal(2.0)
    xavier_normal(2.0)

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(1.0, "fan_avg", "normal")`.

    Args:
        gain: a factor of the standard deviation, such as `gain("tanh")`.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: a gain below 0; axes that are named twice; a shape without the axes, when it draws.
    """
    return _xavier("xavier_normal", gain, "truncated_normal", Fan(in_axis, out_axis, batch_axis, groups))


def _xavier(name: str, gain: Number, distribution: Distribution, fan: Fan) -> Recipe:
    gain = number("gain", gain, 0)
    text = called(name, *unless_default(gain, 1), **fan.shown())
    return _scaling(text, gain**2, "fan_avg", distribution, fan)


@factory
def kaiming_uniform(
    negative_slope: Number = 0.0, mode: Mode = "fan_in", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Recipe:  # fmt: skip
    """Uniform in +-sqrt(6 / fan / (1 + negative_slope**2)), for layers before a ReLU (He et al. 2015); `he_uniform` is the same.

    >>> kaiming_uniform(mode="fan_out"), kaiming_uniform(in_axis=-1, out_axis=-2)      # of (out, in), as in Equinox
    (kaiming_uniform(mode='fan_out'), kaiming_uniform(in_axis=-1, out_axis=-2))

    Args:
        negative_slope: that of a leaky ReLU; 0 for a ReLU.
        mode: `fan_in`, `fan_out`, or `fan_avg`, their mean.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: another mode; axes that are named twice; a shape without the axes, when it draws.
    """
    return _kaiming("kaiming_uniform", negative_slope, mode, "uniform", Fan(in_axis, out_axis, batch_axis, groups))


@factory
def kaiming_normal(
    negative_slope: Number = 0.0, mode: Mode = "fan_in", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Recipe:  # fmt: skip
    """Gaussian with the variance 2 / fan / (1 + negative_slope**2), before a ReLU (He et al. 2015); `he_normal` is the same.

    >>> kaiming_normal(mode="fan_out"), kaiming_normal(in_axis=-1, out_axis=-2)      # of (out, in), as in Equinox
    (kaiming_normal(mode='fan_out'), kaiming_normal(in_axis=-1, out_axis=-2))

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(2.0, "fan_in", "normal")`.

    Args:
        negative_slope: that of a leaky ReLU; 0 for a ReLU.
        mode: `fan_in`, `fan_out`, or `fan_avg`, their mean.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: another mode; axes that are named twice; a shape without the axes, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _kaiming("kaiming_normal", negative_slope, mode, "truncated_normal", fan)


def _kaiming(name: str, negative_slope: Number, mode: Mode, distribution: Distribution, fan: Fan) -> Recipe:
    slope = number("negative_slope", negative_slope)
    text = called(name, negative_slope=(slope, 0.0), mode=(mode, "fan_in"), **fan.shown())
    return _scaling(text, 2.0 / (1 + slope**2), mode, distribution, fan)


@factory
def lecun_uniform(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Recipe:  # fmt: skip
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al. 1998).

    >>> lecun_uniform(in_axis=-1, out_axis=-2)      # for (out, in), as in PyTorch and Equinox
    lecun_uniform(in_axis=-1, out_axis=-2)

    Args:
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: axes that are named twice; a shape without the axes, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _scaling(called("lecun_uniform", **fan.shown()), 1.0, "fan_in", "uniform", fan)


@factory
def lecun_normal(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Recipe:  # fmt: skip
    """Gaussian with the variance 1 / fan_in (LeCun et al. 1998), cut at two standard deviations and widened to that.

    >>> lecun_normal(), lecun_normal(in_axis=-1, out_axis=-2)      # for (in, out), and for (out, in) as in Equinox
    (lecun_normal(), lecun_normal(in_axis=-1, out_axis=-2))

    Args:
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.
        groups: by which features out are divided, as of a grouped convolution.

    Raises:
        InitError: axes that are named twice; a shape without the axes, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _scaling(called("lecun_normal", **fan.shown()), 1.0, "fan_in", "truncated_normal", fan)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
he_uniform, he_normal = kaiming_uniform, kaiming_normal


@factory
def gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """The gain by which Xavier or orthogonal kernels keep the variance before a nonlinearity, as `torch.nn.init.calculate_gain`.

    >>> round(gain("relu"), 4), round(gain("tanh"), 4), gain("linear")
    (1.4142, 1.6667, 1.0)

    Args:
        nonlinearity: its name: linear, sigmoid, tanh, relu, leaky_relu or selu.
        negative_slope: that of `leaky_relu`.

    Raises:
        InitError: a nonlinearity that is not linear, sigmoid, tanh, relu, leaky_relu or selu.
    """
    negative_slope = real("negative_slope", negative_slope)
    gains = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + negative_slope**2)),
    }  # fmt: skip
    if not isinstance(nonlinearity, str) or nonlinearity not in gains:
        raise InitError(f"no gain is known for {quoted(nonlinearity)}, only for {sorted(gains)}")
    return gains[nonlinearity]


@factory
def orthogonal(gain: Number = 1.0, *, out_axis: Axes = -1, batch_axis: Axes = ()) -> Recipe:
    """Orthogonal kernel: `gain` times a matrix with orthonormal rows or columns, between `out_axis` and all others (Saxe et al. 2013).

    >>> w = orthogonal(2.0)(jax.random.key(0), (3, 3))
    >>> (w.T @ w).round(3).tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]

    Each index of a batch axis has a matrix of its own. On a mesh each device computes the whole matrix.

    Args:
        gain: a factor of the matrix.
        out_axis: the axis or axes of features out.
        batch_axis: axes of an ensemble or of experts.

    Raises:
        InitError: no axis beside those of `out_axis` and the batch, when it draws.
    """
    gain = scale("gain", gain)
    options = {"out_axis": (out_axis, -1), "batch_axis": (batch_axis, ())}
    text = called("orthogonal", *unless_default(gain, 1), **options)
    return Recipe(text, _plan_orthogonal, (gain, axes_of(out_axis, "out_axis"), axes_of(batch_axis, "batch_axis")))


def _plan_orthogonal(
    shape: tuple[int, ...], dtype: DTypeLike, gain: Number, out_axis: tuple[int, ...], batch_axis: tuple[int, ...]
) -> Draw:
    batch = from_front(batch_axis, len(shape), "batch_axis")
    out = from_front(out_axis, len(shape), "out_axis")
    rest = [axis for axis in range(len(shape)) if axis not in batch and axis not in out]
    if not rest or set(batch) & set(out):
        raise InitError(f"orthogonal needs an axis in and an axis out beside those of the batch; the shape is {shape}")
    return Draw(_draw_orthogonal, (scalar(gain, drawn_in(dtype)),), (tuple(rest), tuple(out), tuple(batch)))


def _draw_orthogonal(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    gain: Scalar,
    rest: tuple[int, ...],
    out: tuple[int, ...],
    batch: tuple[int, ...],
) -> jax.Array:
    matrix_shape = math.prod(shape[axis] for axis in rest), math.prod(shape[axis] for axis in out)

    def draw_matrix(key: jax.Array) -> jax.Array:
        return jax.nn.initializers.orthogonal(gain)(key, matrix_shape, drawn_in(dtype)).astype(dtype)

    if batch:  # not one matrix for all: each expert or ensemble member is orthogonal by itself
        count = math.prod(shape[axis] for axis in batch)
        matrices = jax.vmap(draw_matrix)(jax.random.split(key, count))
    else:
        matrices = draw_matrix(key)
    # the matrices have the axes in this order; transposed back to the order of the shape
    order = [*batch, *rest, *out]
    return matrices.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
