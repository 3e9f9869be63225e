"""Initialisers that the shape scales: variance_scaling and its special cases, orthogonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InitError
from ._initializer import Axes, Initializer, axes_of, called, drawn_in, from_front, number


@dataclass(frozen=True)
class Fan:
    """Which axes of a kernel count as what."""

    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("in_axis", "out_axis", "batch_axis"):
            object.__setattr__(self, name, axes_of(getattr(self, name)))
        if self.groups < 1:
            raise InitError(f"groups must be at least 1, got {self.groups}")

    def of(self, shape: Sequence[int]) -> tuple[float, float]:
        """fan_in and fan_out.

        Raises:
            InitError: the shape does not have the axes.
        """
        roles = self.roles(shape)
        taken = {axis for axes in roles.values() for axis in axes}
        spatial = math.prod(size for axis, size in enumerate(shape) if axis not in taken)
        fan_in, fan_out = (math.prod(shape[axis] for axis in roles[name]) * spatial for name in ("in_axis", "out_axis"))
        return fan_in, fan_out / self.groups

    def roles(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """The axes of each role, counted from the front; all others are spatial."""
        roles = {n: from_front(getattr(self, n), len(shape), n) for n in ("in_axis", "out_axis", "batch_axis")}
        taken = [axis for axes in roles.values() for axis in axes]
        if len({*taken}) < len(taken):
            raise InitError(f"an axis is named twice: {', '.join(f'{name}={axes}' for name, axes in roles.items())}")
        return roles

    def shown(self) -> dict[str, tuple[Any, Any]]:
        """The options as `called` takes them."""
        axes = {"in_axis": (-2,), "out_axis": (-1,), "batch_axis": ()}
        plain = {name: (getattr(self, name), default) for name, default in axes.items()}
        single = {n: (v[0] if len(v) == 1 else v, d[0] if d else d) for n, (v, d) in plain.items()}
        return {**single, "groups": (self.groups, 1)}


def variance_scaling(
    scale: float, mode: str = "fan_in", distribution: str = "truncated_normal", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Initializer:  # fmt: skip
    """Variance `scale / fan`, where `mode` is `fan_in`, `fan_out` or `fan_avg`, and `distribution` says what is drawn.

    >>> variance_scaling(2.0, "fan_out", "normal", groups=8)
    variance_scaling(2.0, 'fan_out', 'normal', groups=8)

    The distribution is `normal`, `uniform`, or `truncated_normal`, which is cut at two standard deviations and
    widened to just that variance. The docstring of `ptree.initializers` says which axes count as fan.

    Raises:
        InitError: another mode or distribution, a negative scale; a shape without the axes, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    text = called("variance_scaling", scale, mode, distribution, **fan.shown())
    return _scaling(text, scale, mode, distribution, fan)


def _scaling(text: str, scale: float, mode: str, distribution: str, fan: Fan) -> Initializer:
    if mode not in ("fan_in", "fan_out", "fan_avg") or distribution not in ("normal", "truncated_normal", "uniform"):
        raise InitError(
            "mode must be 'fan_in', 'fan_out' or 'fan_avg', and distribution 'normal', 'truncated_normal' or"
            f" 'uniform'; got {mode!r} and {distribution!r}"
        )
    return Initializer(text, _scaled, (number("scale", scale, 0), mode, distribution, fan))


def _scaled(key: Any, shape: Any, dtype: Any, scale: Any, mode: Any, distribution: Any, fan: Fan) -> Any:
    fan_in, fan_out = fan.of(shape)
    if fan.groups > 1 and mode != "fan_in":  # jax knows no groups: the variance is theirs with the scale moved
        plain = fan_out * fan.groups
        scale = scale * (fan.groups if mode == "fan_out" else (fan_in + plain) / (fan_in + fan_out))
    draw = jax.nn.initializers.variance_scaling(
        scale, mode, distribution, in_axis=fan.in_axis, out_axis=fan.out_axis, batch_axis=fan.batch_axis
    )
    return draw(key, shape, drawn_in(dtype)).astype(dtype)


