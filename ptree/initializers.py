"""Initialisers: functions `(key, shape, dtype) -> array`, those of `jax.nn.initializers` under the field's names.

`zeros`, `ones` and the presets (`torch_linear`, `keras_dense`, ...) are initialisers as they stand; the others
are called with their options first, and presets may be. Each says by its `repr` what it will do, and two
with equal options are equal, so they share one compiled draw.

Kernels are `(in, out)` or `(spatial..., in, out)`. What counts as fan is said by three options, each an axis
or several: `in_axis`, by default -2, `out_axis`, by default -1, and `batch_axis`, by default none, for the
axis of an ensemble, a stack or experts, which never counts. All other axes are spatial and count twice:

    fan_in  = product of in_axis  * product of the spatial axes
    fan_out = product of out_axis * product of the spatial axes / groups

An attention kernel `(d, heads, k)` has `in_axis=0, out_axis=(1, 2)`, one of PyTorch's or Equinox's `(out, in)`
weights `in_axis=-1, out_axis=-2`, a kernel of 8 experts `(8, in, out)` `batch_axis=0`, and a depthwise
convolution `(3, 3, 1, 64)` `groups=64`: 9 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._leaf import describe, name_of, short_dtype

__all__ = [
    "constant", "dirac", "flax_dense", "gain", "glorot_normal", "glorot_uniform", "gpt2_residual", "he_normal", "he_uniform",
    "identity", "kaiming_normal", "kaiming_uniform", "keras_dense", "keras_embedding", "lecun_normal", "lecun_uniform",
    "mixture", "mup", "mxnet_default", "normal", "ones", "orthogonal", "sparse", "torch_conv", "torch_embedding",
    "torch_linear", "trunc_normal", "truncated_normal", "uniform", "variance_scaling", "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip

Axes = int | Sequence[int]


@dataclass(frozen=True, repr=False, eq=False)
class Initializer:
    """An initialiser that says what it does; two with the same function and options are equal."""

    text: str
    draw: Callable[..., Any]
    options: tuple[Any, ...] = ()

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        return self.draw(key, tuple(shape), dtype, *self.options)

    @property
    def holds_array(self) -> bool:
        """Whether an option is an array, which should not become a constant of a compiled program."""
        return any(hasattr(option, "shape") for option in self.options)

    @property
    def only_draws(self) -> bool:
        """Whether it is made of this room's functions alone: then its key may be of any implementation."""
        return all(getattr(option, "only_draws", False) for option in self.options if callable(option))

    def filled(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
        """The array itself where it is one small number everywhere, for which nothing need be compiled."""
        if self.draw is not _constant or self.holds_array or math.prod(shape) > 1 << 20:
            return None
        return np.full(shape, _exact(self.options[0], dtype))

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Initializer):
            return self is other
        if self.holds_array or other.holds_array:
            return False
        return (self.draw, self.text, self.options) == (other.draw, other.text, other.options)

    def __hash__(self) -> int:
        return id(self) if self.holds_array else hash((self.draw, self.text, self.options))


class Preset(Initializer):
    """An initialiser as it stands; called with options by name, one with these."""

    def __init__(self, make: Callable[..., Initializer], bias: Callable[..., Initializer] | None = None, **given: Any):
        name = make.__name__.strip("_")
        made = make(**given)
        super().__init__(
            _text(name, **{k: (v, None) for k, v in given.items()}) if given else name, made.draw, made.options
        )
        object.__setattr__(self, "__doc__", make.__doc__)
        object.__setattr__(self, "_facts", (make, bias, given))

    def __call__(self, key: Any = None, shape: Any = None, dtype: Any = jnp.float32, **options: Any) -> Any:
        if shape is not None:
            return super().__call__(key, shape, dtype)
        make, bias, given = self._facts  # pyright: ignore[reportAttributeAccessIssue]
        return Preset(make, bias, **{**given, **options})

    def for_bias(self, kernel: tuple[int, ...]) -> Initializer:
        """What the framework draws for the bias beside a kernel of this shape."""
        _, bias, given = self._facts  # pyright: ignore[reportAttributeAccessIssue]
        return self if bias is None else bias(kernel, **given)


