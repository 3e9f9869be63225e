"""Normalisation: LayerNorm, RMSNorm, GroupNorm and BatchNorm, with mean and variance in float32 at least."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._edit import set
from .._tree import PyTree, entries_of
from .._words import describe
from ._explicit_axes import entries_at, like_input, splits_output
from ._inputs import axes_of_input, common_dtype, floats_or_complex, misfit, parameter, widened
from ._layer import Layer, P, Params


@dataclass(frozen=True, eq=False, repr=False)
class _Norm(Layer):
    """Base of the normalisation layers: a scale and a bias for each feature, and their checks."""

    _: KW_ONLY
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def declare(self, x: PyTree) -> dict[str, Param]:
        shape = self._feature_shape(x)
        leaves: dict[str, Param] = {}
        if self.use_scale:
            leaves["scale"] = Param(shape, self.param_dtype, initializers.ones)
        if self.use_bias:
            leaves["bias"] = Param(shape, self.param_dtype, initializers.zeros)
        return leaves

    def _features_along(self, x: PyTree) -> tuple[int, ...]:
        """The axes of the input that have a scale and a bias, counted from the front."""
        return (len(floats_or_complex(self, x).shape) - 1,)

    def _feature_shape(self, x: PyTree) -> tuple[int, ...]:
        """The shape of scale, bias and statistics for an input."""
        return tuple(x.shape[axis] for axis in self._features_along(x))

    def _check(self, params: Params, x: PyTree) -> None:
        """Raise unless the scale, bias and statistics have the size of the input's features."""
        shape = self._feature_shape(x)
        for name in (*self._trainable(), *self.statistics):
            leaf = parameter(params, name, self)
            if leaf.shape == shape:
                continue
            # The usual mistake, another number of features in, gets a message that names both numbers.
            if leaf.ndim == 1 and len(shape) == 1:
                expected = f"{leaf.shape[0]} features for the {name} {describe(leaf)}"
                raise misfit(self, expected, f"the input {describe(x)}")
            parameter(params, name, self, shape)  # raises

    def _trainable(self) -> list[str]:
        used = {"scale": self.use_scale, "bias": self.use_bias}
        return [name for name, is_used in used.items() if is_used]

    def _output_dtype(self, params: Params, x: jax.Array) -> DTypeLike:
        # From the input, not from its float32 copy: a bfloat16 network stays in bfloat16.
        return common_dtype(self, self.dtype, x, *(params[name] for name in self._trainable()))

    def _scaled(self, params: Params, normed: jax.Array, x: jax.Array) -> jax.Array:
        """Scale and shift a normalised input, in the dtype of the output."""
        dtype = self._output_dtype(params, x)
        normed = normed.astype(dtype)
        if self.use_scale:
            normed = normed * self._along_features(params["scale"], x).astype(dtype)
        return self._shifted(params, normed)

    def _shifted(self, params: Params, y: jax.Array) -> jax.Array:
        if not self.use_bias:
            return y
        return y + self._along_features(params["bias"], y).astype(y.dtype)

    def _along_features(self, leaf: jax.Array, x: jax.Array) -> jax.Array:
        """A scale or bias as it broadcasts along the input's axes of features."""
        return leaf  # along the last axis as it is