def xavier_uniform(
    gain: float = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010); also `glorot_uniform`.

    >>> xavier_uniform(2.0), xavier_uniform(in_axis=0, out_axis=(1, 2))
    (xavier_uniform(2.0), xavier_uniform(in_axis=0, out_axis=(1, 2)))
    """
    return _xavier("xavier_uniform", gain, "uniform", Fan(in_axis, out_axis, batch_axis, groups))


def xavier_normal(
    gain: float = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:
    """Gaussian with the variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010); also `glorot_normal`.

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(1.0, "fan_avg", "normal")`.
    """
    return _xavier("xavier_normal", gain, "truncated_normal", Fan(in_axis, out_axis, batch_axis, groups))


def _xavier(name: str, gain: float, distribution: str, fan: Fan) -> Initializer:
    gain = number("gain", gain, 0)
    text = called(name, *([] if gain == 1 else [gain]), **fan.shown())
    return _scaling(text, gain**2, "fan_avg", distribution, fan)


def kaiming_uniform(
    negative_slope: float = 0.0, mode: str = "fan_in", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Initializer:  # fmt: skip
    """Uniform in +-sqrt(6 / fan / (1 + negative_slope**2)), for layers before a ReLU (He et al. 2015); also `he_uniform`.

    >>> kaiming_uniform(mode="fan_out")
    kaiming_uniform(mode='fan_out')
    """
    return _kaiming("kaiming_uniform", negative_slope, mode, "uniform", Fan(in_axis, out_axis, batch_axis, groups))


def kaiming_normal(
    negative_slope: float = 0.0, mode: str = "fan_in", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1,
) -> Initializer:  # fmt: skip
    """Gaussian with the variance 2 / fan / (1 + negative_slope**2), before a ReLU (He et al. 2015); also `he_normal`.

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(2.0, "fan_in", "normal")`.
    """
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _kaiming("kaiming_normal", negative_slope, mode, "truncated_normal", fan)


def _kaiming(name: str, negative_slope: float, mode: str, distribution: str, fan: Fan) -> Initializer:
    slope = number("negative_slope", negative_slope)
    text = called(name, negative_slope=(slope, 0.0), mode=(mode, "fan_in"), **fan.shown())
    return _scaling(text, 2.0 / (1 + slope**2), mode, distribution, fan)


def lecun_uniform(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:  # fmt: skip
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al. 1998)."""
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _scaling(called("lecun_uniform", **fan.shown()), 1.0, "fan_in", "uniform", fan)


def lecun_normal(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:  # fmt: skip
    """Gaussian with the variance 1 / fan_in (LeCun et al. 1998), cut at two standard deviations and widened to that."""
    fan = Fan(in_axis, out_axis, batch_axis, groups)
    return _scaling(called("lecun_normal", **fan.shown()), 1.0, "fan_in", "truncated_normal", fan)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
he_uniform, he_normal = kaiming_uniform, kaiming_normal


def gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """The gain that keeps the variance before this nonlinearity, as `torch.nn.init.calculate_gain`.

    >>> round(gain("relu"), 4), round(gain("tanh"), 4), gain("linear")
    (1.4142, 1.6667, 1.0)

    Raises:
        InitError: a nonlinearity that is not linear, sigmoid, tanh, relu, leaky_relu or selu.
    """
    known = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + negative_slope**2)),
    }  # fmt: skip
    if nonlinearity not in known:
        raise InitError(f"no gain is known for {nonlinearity!r}, only for {sorted(known)}")
    return known[nonlinearity]


def orthogonal(gain: float = 1.0, *, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """`gain` times a matrix with orthonormal rows or columns, between `out_axis` and all others (Saxe et al. 2013).

    >>> w = orthogonal(2.0)(jax.random.key(0), (3, 3))
    >>> (w.T @ w).round(3).tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]

    Each index of a batch axis has a matrix of its own. On a mesh each device computes the whole matrix.

    Raises:
        InitError: no axis beside those of `out_axis` and the batch, when it draws.
    """
    gain = number("gain", gain)
    options = {"out_axis": (out_axis, -1), "batch_axis": (batch_axis, ())}
    text = called("orthogonal", *([] if gain == 1 else [gain]), **options)
    return Initializer(text, _orthogonal, (gain, axes_of(out_axis), axes_of(batch_axis)))


def _orthogonal(key: Any, shape: Any, dtype: Any, gain: Any, out_axis: Any, batch_axis: Any) -> Any:
    batch = from_front(batch_axis, len(shape), "batch_axis")
    out = from_front(out_axis, len(shape), "out_axis")
    rest = [axis for axis in range(len(shape)) if axis not in (*batch, *out)]
    if not rest or {*batch} & {*out}:
        raise InitError(f"orthogonal needs an axis in and an axis out beside those of the batch; the shape is {shape}")
    moved = [*batch, *rest, *out]
    matrix = math.prod(shape[axis] for axis in rest), math.prod(shape[axis] for axis in out)
    wide = drawn_in(dtype) if drawn_in(dtype).itemsize >= 4 else jnp.float32  # nobody factorises in bf16

    def one(key: Any) -> Any:
        return jax.nn.initializers.orthogonal(gain)(key, matrix, wide).astype(dtype)

    count = math.prod(shape[axis] for axis in batch)
    drawn = jax.vmap(one)(jax.random.split(key, count)) if batch else one(key)
    return drawn.reshape([shape[axis] for axis in moved]).transpose(np.argsort(moved))
