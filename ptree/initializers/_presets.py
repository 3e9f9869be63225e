"""What frameworks and papers start from: initialisers as they stand, or called with options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._errors import InitError
from ._distributions import draw_normal, draw_uniform, normal, uniform
from ._fans import Fan, glorot_uniform, lecun_normal
from ._initializer import Axes, Initializer, called, number
from ._values import zeros


class Preset(Initializer):
    """An initialiser as it stands; called with options, one with these."""

    def __init__(self, make: Callable[..., Initializer], bias: Callable[..., Initializer] | None = None, **given: Any):
        name, made = make.__name__.strip("_"), make(**given)
        text = called(name, **{option: (value, None) for option, value in given.items()}) if given else name
        super().__init__(text, made.draw, made.options)
        object.__setattr__(self, "__doc__", make.__doc__)
        object.__setattr__(self, "_made", (make, bias, given))

    def __call__(self, *given: Any, **options: Any) -> Any:
        make, bias, before = self._made  # pyright: ignore[reportAttributeAccessIssue]
        names = [*inspect.signature(make).parameters]
        if len(given) > 1 or "shape" in options:  # (key, shape, dtype)
            return super().__call__(*given, **options)
        options = {**dict(zip(names, given, strict=False)), **options}
        wrong = [name for name in options if name not in names]
        if wrong or len(given) > len(names):
            name = make.__name__.strip("_")
            raise InitError(f"{name} takes the options {names}, got {wrong or list(given)}")
        return Preset(make, bias, **{**before, **options})

    def for_bias(self, kernel: tuple[int, ...]) -> Initializer:
        """What the framework draws for the bias beside a kernel of this shape."""
        _, bias, given = self._made  # pyright: ignore[reportAttributeAccessIssue]
        return self if bias is None else bias(kernel, **given)


def _no_bias(kernel: Any, **given: Any) -> Initializer:
    return zeros


def _dense(name: str, fan: Fan, draw: Callable[..., Any], *options: Any) -> Initializer:
    """A kernel all of whose axes are in, out or batch: in a dense layer no axis is spatial."""
    return Initializer(name, _draw_dense, (name, fan, draw, *options))


def _draw_dense(key: Any, shape: Any, dtype: Any, name: str, fan: Fan, draw: Callable[..., Any], *options: Any) -> Any:
    if len(shape) < 2:
        fix = "torch_linear(fan_in=...)" if draw is _torch else "a rule of its own, such as zeros"
        raise InitError(f"{_LONE_BIAS}; give it {fix}")
    if len({axis for axes in fan.roles(shape).values() for axis in axes}) < len(shape):
        raise InitError(
            f"{name} takes every axis as in, out or batch, and the shape {shape} has more: name them all in in_axis,"
            f" out_axis and batch_axis, or take {name.split('_')[0]}_conv"
        )
    return draw(key, shape, dtype, *options)


_LONE_BIAS = "it is a bias without a kernel beside it"


def _torch_linear(
    fan_in: int | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """PyTorch's `Linear`: uniform in +-1 / sqrt(fan_in), the bias too.

    The bias takes the fan_in of the kernel beside it; one that stands alone needs it as an option:
    `torch_linear(784)`.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    if fan_in is not None:
        return Initializer("torch", _torch, (number("fan_in", fan_in, 1), fan))
    return _dense("torch_linear", fan, _torch, None, fan)