def _text(name: str, *given: Any, **options: tuple[Any, Any]) -> str:
    """The call as a person would write it: an option, (value, default), is shown where the two differ."""
    shown = [describe(value) if hasattr(value, "shape") else str(value) for value in given]
    shown += [f"{key}={value!r}" for key, (value, default) in options.items() if value != default]
    return f"{name}({', '.join(shown)})"


# ------------------------------------------------------------------------- fixed values


def _exact(value: Any, dtype: Any) -> np.ndarray:
    """The number in this dtype; rounding a float is fine, changing what a whole number is, is not."""
    number = np.asarray(value)
    with np.errstate(all="ignore"):
        cast = number.astype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) and not (cast == number).all():
        raise ValueError(f"{short_dtype(dtype)} cannot hold {value}")
    return cast


def _constant(key: Any, shape: Any, dtype: Any, value: Any) -> Any:
    value = jnp.asarray(value, dtype) if isinstance(value, jax.Array) else _exact(value, dtype)
    return jnp.broadcast_to(value, shape)


zeros = Initializer("zeros", _constant, (0,))
"""All 0, as it stands: `{"**/bias": zeros}`."""

ones = Initializer("ones", _constant, (1,))
"""All 1, as it stands: `{"**/scale": ones}`."""


def constant(value: Any) -> Initializer:
    """Every element is the value; an array is broadcast to the shape.

    >>> constant(42)
    constant(42)

    A number that the leaf's dtype cannot hold, such as 0.5 in an integer, raises ValueError.
    """
    return Initializer(_text("constant", value), _constant, (value,))


