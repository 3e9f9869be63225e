"""Presets of frameworks and papers: kernel and bias of PyTorch's, Keras' and Flax's dense, conv and embedding layers, MXNet,
GPT-2, muP.

Each draws a kernel and the bias beside it as that framework does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import quoted
from ._distributions import normal, plan_normal, plan_uniform, uniform
from ._fans import Fan, glorot_uniform, lecun_normal
from ._options import Axes, Number, RealNumber, called, factory, number, real, whole
from ._recipe import Draw, Recipe
from ._scheme import Preset, Scheme, Site
from ._values import zeros

_LONE_BIAS = "it is a bias without a kernel beside it"
_RULE_OF_ITS_OWN = "give it a rule of its own, such as zeros"


# ------------------------------------------------------------------------------ PyTorch


def _torch_linear(
    fan_in: float | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Scheme:
    """PyTorch's `Linear`: uniform in +-1 / sqrt(fan_in), the bias too.

    >>> torch_linear, torch_linear(784)
    (torch_linear, torch_linear(fan_in=784))

    That is for an (in, out) kernel, as JAX has it. Weights that are (out, in), of PyTorch itself and of Equinox, need

    >>> torch_linear(in_axis=-1, out_axis=-2)
    torch_linear(in_axis=-1, out_axis=-2)

    The bias takes the fan_in of the kernel beside it; one that stands alone needs it as an option:
    `torch_linear(784)`.

    Args:
        fan_in: the fan-in, for a bias without a kernel beside it.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: a lone bias, or axes that the kernel does not have, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    if fan_in is None:
        kernel = _dense("torch_linear", "give it torch_linear(fan_in=...)", fan, _plan_torch, None, fan)
    else:
        fan_in = real("fan_in", fan_in, 1)
        kernel = Recipe("torch_linear", _plan_torch, (fan_in, fan))
    return Scheme(kernel, TorchBias(fan, fan_in))