def _torch_conv(
    fan_in: int | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """PyTorch's `Conv1d` to `Conv3d`: uniform in +-1 / sqrt(fan_in), the bias too, as for `torch_linear`.

    The kernel is (spatial..., in / groups, out). For `ConvTranspose` PyTorch takes the other axis:
    `torch_conv(in_axis=-1, out_axis=-2)`.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    return Initializer("torch", _torch, (None if fan_in is None else number("fan_in", fan_in, 1), fan))


def _torch(key: Any, shape: Any, dtype: Any, fan_in: Any, fan: Fan) -> Any:
    if fan_in is None and len(shape) < 2:
        raise InitError(f"{_LONE_BIAS}; give it torch_conv(fan_in=...)")
    bound = 1 / math.sqrt(fan.of(shape)[0] if fan_in is None else fan_in)
    return draw_uniform(key, shape, dtype, -bound, bound)


def _torch_bias(kernel: Any, fan_in: int | None = None, **axes: Any) -> Initializer:
    return torch_linear(fan_in=max(int(Fan(**axes).of(kernel)[0]), 1) if fan_in is None else fan_in)


def _torch_embedding(padding_idx: int | None = None) -> Initializer:
    """PyTorch's `Embedding`: Gaussian with the standard deviation 1; the row `padding_idx`, if given, is 0."""
    return Initializer("torch", _torch_table, (padding_idx,))


def _torch_table(key: Any, shape: Any, dtype: Any, padding_idx: Any) -> Any:
    if padding_idx is not None and not -shape[0] <= padding_idx < shape[0]:
        raise InitError(f"padding_idx={padding_idx} is no row of a table of {shape[0]}")
    table = draw_normal(key, shape, dtype, 1.0)
    return table if padding_idx is None else table.at[padding_idx].set(jnp.zeros((), dtype))


def _keras_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Keras' `Dense`: `glorot_uniform`; a bias beside a kernel is 0."""
    return _dense("keras_dense", Fan(in_axis, out_axis, batch_axis), _keras_conv(in_axis, out_axis, batch_axis))


def _keras_conv(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Keras' convolutions: `glorot_uniform` of a (spatial..., in / groups, out) kernel; a bias beside it is 0."""
    return glorot_uniform(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)


def _keras_embedding() -> Initializer:
    """Keras' `Embedding`: uniform in [-0.05, 0.05)."""
    return uniform(-0.05, 0.05)


def _flax_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Flax's `Dense` and `DenseGeneral`: `lecun_normal`; a bias beside a kernel is 0.

    Haiku's `Linear` does not widen the cut Gaussian: its spread is 0.88 of this, `variance_scaling(0.774)`.
    """
    return _dense("flax_dense", Fan(in_axis, out_axis, batch_axis), _flax_conv(in_axis, out_axis, batch_axis))


def _flax_conv(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Flax's convolutions: `lecun_normal` of a (spatial..., in / groups, out) kernel; a bias beside it is 0."""
    return lecun_normal(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)


def _mxnet_default(scale: float = 0.07) -> Initializer:
    """MXNet's and Gluon's default: uniform in [-0.07, 0.07); a bias beside a kernel is 0."""
    return uniform(-scale, scale)


torch_linear = Preset(_torch_linear, _torch_bias)
torch_conv = Preset(_torch_conv, _torch_bias)
torch_embedding = Preset(_torch_embedding)
keras_dense = Preset(_keras_dense, _no_bias)
keras_conv = Preset(_keras_conv, _no_bias)
keras_embedding = Preset(_keras_embedding)
flax_dense = Preset(_flax_dense, _no_bias)
flax_conv = Preset(_flax_conv, _no_bias)
mxnet_default = Preset(_mxnet_default, _no_bias)


def gpt2_residual(layers: int, stddev: float = 0.02) -> Initializer:
    """GPT-2's projections into the residual stream: `normal(stddev / sqrt(2 * layers))` (Radford et al. 2019, 2.3).

    >>> gpt2_residual(12)
    gpt2_residual(12)

    Each of the `layers` blocks adds to the stream twice. All other kernels and tables have `normal(0.02)`.

    Raises:
        InitError: fewer than 1 layer, or a negative `stddev`.
    """
    text = called("gpt2_residual", layers, stddev=(stddev, 0.02))
    return Initializer(text, draw_normal, normal(stddev / math.sqrt(2 * number("layers", layers, 1))).options)


def mup(
    base_width: int, stddev: float = 0.02, role: str = "hidden", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (),
) -> Initializer:  # fmt: skip
    """Gaussian scaled from a model of `base_width` so that the best learning rate moves over (Yang et al. 2022, table 3).

    >>> mup(256)
    mup(256)

    With m = fan_in / base_width the standard deviation is `stddev / sqrt(m)` for a `hidden` kernel, `stddev / m`
    for an `output` kernel (width to logits), and `stddev` for an `input` one (tables, first layers). At
    `base_width` all three are `normal(stddev)`. The learning rates are the optimiser's part.

    Raises:
        InitError: another role, or a `base_width` below 1.
    """
    powers = {"hidden": 0.5, "output": 1.0, "input": 0.0}
    if role not in powers:
        raise InitError(f"mup takes a role of {[*powers]}, got {role!r}")
    fan = Fan(in_axis, out_axis, batch_axis)
    text = called("mup", base_width, stddev=(stddev, 0.02), role=(role, "hidden"), **fan.shown())
    facts = number("base_width", base_width, 1), number("stddev", stddev, 0), powers[role], fan
    return Initializer(text, _mup, facts)


def _mup(key: Any, shape: Any, dtype: Any, base_width: Any, stddev: Any, power: Any, fan: Fan) -> Any:
    wider = fan.of(shape)[0] / base_width if power else 1.0
    return draw_normal(key, shape, dtype, stddev / wider**power)