def identity(gain: float = 1.0, batch_axis: Axes = ()) -> Initializer:
    """`gain` on the diagonal of an (in, out) kernel, else 0; raises ValueError for other than 2 axes.

    >>> identity()(jax.random.key(0), (2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    batch = _axes(batch_axis)
    text = _text("identity", *([] if gain == 1 else [gain]), batch_axis=(batch_axis, ()))
    return Initializer(text, _identity, (gain, batch))


def _identity(key: Any, shape: Any, dtype: Any, gain: Any, batch: Any) -> Any:
    left = [axis for axis in range(len(shape)) if axis not in _positive(batch, len(shape), "batch_axis")]
    if len(left) != 2:
        raise ValueError(f"identity needs 2 axes, (in, out); the shape has {len(left)}")
    eye = jnp.asarray(_exact(gain, dtype)) * jnp.eye(*(shape[axis] for axis in left), dtype=dtype)
    return jnp.broadcast_to(jnp.expand_dims(eye, [a for a in range(len(shape)) if a not in left]), shape)


def dirac(groups: int = 1) -> Initializer:
    """A convolution that passes its channels through: 1 at the centre for input i, output i of each group, else 0.

    >>> dirac()(jax.random.key(0), (3, 2, 2))[:, :, 0].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]

    The kernel is (spatial..., in / groups, out); like `torch.nn.init.dirac_`, whose weight is (out, in, spatial...).
    Raises ValueError for fewer than 3 axes, or an `out` that the groups do not divide.
    """
    return Initializer(_text("dirac", groups=(groups, 1)), _dirac, (groups,))


def _dirac(key: Any, shape: Any, dtype: Any, groups: Any) -> Any:
    if len(shape) < 3:
        raise ValueError(f"dirac needs 3 axes or more, (spatial..., in, out); the shape has {len(shape)}")
    *spatial, inputs, outputs = shape
    if groups < 1 or outputs % groups:
        raise ValueError(f"{groups} groups do not divide {outputs} outputs")
    kernel = np.zeros(shape, dtype)
    channel = np.arange(min(inputs, outputs // groups))
    centre = tuple(size // 2 for size in spatial)
    for group in range(groups):
        kernel[(*centre, channel, group * (outputs // groups) + channel)] = 1
    return jnp.asarray(kernel)


# ------------------------------------------------------------------------ distributions


def _spread(name: str, value: Any) -> Any:
    """A standard deviation or a bound that makes sense, as far as it is known."""
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return value


def normal(stddev: float = 0.01, mean: float = 0.0) -> Initializer:
    """Gaussian with this standard deviation and mean.

    >>> normal(0.02)
    normal(0.02)
    """
    return Initializer(_text("normal", stddev, mean=(mean, 0.0)), _normal, (_spread("stddev", stddev), mean))


def _normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any) -> Any:
    return _moved(jax.nn.initializers.normal(stddev)(key, shape, dtype), mean)


def truncated_normal(stddev: float = 0.01, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Gaussian cut at `lower` and `upper` standard deviations from the mean.

    `stddev` is that of the Gaussian *before* the cut, as in Flax and in PyTorch's `trunc_normal_` (whose
    `a` and `b` are absolute); after a cut at 2 the spread is 0.88 of it. `trunc_normal` takes the spread after.

    >>> truncated_normal(0.02)
    truncated_normal(0.02)
    """
    text = _text("truncated_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    return Initializer(text, _truncated_normal, (_spread("stddev", stddev), mean, *_cut(lower, upper)))


def trunc_normal(stddev: float = 0.01, mean: float = 0.0, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Cut Gaussian whose true spread and mean, *after* the cut, are `stddev` and `mean`.

    `lower` and `upper` are in standard deviations of the Gaussian before the cut, which is widened by
    1 / 0.88 for a cut at 2.

    >>> trunc_normal(0.02)
    trunc_normal(0.02)
    """
    low, high = _cut(lower, upper)
    text = _text("trunc_normal", stddev, mean=(mean, 0.0), lower=(lower, -2.0), upper=(upper, 2.0))
    moved, spread = _moments(low, high)
    before = _spread("stddev", stddev) / spread
    return Initializer(text, _truncated_normal, (before, mean - moved * before, low, high))


def _cut(lower: float, upper: float) -> tuple[float, float]:
    if not lower < upper:
        raise ValueError(f"lower must be below upper, got {lower} and {upper}")
    return lower, upper


def _moments(low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of a unit Gaussian between two cuts (Johnson, Kotz and Balakrishnan 1994, 13.10)."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    share = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    mean = (density(low) - density(high)) / share
    edges = [x * density(x) if math.isfinite(x) else 0.0 for x in (low, high)]
    return mean, math.sqrt(1 + (edges[0] - edges[1]) / share - mean**2)


def _truncated_normal(key: Any, shape: Any, dtype: Any, stddev: Any, mean: Any, lower: Any, upper: Any) -> Any:
    return _moved(jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)(key, shape, dtype), mean)


def _moved(draw: Any, mean: Any) -> Any:
    return draw if isinstance(mean, (int, float)) and mean == 0 else draw + jnp.asarray(mean, draw.dtype)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform in [low, high).

    >>> uniform(-0.1, 0.1)
    uniform(-0.1, 0.1)
    """
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and not -math.inf < low <= high < math.inf:
        raise ValueError(f"low must be at most high, and both finite; got {low} and {high}")
    return Initializer(_text("uniform", low, high), _uniform, (low, high))


def _uniform(key: Any, shape: Any, dtype: Any, low: Any, high: Any) -> Any:
    return jax.random.uniform(key, shape, dtype, low, high)


def mixture(*parts: tuple[float, Callable[..., Any]]) -> Initializer:
    """For each element one of several initialisers, each with its share: (share, initialiser) pairs.

    >>> mixture((0.25, uniform(5, 10)), (0.5, zeros), (0.25, uniform(-10, -5)))
    mixture((0.25, uniform(5, 10)), (0.5, zeros), (0.25, uniform(-10, -5)))

    Raises ValueError for shares that are negative or do not add up to 1. Each part draws the whole shape.
    """
    shares = [share for share, _ in parts]
    if not parts or min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise ValueError(f"the shares of a mixture must be at least 0 and add up to 1, got {shares}")
    text = f"mixture({', '.join(f'({share}, {name_of(part)})' for share, part in parts)})"
    return Initializer(text, _mixture, tuple(option for pair in parts for option in pair))


def _mixture(key: Any, shape: Any, dtype: Any, *options: Any) -> Any:
    shares, parts = options[::2], options[1::2]
    chance, *own = jax.random.split(key, len(parts) + 1)
    at = jax.random.uniform(chance, shape)
    values = [part(k, shape, dtype) for part, k in zip(parts, own, strict=True)]
    bounds = np.cumsum(shares)[:-1]
    return jnp.select([at < bound for bound in bounds], values[:-1], values[-1])


def sparse(sparsity: float, stddev: float = 0.01) -> Initializer:
    """Gaussian (in, out) kernel in which each input has this share of its weights set to 0 (Martens 2010).

    >>> sparse(0.5)(jax.random.key(0), (3, 4)).astype(bool).sum(1).tolist()
    [2, 2, 2]

    Like `torch.nn.init.sparse_`, whose weight is (out, in). Raises ValueError for other than 2 axes.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be from 0 to 1, got {sparsity}")
    return Initializer(_text("sparse", sparsity, stddev=(stddev, 0.01)), _sparse, (sparsity, _spread("stddev", stddev)))


def _sparse(key: Any, shape: Any, dtype: Any, sparsity: Any, stddev: Any) -> Any:
    if len(shape) != 2:
        raise ValueError(f"sparse needs 2 axes, (in, out); the shape has {len(shape)}")
    values, places = jax.random.split(key)
    rank = jnp.argsort(jax.random.uniform(places, shape), axis=1)  # for each input a permutation of the outputs
    kept = rank >= math.ceil(sparsity * shape[1])
    return jnp.where(kept, _normal(values, shape, dtype, stddev, 0.0), jnp.zeros((), dtype))


# --------------------------------------------------------------- scaled by fan_in, fan_out


def _axes(given: Axes) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def _positive(axes: tuple[int, ...], ndim: int, name: str) -> list[int]:
    """The axes counted from the front; they must be there."""
    if any(not -ndim <= axis < ndim for axis in axes):
        shown = axes[0] if len(axes) == 1 else axes
        raise ValueError(f"{name}={shown} is not there in a shape with {ndim} {'axis' if ndim == 1 else 'axes'}")
    return [axis % ndim for axis in axes]


@dataclass(frozen=True)
class _Fan:
    """Which axes of a kernel count as what."""

    in_axis: tuple[int, ...]
    out_axis: tuple[int, ...]
    batch_axis: tuple[int, ...]
    groups: int = 1

    def of(self, shape: Sequence[int]) -> tuple[float, float]:
        """fan_in and fan_out; raises ValueError where the shape does not have the axes."""
        roles = {
            name: _positive(getattr(self, name), len(shape), name) for name in ("in_axis", "out_axis", "batch_axis")
        }
        taken = [axis for axes in roles.values() for axis in axes]
        if len(set(taken)) < len(taken):
            raise ValueError(f"an axis is named twice: {', '.join(f'{name}={axes}' for name, axes in roles.items())}")
        spatial = math.prod(size for axis, size in enumerate(shape) if axis not in taken)
        fan_in, fan_out = (math.prod(shape[axis] for axis in roles[name]) * spatial for name in ("in_axis", "out_axis"))
        return fan_in, fan_out / self.groups


def variance_scaling(
    scale: float,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    groups: int = 1,
) -> Initializer:
    """Variance `scale / fan`, where `mode` is `fan_in`, `fan_out` or `fan_avg`, and `distribution` says what is drawn.

    >>> variance_scaling(2.0, "fan_out", "normal", groups=8)
    variance_scaling(2.0, 'fan_out', 'normal', groups=8)

    The distribution is `normal`, `uniform`, or `truncated_normal`, which is cut at two standard deviations and
    widened to just that variance. This room's docstring says which axes count as fan.
    """  # fmt: skip
    text = f"variance_scaling({scale}, {mode!r}, {distribution!r}"
    return _scaling(text, scale, mode, distribution, in_axis, out_axis, batch_axis, groups)


def _scaling(
    text: str, scale: float, mode: str, distribution: str, in_axis: Axes, out_axis: Axes, batch_axis: Axes, groups: int
) -> Initializer:
    if mode not in ("fan_in", "fan_out", "fan_avg") or distribution not in ("normal", "truncated_normal", "uniform"):
        raise ValueError(
            "mode must be 'fan_in', 'fan_out' or 'fan_avg', and distribution 'normal', 'truncated_normal' or"
            f" 'uniform'; got {mode!r} and {distribution!r}"
        )
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    fan = _Fan(_axes(in_axis), _axes(out_axis), _axes(batch_axis), groups)
    axes = _text("", in_axis=(in_axis, -2), out_axis=(out_axis, -1), batch_axis=(batch_axis, ()), groups=(groups, 1))
    given = [part for part in (text.partition("(")[2], axes[1:-1]) if part]
    whole = f"{text.partition('(')[0]}({', '.join(given)})"
    return Initializer(whole, _scaled, (_spread("scale", scale), mode, distribution, fan))


def _scaled(key: Any, shape: Any, dtype: Any, scale: Any, mode: Any, distribution: Any, fan: _Fan) -> Any:
    fan_in, fan_out = fan.of(shape)
    if fan.groups > 1 and mode != "fan_in":  # jax knows no groups: the variance is theirs with the scale moved
        plain = fan_out * fan.groups
        scale = scale * (fan.groups if mode == "fan_out" else (fan_in + plain) / (fan_in + fan_out))
    return jax.nn.initializers.variance_scaling(
        scale, mode, distribution, in_axis=fan.in_axis, out_axis=fan.out_axis, batch_axis=fan.batch_axis
    )(key, shape, dtype)


def xavier_uniform(
    gain: float = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010); also `glorot_uniform`."""
    text = _text("xavier_uniform", *([] if gain == 1 else [gain]))[:-1]
    return _scaling(text, gain**2, "fan_avg", "uniform", in_axis, out_axis, batch_axis, groups)


def xavier_normal(
    gain: float = 1.0, *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1
) -> Initializer:
    """Gaussian with the variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010); also `glorot_normal`.

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(1.0, "fan_avg", "normal")`.
    """
    text = _text("xavier_normal", *([] if gain == 1 else [gain]))[:-1]
    return _scaling(text, gain**2, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, groups)


def kaiming_uniform(
    negative_slope: float = 0.0,
    mode: str = "fan_in",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    groups: int = 1,
) -> Initializer:
    """Uniform in +-sqrt(6 / fan / (1 + negative_slope**2)), for layers before a ReLU (He et al. 2015); also `he_uniform`."""  # fmt: skip
    text = _text("kaiming_uniform", negative_slope=(negative_slope, 0.0), mode=(mode, "fan_in"))[:-1]
    return _scaling(text, 2.0 / (1 + negative_slope**2), mode, "uniform", in_axis, out_axis, batch_axis, groups)


def kaiming_normal(
    negative_slope: float = 0.0,
    mode: str = "fan_in",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    groups: int = 1,
) -> Initializer:
    """Gaussian with the variance 2 / fan / (1 + negative_slope**2), for layers before a ReLU (He et al. 2015); also `he_normal`.

    Like jax's, Keras' and Flax's it is cut at two standard deviations and then widened to just that variance;
    PyTorch's is not cut: `variance_scaling(2.0, "fan_in", "normal")`.
    """  # fmt: skip
    text = _text("kaiming_normal", negative_slope=(negative_slope, 0.0), mode=(mode, "fan_in"))[:-1]
    return _scaling(
        text, 2.0 / (1 + negative_slope**2), mode, "truncated_normal", in_axis, out_axis, batch_axis, groups
    )


def lecun_uniform(*, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1) -> Initializer:
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al. 1998)."""
    return _scaling("lecun_uniform(", 1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, groups)


def lecun_normal(*, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), groups: int = 1) -> Initializer:
    """Gaussian with the variance 1 / fan_in (LeCun et al. 1998), cut at two standard deviations and widened to that."""
    return _scaling("lecun_normal(", 1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, groups)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
he_uniform, he_normal = kaiming_uniform, kaiming_normal


def gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """The gain that keeps the variance before this nonlinearity, as `torch.nn.init.calculate_gain`.

    >>> round(gain("relu"), 4), round(gain("tanh"), 4), gain("linear")
    (1.4142, 1.6667, 1.0)

    Raises ValueError for a nonlinearity that is not linear, sigmoid, tanh, relu, leaky_relu or selu.
    """
    known = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + negative_slope**2)),
    }  # fmt: skip
    if nonlinearity not in known:
        raise ValueError(f"no gain is known for {nonlinearity!r}, only for {sorted(known)}")
    return known[nonlinearity]


def orthogonal(gain: float = 1.0, *, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """`gain` times a matrix with orthonormal rows or columns, between `out_axis` and all others (Saxe et al. 2013).

    >>> w = orthogonal(2.0)(jax.random.key(0), (3, 3))
    >>> (w.T @ w).round(3).tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]

    Each index of a batch axis has a matrix of its own. Raises ValueError for fewer than 2 other axes.
    """
    options = {"out_axis": (out_axis, -1), "batch_axis": (batch_axis, ())}
    text = _text("orthogonal", *([] if gain == 1 else [gain]), **options)
    return Initializer(text, _orthogonal, (gain, _axes(out_axis), _axes(batch_axis)))


def _orthogonal(key: Any, shape: Any, dtype: Any, gain: Any, out_axis: Any, batch_axis: Any) -> Any:
    batch = _positive(batch_axis, len(shape), "batch_axis")
    out = _positive(out_axis, len(shape), "out_axis")
    rest = [axis for axis in range(len(shape)) if axis not in (*batch, *out)]
    if not rest or set(batch) & set(out):
        raise ValueError(f"orthogonal needs an axis in and an axis out beside those of the batch; the shape is {shape}")
    moved = [*batch, *rest, *out]
    matrix = math.prod(shape[axis] for axis in rest), math.prod(shape[axis] for axis in out)
    wide = jnp.promote_types(dtype, jnp.float32)  # nobody factorises in bf16

    def one(key: Any) -> Any:
        return jax.nn.initializers.orthogonal(gain)(key, matrix, wide).astype(dtype)

    count = math.prod(shape[axis] for axis in batch)
    drawn = jax.vmap(one)(jax.random.split(key, count)) if batch else one(key)
    return drawn.reshape([shape[axis] for axis in moved]).transpose(np.argsort(moved))


# ------------------------------------------------- defaults of the frameworks, and of papers


def _torch_linear(
    fan_in: int | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """PyTorch's `Linear`: uniform in +-1 / sqrt(fan_in), the bias too.

    The bias takes the fan_in of the kernel beside it; one that stands alone needs it as an option:
    `torch_linear(fan_in=784)`.
    """
    return Initializer("torch", _torch, (fan_in, _Fan(_axes(in_axis), _axes(out_axis), _axes(batch_axis))))


def _torch_conv(
    fan_in: int | None = None, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """PyTorch's `Conv1d` to `Conv3d`: uniform in +-1 / sqrt(fan_in), the bias too, as for `torch_linear`.

    The kernel is (spatial..., in / groups, out). For `ConvTranspose` PyTorch takes the other axis:
    `torch_conv(in_axis=-1, out_axis=-2)`.
    """
    return _torch_linear(fan_in, in_axis, out_axis, batch_axis)


def _torch(key: Any, shape: Any, dtype: Any, fan_in: Any, fan: _Fan) -> Any:
    if fan_in is None and len(shape) < 2:
        raise ValueError("a bias without a kernel beside it needs the option fan_in=")
    bound = 1 / math.sqrt(fan_in or fan.of(shape)[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _torch_bias(kernel: Any, **given: Any) -> Initializer:
    made = _torch_linear(**given)
    return torch_linear(fan_in=made.options[0] or int(made.options[1].of(kernel)[0]))


def _torch_embedding(padding_idx: int | None = None) -> Initializer:
    """PyTorch's `Embedding`: Gaussian with the standard deviation 1; the row `padding_idx`, if given, is 0."""
    return Initializer("torch", _torch_table, (padding_idx,))