@dataclass(frozen=True, eq=False, repr=False)
class _NormOverAxes(_Norm):
    """Base of the norms with a choice of axes, LayerNorm and RMSNorm."""

    _: KW_ONLY
    axis: int | tuple[int, ...] = -1
    feature_axes: int | tuple[int, ...] | None = None

    def _features_along(self, x: PyTree) -> tuple[int, ...]:
        axes = self.axis if self.feature_axes is None else self.feature_axes
        return axes_of_input(self, axes, floats_or_complex(self, x))

    def _along_features(self, leaf: jax.Array, x: jax.Array) -> jax.Array:
        if self.axis == -1 and self.feature_axes is None:  # a fast path: 5 % of a call outside of `jit`
            return leaf
        along = self._features_along(x)
        return leaf.reshape([size if axis in along else 1 for axis, size in enumerate(x.shape)])

    def _reduced(self, x: PyTree) -> tuple[int, ...]:
        """The axes that mean and variance are taken over, counted from the front."""
        return axes_of_input(self, self.axis, floats_or_complex(self, x))

    def declare(self, x: PyTree) -> dict[str, Param]:
        self._reduced(x)  # raises if the input does not have these axes
        return super().declare(x)


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(_NormOverAxes):
    """Normalise to zero mean and unit variance over the last axis, or several, then scale and shift (Ba et al. 2016).

    >>> layer = LayerNorm()
    >>> x = jnp.array([[1.0, 3.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[-1.0, 1.0]]
    >>> image = LayerNorm(axis=(-3, -2, -1))               # PyTorch's LayerNorm((8, 8, 3))
    >>> image.spec(jnp.ones((2, 8, 8, 3)))
    Tree(
      scale  f32[8,8,3]
      bias   f32[8,8,3]
    )

    The variance is the biased one, to which `epsilon` is added, as in PyTorch; of complex numbers it is the mean of
    `|x - mean|**2`.

    Args:
        epsilon: added to the variance before its root is taken.
        use_scale: whether there is a `scale`. With `use_bias=False` too, PyTorch's `elementwise_affine=False`, the layer
            has no parameters.
        use_bias: whether there is a `bias`.
        param_dtype: the dtype of the parameters.
        dtype: the dtype of the output; by default the one that JAX promotes input and parameters to. Mean and variance
            are float32 at least.
        axis: the axis or axes that mean and variance are taken over.
        feature_axes: the axes that have a scale and a bias; by default those of `axis`, as in PyTorch and Keras. (In
            Flax they are the last axis.)

    Raises:
        LayerError: an input with another number of features than the scale, or without these axes.
    """

    @splits_output(like_input)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        centred, variance = _moments(widened(x), self._reduced(x))
        return self._scaled(params, centred * jax.lax.rsqrt(variance + self.epsilon), x)


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(_NormOverAxes):
    """Normalise by the root mean square over the last axis, or several, then scale (Zhang and Sennrich 2019).

    >>> layer = RMSNorm()
    >>> x = jnp.array([[4.0, 4.0]])
    >>> layer(layer.init(jax.random.key(0), x), x).round(3).tolist()
    [[1.0, 1.0]]

    `axis`, `feature_axes` and `use_scale` are those of `LayerNorm`.

    Args:
        epsilon: added to the mean square before its root is taken.
        use_scale: whether there is a `scale`.
        param_dtype: the dtype of the parameters.
        dtype: the dtype of the output; by default the one that JAX promotes input and parameters to. Mean and variance
            are float32 at least.
        axis: the axis or axes that the mean square is taken over.
        feature_axes: the axes that have a scale; by default those of `axis`.

    Raises:
        LayerError: an input with another number of features than the scale, or without these axes.
    """

    _: KW_ONLY
    epsilon: float = 1e-6
    use_bias: bool = field(default=False, init=False)  # no option: it has no bias

    @splits_output(like_input)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        wide = widened(x)
        mean_square = _squared(wide).mean(self._reduced(x), keepdims=True)
        return self._scaled(params, wide * jax.lax.rsqrt(mean_square + self.epsilon), x)


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(_Norm):
    """Normalise each example over a group of features and all places, then scale and shift (Wu and He 2018).

    >>> layer = GroupNorm(2)
    >>> x = jnp.ones((1, 8, 8, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (1, 8, 8, 4)

    The input is f32[batch, ..., features]. With as many groups as features it is instance norm.

    Args:
        groups: how many groups of features, which divide the features.
        epsilon: added to the variance before its root is taken.
        use_scale: whether there is a `scale`.
        use_bias: whether there is a `bias`.
        param_dtype: the dtype of the parameters.
        dtype: the dtype of the output; by default the one that JAX promotes input and parameters to. Mean and variance
            are float32 at least.

    Raises:
        LayerError: groups that do not divide the features, or another number of features than the scale.
    """

    groups: int

    def declare(self, x: PyTree) -> dict[str, Param]:
        self._check_groups(x)
        return super().declare(x)

    @splits_output(like_input)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        self._check(params, x)
        self._check_groups(x)  # again, since parameters from elsewhere may be used without `declare`
        batch, *places, features = x.shape
        grouped = widened(x).reshape(batch, math.prod(places), self.groups, features // self.groups)
        centred, variance = _moments(grouped, (1, 3))
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return self._scaled(params, normed.reshape(x.shape), x)

    def _check_groups(self, x: PyTree) -> None:
        if len(floats_or_complex(self, x).shape) < 2:
            raise misfit(self, "an input of the shape (batch, ..., features)", describe(x))
        if x.shape[-1] % self.groups:
            raise misfit(self, f"features that {self.groups} groups divide", f"the input {describe(x)}")


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(_Norm):
    """Normalise over all axes but the last: in training by the batch's mean and variance, else by running statistics.

    >>> layer = BatchNorm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer(params, x, train=True).round(3).tolist()
    [[-1.0], [1.0]]
    >>> y, params = layer.updated(params, x)               # the same, and the parameters with new statistics
    >>> params["mean"].round(3), params["var"].round(3)
    (Array([0.2], dtype=float32), Array([1.1], dtype=float32))

    The leaves `mean` and `var` are not trainable. Any layer or container has `updated`, which returns the parameters
    with new statistics, `new = momentum * old + (1 - momentum) * batch`, with the unbiased variance, as in PyTorch
    (whose momentum is 1 minus this one). In a train step return them beside the loss:

        def loss(params): y, new = net.updated(params, x); return objective(y), new
        grads, new = jax.grad(loss, has_aux=True)(params)

    and keep `mean` and `var` of `new` (Ioffe and Szegedy 2015).

    Under `jit` with a sharded batch the statistics are those of all devices. Inside of `jax.shard_map`, `jax.pmap` or
    `jax.vmap`, which see a part of the batch, name the axis with `axis_name`: then mean and variance are those of all parts, as in
    PyTorch's SyncBatchNorm.

    >>> across = BatchNorm(axis_name="parts")
    >>> parts = jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]])
    >>> step = jax.vmap(across.updated, in_axes=(None, 0), out_axes=(0, None), axis_name="parts")
    >>> y, new = step(across.init(jax.random.key(0), parts[0]), parts)
    >>> new["mean"].round(3)                               # 0.1 of the mean of all, 3
    Array([0.3], dtype=float32)

    Padding is left out of the statistics with `mask=`, an option of the call and of `updated`:

    >>> seen = jnp.array([True, True, False])
    >>> layer(params, jnp.array([[1.0], [3.0], [99.0]]), train=True, mask=seen)[:2].round(3).tolist()
    [[-1.0], [1.0]]

    Args:
        epsilon: added to the variance before its root is taken.
        use_scale: whether there is a `scale`; PyTorch's `affine=False` is both `use_scale` and `use_bias` False.
        use_bias: whether there is a `bias`.
        param_dtype: the dtype of the parameters.
        dtype: the dtype of the output; by default the one that JAX promotes input and parameters to. Mean and variance
            are float32 at least.
        momentum: how much of the running statistics a step keeps.
        axis_name: the mapped axis, or axes, over which the batch is divided.

    Raises:
        LayerError: another number of features than the scale, in training one value for each feature, a mask that does
            not fit, or an axis name that is not mapped.
    """

    statistics = ("mean", "var")
    _: KW_ONLY
    momentum: float = 0.9
    axis_name: str | tuple[str, ...] | None = None

    def declare(self, x: PyTree) -> dict[str, Param]:
        shape = self._feature_shape(x)
        # In float32 even if parameters are bfloat16, whose rounding would stop 0.9 * old + 0.1 * new from changing.
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        of_mean = jnp.promote_types(wide, jnp.complex64) if jnp.iscomplexobj(x) else wide
        mean = Param(shape, of_mean, initializers.zeros, trainable=False)
        var = Param(shape, jnp.finfo(wide).dtype, initializers.ones, trainable=False)  # real, also of complex numbers
        return {**super().declare(x), "mean": mean, "var": var}

    @splits_output(like_input)
    def apply(self, params: Params, x: PyTree, *, train: bool = False, mask: PyTree = None) -> jax.Array:
        """Compute the output; in training by the batch's mean and variance.

        Args:
            params: the layer's parameters.
            x: f32[batch, ..., features].
            train: whether mean and variance are those of the batch.
            mask: bool, True where a value counts in the mean and variance: of the input's shape without features, or of
                as many axes as the input, which broadcast to it. All values are normalised.
        """
        self._check(params, x)
        seen = self._checked_mask(x, mask)
        if not train:
            return self._normed(params, x, params["mean"], params["var"])
        batch = self._of_batch(x, seen)
        return self._normed(params, x, batch.mean, batch.var)

    def updated(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, params: P, x: PyTree, *, key: jax.Array | None = None, train: bool = True, mask: PyTree = None
    ) -> tuple[jax.Array, P]:
        y, new = self._with_statistics(params, x, mask=mask)
        for name, value in new.items():
            params = set(params, name, value)
        return y, params

    def _split_with_statistics(
        self, params: Params, x: PyTree, **options: PyTree
    ) -> tuple[PartitionSpec, dict[str, PartitionSpec]]:
        kept = {name: PartitionSpec(*entries_at(params, name)) for name in self.statistics}
        return PartitionSpec(*entries_of(x)), kept

    @splits_output(_split_with_statistics)
    def _with_statistics(self, params: Params, x: PyTree, *, mask: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The output in training, and the new running statistics."""
        self._check(params, x)
        batch = self._of_batch(x, self._checked_mask(x, mask))
        y = self._normed(params, x, batch.mean, batch.var)
        new = {"mean": self._moved(params["mean"], batch.mean, batch.count)}
        return y, {**new, "var": self._moved(params["var"], batch.unbiased(), batch.count)}

    def _check(self, params: Params, x: PyTree) -> None:
        super()._check(params, x)
        # A real mean would drop the imaginary part of what is added to it.
        if jnp.iscomplexobj(x) and not jnp.iscomplexobj(params["mean"]):
            raise misfit(self, "a complex mean for a complex input", describe(params["mean"]))

    def _checked_mask(self, x: jax.Array, mask: PyTree) -> jax.Array | None:
        """The mask with as many axes as the input."""
        if mask is None:
            return None
        if getattr(mask, "dtype", None) == np.dtype(bool):
            if mask.shape == x.shape[:-1]:
                return jnp.asarray(mask)[..., None]
            if mask.ndim == x.ndim and all(size in (1, whole) for size, whole in zip(mask.shape, x.shape)):
                return jnp.asarray(mask)
        expected = f"a mask bool{[*x.shape[:-1]]}, or of {x.ndim} axes that broadcast to bool{[*x.shape]}"
        raise misfit(self, expected, describe(mask))

    def _moved(self, old: jax.Array, value: jax.Array, count: jax.Array | int) -> jax.Array:
        """A running statistic, the mean or the variance, moved towards that of a batch of `count` values."""
        value = jax.lax.stop_gradient(value)  # the loss does not depend on new statistics
        new = (self.momentum * old + (1 - self.momentum) * value).astype(old.dtype)
        # A batch that is all padding has no statistics, and one value no variance: the running ones stay.
        return new if isinstance(count, int) else jnp.where(count < 2, old, new)

    def _normed(self, params: Params, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            factor = factor * params["scale"]  # one per feature, so that each place costs one product
        y = (widened(x) - mean) * factor
        return self._shifted(params, y.astype(self._output_dtype(params, x)))

    def _of_batch(self, x: jax.Array, mask: jax.Array | None) -> _BatchMoments:
        """The mean and biased variance of each feature in a batch, over all parts of `axis_name`, and how many values."""
        axes = tuple(range(x.ndim - 1))

        def summed(values: jax.Array) -> jax.Array:
            # `where` rather than a product, which would keep NaN in the padding.
            seen = values if mask is None else jnp.where(mask, values, 0)
            return self._summed_over_parts(seen.sum(axes))

        wide = widened(x)
        count = self._summed_over_parts(_counted(x, mask))
        if isinstance(count, int):
            # One value has the variance 0, and the unbiased one is 0 / 0.
            if count < 2:
                raise misfit(self, "more than one value for each feature in training", f"the input {describe(x)}")
            divisor = count
        else:
            count = count.astype(wide.real.dtype)
            divisor = jnp.maximum(count, 1)  # the mean of padding alone is 0 rather than NaN
        mean = summed(wide) / divisor
        # mean(x * x) - mean ** 2 would lose digits where the mean is large
        return _BatchMoments(mean, summed(_squared(wide - mean)) / divisor, count)

    def _summed_over_parts(self, value: PyTree) -> PyTree:
        """The sum over the parts of the batch in all places of `axis_name`; of an int an int."""
        if self.axis_name is None:
            return value
        try:
            return jax.lax.psum(value, self.axis_name)
        except NameError:
            expected = f"a call inside of jax.shard_map, jax.vmap or jax.pmap over the axis {self.axis_name!r}"
            raise misfit(self, expected, "one outside, in training") from None


@dataclass(frozen=True)
class _BatchMoments:
    """The mean and biased variance of each feature in a batch, and of how many values: an int if it is known."""

    mean: jax.Array
    var: jax.Array
    count: jax.Array | int

    def unbiased(self) -> jax.Array:
        """The unbiased variance."""
        if isinstance(self.count, int):
            return self.var * (self.count / (self.count - 1))  # `_of_batch` refuses a count of 1
        return self.var * (self.count / jnp.maximum(self.count - 1, 1))


def _counted(x: jax.Array, mask: jax.Array | None) -> jax.Array | int:
    """How many values each feature has; for a mask an array, of one number for all features or one for each."""
    if mask is None:
        return math.prod(x.shape[:-1])
    # In int32: float32 cannot count beyond 2 ** 24.
    return jnp.broadcast_to(mask, (*x.shape[:-1], mask.shape[-1])).sum(tuple(range(x.ndim - 1)), dtype=jnp.int32)


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The input minus its mean over these axes, and its biased variance, for normalisation."""
    centred = x - x.mean(axes, keepdims=True)
    return centred, _squared(centred).mean(axes, keepdims=True)


def _squared(x: jax.Array) -> jax.Array:
    """`|x|**2`, which is real: `x * x` of complex numbers is not, and no variance."""
    if jnp.iscomplexobj(x):
        return x.real * x.real + x.imag * x.imag
    return x * x