def _torch_conv(fan_in: float | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Scheme:
    """PyTorch's `Conv1d` to `Conv3d`: uniform in +-1 / sqrt(fan_in), the bias too, as for `torch_linear`.

    >>> torch_conv, torch_conv(in_axis=-1, out_axis=-2)
    (torch_conv, torch_conv(in_axis=-1, out_axis=-2))

    The kernel is (spatial..., in / groups, out). For `ConvTranspose` PyTorch takes the other axis:
    `torch_conv(in_axis=-1, out_axis=-2)`. Kernels of PyTorch and Equinox, (out, in, spatial...), need
    `torch_conv(in_axis=1, out_axis=0)`.

    Args:
        fan_in: the fan-in, for a bias without a kernel beside it.
        in_axis: the axis or axes of features in: 1 of kernels of PyTorch and Equinox, (out, in, spatial...).
        out_axis: the axis or axes of features out: 0 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: a lone bias, or axes that the kernel does not have, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    fan_in = None if fan_in is None else real("fan_in", fan_in, 1)
    return Scheme(Recipe("torch_conv", _plan_torch, (fan_in, fan)), TorchBias(fan, fan_in))


def _plan_torch(shape: tuple[int, ...], dtype: DTypeLike, fan_in: float | None, fan: Fan) -> Draw:
    if fan_in is None and len(shape) < 2:
        raise InitError(f"{_LONE_BIAS}; give it torch_conv(fan_in=...)")
    bound = 1 / math.sqrt(fan.of(shape)[0] if fan_in is None else fan_in)
    return plan_uniform(shape, dtype, -bound, bound)


@dataclass(frozen=True)
class TorchBias:
    """PyTorch's bias: uniform in +-1 / sqrt(fan_in), with the fan_in of the kernel beside it unless one is given."""

    fan: Fan
    fan_in: float | None

    def __call__(self, site: Site) -> Recipe:
        fan_in = self.fan_in
        if fan_in is None:
            assert site.kernel is not None  # a scheme asks for the bias beside a kernel only
            fan_in = max(int(self.fan.of(site.kernel)[0]), 1)
        return Recipe(called("torch_linear", fan_in=(fan_in, None)), _plan_torch, (fan_in, Fan()))


def _torch_embedding(padding_idx: int | None = None) -> Scheme:
    """PyTorch's `Embedding`: Gaussian with the standard deviation 1; the row `padding_idx`, if given, is 0.

    >>> torch_embedding(padding_idx=0)(jax.random.key(0), (3, 2))[0].tolist()
    [0.0, 0.0]

    Args:
        padding_idx: the row that starts at 0.

    Raises:
        InitError: a row that the table does not have, when it draws.
    """
    row = None if padding_idx is None else whole("padding_idx", padding_idx)
    return Scheme(Recipe("torch_embedding", _plan_torch_table, (row,)))


def _plan_torch_table(shape: tuple[int, ...], dtype: DTypeLike, padding_idx: int | None) -> Draw:
    gaussian = plan_normal(shape, dtype, 1.0)
    if padding_idx is None:
        return gaussian
    if not -shape[0] <= padding_idx < shape[0]:
        raise InitError(f"padding_idx={padding_idx} is no row of a table of {shape[0]}")
    return Draw(_draw_torch_table, (gaussian,), (padding_idx,))


def _draw_torch_table(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, gaussian: Draw, padding_idx: int
) -> jax.Array:
    # only the start: PyTorch also keeps this row out of training, which no initialiser can
    return gaussian(key, shape, dtype).at[padding_idx].set(jnp.zeros((), dtype))


# ------------------------------------------------------------------- Keras, Flax and MXNet


def _zero_bias(site: Site) -> Recipe:
    """Zero bias beside a kernel, as in Keras, Flax and MXNet."""
    return zeros


def _keras_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Scheme:
    """Keras' `Dense`: `glorot_uniform`; a bias beside a kernel is 0.

    >>> keras_dense(jax.random.key(0), (4, 8)).shape
    (4, 8)

    Args:
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: a lone bias, or axes that the kernel does not have, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    draw = glorot_uniform(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)
    return Scheme(_dense("keras_dense", _RULE_OF_ITS_OWN, fan, _plan_of, draw), _zero_bias)


def _keras_conv(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Scheme:
    """Keras' convolutions: `glorot_uniform` of a (spatial..., in / groups, out) kernel; a bias beside it is 0.

    >>> keras_conv(jax.random.key(0), (3, 3, 4, 8)).shape
    (3, 3, 4, 8)

    Args:
        in_axis: the axis or axes of features in: 1 of kernels of PyTorch and Equinox, (out, in, spatial...).
        out_axis: the axis or axes of features out: 0 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: axes that the kernel does not have, when it draws.
    """
    return Scheme(glorot_uniform(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis), _zero_bias)


def _keras_embedding() -> Scheme:
    """Keras' `Embedding`: uniform in [-0.05, 0.05).

    >>> bool(abs(keras_embedding(jax.random.key(0), (50, 8))).max() <= 0.05)
    True
    """
    return Scheme(uniform(-0.05, 0.05))


def _flax_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Scheme:
    """Flax's `Dense` and `DenseGeneral`: `lecun_normal`; a bias beside a kernel is 0.

    >>> flax_dense(jax.random.key(0), (4, 8)).shape
    (4, 8)

    Haiku's `Linear` does not widen the cut Gaussian: its standard deviation is 0.88 of this, `variance_scaling(0.774)`.

    Args:
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: a lone bias, or axes that the kernel does not have, when it draws.
    """
    fan = Fan(in_axis, out_axis, batch_axis)
    draw = lecun_normal(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)
    return Scheme(_dense("flax_dense", _RULE_OF_ITS_OWN, fan, _plan_of, draw), _zero_bias)


def _flax_conv(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Scheme:
    """Flax's convolutions: `lecun_normal` of a (spatial..., in / groups, out) kernel; a bias beside it is 0.

    >>> flax_conv(jax.random.key(0), (3, 3, 4, 8)).shape
    (3, 3, 4, 8)

    Args:
        in_axis: the axis or axes of features in: 1 of kernels of PyTorch and Equinox, (out, in, spatial...).
        out_axis: the axis or axes of features out: 0 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: axes that the kernel does not have, when it draws.
    """
    return Scheme(lecun_normal(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis), _zero_bias)


def _mxnet_default(scale: Number = 0.07) -> Scheme:
    """MXNet's and Gluon's default: uniform in [-0.07, 0.07); a bias beside a kernel is 0.

    >>> mxnet_default(scale=0.1)
    mxnet_default(scale=0.1)

    Args:
        scale: the bound on both sides.

    Raises:
        InitError: a scale below 0.
    """
    scale = number("scale", scale, 0)
    return Scheme(uniform(-scale, scale), _zero_bias)


# ----------------------------------------------------------------------- dense kernels


def _dense(name: str, lone_bias_fix: str, fan: Fan, plan: Callable[..., Draw], *options: object) -> Recipe:
    """A recipe for dense kernels, all of whose axes are in, out or batch: Dense and Linear have no spatial axis."""
    return Recipe(name, _plan_dense, (name, lone_bias_fix, fan, plan, *options))


def _plan_dense(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    name: str,
    lone_bias_fix: str,
    fan: Fan,
    plan: Callable[..., Draw],
    *options: object,
) -> Draw:
    if len(shape) < 2:
        raise InitError(f"{_LONE_BIAS}; {lone_bias_fix}")
    # a dense preset on the kernel of a convolution would take the wrong fan in silence
    with_role = {axis for axes in fan.roles(shape).values() for axis in axes}
    if len(with_role) < len(shape):
        framework = name.split("_")[0]
        raise InitError(
            f"{name} takes every axis as in, out or batch, and the shape {shape} has more: name them all in in_axis,"
            f" out_axis and batch_axis, or take {framework}_conv"
        )
    return plan(shape, dtype, *options)


def _plan_of(shape: tuple[int, ...], dtype: DTypeLike, recipe: Recipe) -> Draw:
    return recipe.at(shape, dtype)


torch_linear = Preset(_torch_linear)
torch_conv = Preset(_torch_conv)
torch_embedding = Preset(_torch_embedding)
keras_dense = Preset(_keras_dense)
keras_conv = Preset(_keras_conv)
keras_embedding = Preset(_keras_embedding)
flax_dense = Preset(_flax_dense)
flax_conv = Preset(_flax_conv)
mxnet_default = Preset(_mxnet_default)


# --------------------------------------------------------------------------- from papers


@factory
def gpt2_residual(layers: int, stddev: Number = 0.02) -> Recipe:
    """GPT-2's projections into the residual stream: `normal(stddev / sqrt(2 * layers))` (Radford et al. 2019, 2.3).

    >>> gpt2_residual(12)
    gpt2_residual(12)

    Each of the `layers` blocks adds to the stream twice. All other kernels and tables have `normal(0.02)`.

    Args:
        layers: how many blocks the model has.
        stddev: that of all other kernels.

    Raises:
        InitError: fewer than 1 layer, or a negative `stddev`.
    """
    layers = whole("layers", layers, 1)
    text = called("gpt2_residual", layers, stddev=(stddev, 0.02))
    scaled = normal(number("stddev", stddev, 0) / math.sqrt(2 * layers))
    # the options of `normal`, and the text of this call: it prints as it was written
    return Recipe(text, plan_normal, scaled.options)


Role: TypeAlias = Literal["hidden", "output", "input"]


@factory
def mup(
    base_width: float, stddev: Number = 0.02, role: Role = "hidden", *,
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (),
) -> Recipe:  # fmt: skip
    """Gaussian scaled so that the best learning rate of a model of `base_width` is that of this one too (Yang et al. 2022, table 3).

    >>> mup(256)
    mup(256)

    With m = fan_in / base_width the standard deviation is `stddev / sqrt(m)` for a `hidden` kernel, `stddev / m`
    for an `output` kernel (width to logits), and `stddev` for an `input` one (tables, first layers). At
    `base_width` all three are `normal(stddev)`. The learning rates are the optimiser's part.

    Args:
        base_width: the fan-in of the model whose learning rate was tuned.
        stddev: that of the base model.
        role: `hidden`, `output` or `input`.
        in_axis: the axis or axes of features in: -1 of weights of PyTorch and Equinox, which are (out, in).
        out_axis: the axis or axes of features out: -2 of those.
        batch_axis: axes of an ensemble or of experts, which count for no fan.

    Raises:
        InitError: another role, or a `base_width` below 1.
    """
    if role not in get_args(Role):
        raise InitError(f"mup takes a role of {[*get_args(Role)]}, got {quoted(role)}")
    fan = Fan(in_axis, out_axis, batch_axis)
    text = called("mup", base_width, stddev=(stddev, 0.02), role=(role, "hidden"), **fan.shown())
    return Recipe(text, _plan_mup, (real("base_width", base_width, 1), number("stddev", stddev, 0), role, fan))


def _plan_mup(
    shape: tuple[int, ...], dtype: DTypeLike, base_width: float, stddev: RealNumber, role: Role, fan: Fan
) -> Draw:
    if role == "input":
        return plan_normal(shape, dtype, stddev)
    width_ratio = fan.of(shape)[0] / base_width
    power = 0.5 if role == "hidden" else 1.0
    return plan_normal(shape, dtype, stddev / width_ratio**power)