def _torch_table(key: Any, shape: Any, dtype: Any, padding_idx: Any) -> Any:
    if padding_idx is not None and not -shape[0] <= padding_idx < shape[0]:
        raise ValueError(f"padding_idx={padding_idx} is no row of a table of {shape[0]}")
    table = jax.random.normal(key, shape, dtype)
    return table if padding_idx is None else table.at[padding_idx].set(0)


def _no_bias(kernel: Any, **given: Any) -> Initializer:
    return zeros


def _keras_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Keras' `Dense` and convolutions: `glorot_uniform`; a bias beside a kernel is 0."""
    return glorot_uniform(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)


def _keras_embedding() -> Initializer:
    """Keras' `Embedding`: uniform in [-0.05, 0.05)."""
    return uniform(-0.05, 0.05)


def _flax_dense(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Flax's `Dense` and convolutions: `lecun_normal`; a bias beside a kernel is 0.

    Haiku's `Linear` does not widen the cut Gaussian: its spread is 0.88 of this, `variance_scaling(0.774)`.
    """
    return lecun_normal(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)


def _mxnet_default(scale: float = 0.07) -> Initializer:
    """MXNet's and Gluon's default: uniform in [-0.07, 0.07); a bias beside a kernel is 0."""
    return uniform(-scale, scale)


torch_linear = Preset(_torch_linear, _torch_bias)
torch_conv = Preset(_torch_conv, _torch_bias)
torch_embedding = Preset(_torch_embedding)
keras_dense = Preset(_keras_dense, _no_bias)
keras_embedding = Preset(_keras_embedding)
flax_dense = Preset(_flax_dense, _no_bias)
mxnet_default = Preset(_mxnet_default, _no_bias)


def gpt2_residual(layers: int, stddev: float = 0.02) -> Initializer:
    """GPT-2's projections into the residual stream: `normal(stddev / sqrt(2 * layers))` (Radford et al. 2019, 2.3).

    >>> gpt2_residual(12)
    gpt2_residual(12)

    Each of the `layers` blocks adds to the stream twice. All other kernels and tables have `normal(0.02)`.
    """
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    text = _text("gpt2_residual", layers, stddev=(stddev, 0.02))
    return Initializer(text, _normal, (_spread("stddev", stddev) / math.sqrt(2 * layers), 0.0))


def mup(
    base_width: int,
    stddev: float = 0.02,
    role: str = "hidden",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Initializer:
    """Gaussian scaled from a model of `base_width` so that the best learning rate moves over (Yang et al. 2022, table 3).

    >>> mup(256)
    mup(256)

    With m = fan_in / base_width the standard deviation is `stddev / sqrt(m)` for a `hidden` kernel, `stddev / m`
    for an `output` kernel (width to logits), and `stddev` for an `input` one (tables, first layers). At
    `base_width` all three are `normal(stddev)`. The learning rates are the optimiser's part.
    """  # fmt: skip
    powers = {"hidden": 0.5, "output": 1.0, "input": 0.0}
    if role not in powers or base_width < 1:
        raise ValueError(
            f"mup takes a base_width of at least 1 and a role of {[*powers]}, got {base_width} and {role!r}"
        )
    axes = {"in_axis": (in_axis, -2), "out_axis": (out_axis, -1), "batch_axis": (batch_axis, ())}
    text = _text("mup", base_width, stddev=(stddev, 0.02), role=(role, "hidden"), **axes)
    fan = _Fan(_axes(in_axis), _axes(out_axis), _axes(batch_axis))
    return Initializer(text, _mup, (base_width, _spread("stddev", stddev), powers[role], fan))


def _mup(key: Any, shape: Any, dtype: Any, base_width: Any, stddev: Any, power: Any, fan: _Fan) -> Any:
    wider = fan.of(shape)[0] / base_width if power else 1.0
    return _normal(key, shape, dtype, stddev / wider**power, 0.0)
